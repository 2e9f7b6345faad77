"""The tutorials' parts. Whole runs are `nox -s tutorials`, and part of .ci/run."""

import pathlib
from dataclasses import replace

import numpy as np
import pytest
from checks import tutorial_module

FOLDER = pathlib.Path(__file__).parents[1] / "tutorials"


@pytest.fixture(scope="module")
def imdb():
    with tutorial_module("04_imdb_sentiment") as module:
        yield module


GOOD = {
    "data": "sample",
    "hard_accuracy": 0.99,
    "hard_accuracy_of_counting": 0.5,
    "examples": [0.1, 0.9],
    "saved_difference": 0.0,
    "exported_difference": 0.0,
}


@pytest.mark.parametrize(
    "contradiction",
    [
        {"hard_accuracy": 0.94},
        {"hard_accuracy_of_counting": 0.7},
        {"examples": [0.6, 0.9]},
        {"examples": [0.1, 0.4]},
        {"saved_difference": 0.1},
        {"exported_difference": 0.1},
        {"data": "imdb", "accuracy": 0.87},
    ],
    ids=str,
)
def test_claims_are_checked(imdb, contradiction):
    imdb.check_claims(GOOD, quick=False)
    with pytest.raises(AssertionError):
        imdb.check_claims({**GOOD, **contradiction}, quick=False)


def test_both_kinds_of_attention_are_the_same_model(imdb, rng):
    settings = replace(
        imdb.Settings(), vocab_size=30, sequence_length=12, embed_dim=8, num_layers=2
    )
    fused = imdb.build_model(settings)
    plain = imdb.build_model(replace(settings, attention="keras"))
    plain.set_weights(fused.get_weights())
    tokens = np.where(np.arange(12) < [[12], [5], [1]], rng.integers(1, 30, (3, 12)), 0)
    # Logits of size 1 after two blocks of float32.
    np.testing.assert_allclose(fused(tokens), plain(tokens), atol=1e-5)


def test_padding_does_not_change_the_answer(imdb, rng):
    settings = replace(imdb.Settings(), vocab_size=30, sequence_length=20, embed_dim=8)
    model = imdb.build_model(settings)
    tokens = rng.integers(1, 30, (1, 9))
    padded = np.pad(tokens, ((0, 0), (0, 11)))
    np.testing.assert_allclose(model(tokens), model(padded), atol=1e-6)


@pytest.mark.parametrize(
    "arguments", [["--epochs", "0"], ["--data", "mnist"], ["--num-heads", "5"]]
)
def test_bad_arguments_are_refused(imdb, arguments, capsys):
    with pytest.raises(SystemExit):
        imdb.parse_arguments(arguments)
    assert arguments[0] in capsys.readouterr().err


def test_every_tutorial_stands_in_the_table():
    table = (FOLDER / "README.md").read_text()
    for path in FOLDER.glob("*.py"):
        assert f"({path.name})" in table
