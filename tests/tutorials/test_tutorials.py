"""Tests of tutorial 4's parts. `nox -s tutorials` and .ci/run do whole runs."""

import os
import pathlib
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import processes
import pytest
import tensorflow as tf
from checks import tutorial_module

from hw3tf.course import data, sentiment
from hw3tf.course.tutorial import UserError

FOLDER = pathlib.Path(__file__).parents[2] / "tutorials"
PROGRAM = FOLDER / "04_imdb_sentiment.py"


@pytest.fixture(scope="module")
def imdb():
    with tutorial_module("04_imdb_sentiment") as module:
        yield module


GOOD = {
    "data": "imdb",
    "model": "transformer",
    "recipe": "default",
    "attention": "fused",
    "accuracy": 0.91,
    "hard": {"fused": 0.99, "none": 0.5, "bag": 0.5, "naive_bayes": 0.5},
    "probabilities": [0.1, 0.9],
    "saved_difference": 0.0,
    "exported_difference": 0.0,
}


@pytest.mark.parametrize(
    "contradiction",
    [
        {"hard": {"fused": 0.94}},
        {"hard": {"none": 0.61}},
        {"hard": {"bag": 0.7}},
        {"hard": {"naive_bayes": 0.7}},
        {"probabilities": [0.6, 0.9]},
        {"probabilities": [0.1, 0.4]},
        {"saved_difference": 0.1},
        {"exported_difference": 0.1},
        {"accuracy": 0.904},
        {"accuracy": 0.914, "recipe": "best"},
        {"accuracy": 0.8, "model": "bag"},
        {"accuracy": 0.89, "attention": "none"},
    ],
    ids=str,
)
def test_claims_are_checked(imdb, contradiction):
    imdb.check_claims(GOOD, quick=False)
    with pytest.raises(AssertionError):
        imdb.check_claims({**GOOD, **contradiction}, quick=False)


SMALL = {"vocab_size": 30, "embed_dim": 8, "num_layers": 2}


def tokens_and_floats(rng, lengths, width):
    there = np.arange(width) < np.array(lengths)[:, None]
    tokens = rng.integers(1, 30, there.shape) * there
    return [tokens, rng.normal(size=(*there.shape, 3)) * there[:, :, None]]


def test_both_kinds_of_attention_are_the_same_model(imdb, rng):
    settings = replace(imdb.Settings(), **SMALL)
    fused = imdb.build_model(settings)
    plain = imdb.build_model(replace(settings, attention="keras"))
    plain.set_weights(fused.get_weights())
    inputs = tokens_and_floats(rng, [12, 5, 1], 12)
    # Logits of size 1 after two blocks of float32.
    np.testing.assert_allclose(fused(inputs), plain(inputs), atol=1e-5)


def test_without_attention_nothing_but_the_block_is_missing(imdb):
    settings = replace(imdb.Settings(), **SMALL)
    names = {}
    for attention in ("fused", "none"):
        model = imdb.build_model(replace(settings, attention=attention))
        names[attention] = [tuple(w.shape) for w in model.weights]
    block = [(8,)] * 2 + [(8, 2, 4), (2, 4)] * 3 + [(2, 4, 8), (8,)]
    block += [(8,)] * 2 + [(8, 16), (16,), (16, 8), (8,)]
    assert sorted(names["fused"]) == sorted(names["none"] + 2 * block)


VARIANTS = [
    {"attention": "fused"},
    {"attention": "keras"},
    {"attention": "none"},
    {"model": "gru"},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_padding_does_not_change_the_answer(imdb, variant, rng):
    model = imdb.build_model(replace(imdb.Settings(), **SMALL, **variant))
    tokens, floats = tokens_and_floats(rng, [9], 9)
    alone = model([tokens, floats])
    padding = [(0, 0), (0, 11)]
    padded = [np.pad(tokens, padding), np.pad(floats, [*padding, (0, 0)])]
    np.testing.assert_allclose(alone, model(padded), atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_review_without_a_word_gets_a_number(imdb, variant):
    model = imdb.build_model(replace(imdb.Settings(), **SMALL, **variant))
    empty = [np.zeros((1, 1), "int64"), np.zeros((1, 1, 3), "float32")]
    assert np.isfinite(model(empty)).all()


@pytest.mark.parametrize("attention", ["fused", "none"])
def test_without_attention_far_words_do_not_meet(imdb, attention, rng):
    """The features of a word before pooling depend on words that are far away: with
    the block, and only with it."""
    settings = replace(imdb.Settings(), **{**SMALL, "attention": attention})
    model = imdb.build_model(settings)
    features = keras.Model(model.inputs, model.get_layer("features").output)
    tokens, floats = tokens_and_floats(rng, [30], 30)
    one = features([tokens, floats])[0].numpy()
    tokens[0, 0] = tokens[0, 0] % 29 + 1
    changed = np.abs(features([tokens, floats])[0].numpy() - one).max(axis=1) > 1e-6
    assert changed[0]
    assert changed[10:].all() if attention == "fused" else not changed[2:].any()


def test_strings_go_the_whole_way_and_into_a_file(imdb, tmp_path):
    texts = ["a fine film", "a dull film", "fine !", "dull"] * 3
    labels = np.array([1, 0] * 6)
    settings = replace(imdb.Settings(), **SMALL, sequence_length=20)
    tokenizer, features, *_ = sentiment.prepare(texts, labels, settings)
    model = imdb.build_model(settings)
    whole = imdb.with_tokenizer(tokenizer, features, model)
    asked = ["a fine , fine film", "", "8/10"]
    inputs = tokenizer(asked)
    expected = 1 / (1 + np.exp(-model([inputs, features(inputs)])))
    np.testing.assert_allclose(whole(tf.constant(asked)), expected, rtol=1e-5)
    saved, exported = tmp_path / "a.keras", tmp_path / "exported"
    saved.write_text("of an earlier run")
    (exported / "assets").mkdir(parents=True)
    found = sentiment.save_and_compare(whole, asked, saved, exported)
    assert found["saved_difference"] < 1e-6
    assert found["exported_difference"] < 1e-6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.keras", "exported"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--epochs", "0"],
        ["--data", "mnist"],
        ["--num-heads", "5"],
        ["--model", "lstm"],
        ["--recipe", "best", "--model", "bag"],
        ["--workers", "2", "--model", "bert"],
        ["--resume", "--workers", "2"],
        ["--workers", "33"],
        ["--seed", "-1"],
        ["--text", os.fsdecode(b"caf\xe9")],
        ["--save", os.fsdecode(b"caf\xe9.keras")],
        ["--out", os.fsdecode(b"caf\xe9")],
    ],
    ids=lambda x: repr(" ".join(x)),
)
def test_bad_arguments_are_refused(imdb, arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        imdb.main(arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_wrong_number_says_what_was_expected_and_what_came(imdb, capsys):
    with pytest.raises(SystemExit):
        imdb.main(["--epochs", "abc"])
    error = capsys.readouterr().err
    assert "argument --epochs: must be an integer of at least 1, not 'abc'" in error


@pytest.mark.parametrize(
    ("chosen", "ignored"),
    [
        ("--model bag", "--save x.keras"),
        ("--model bag", "--epochs 3"),
        ("--model bag", "--sequence-length 9"),
        ("--model naive_bayes", "--save x.keras"),
        ("--model naive_bayes", "--resume"),
        ("--model bert", "--save x.keras"),
        ("--model bert", "--attention keras"),
        ("--model gru", "--num-layers 2"),
        ("--model transformer", "--preset bert_tiny_en_uncased"),
        ("--recipe best", "--save x.keras"),
        ("--recipe best", "--resume"),
    ],
)
def test_options_that_would_be_ignored_are_refused_by_name(
    imdb, chosen, ignored, capsys
):
    with pytest.raises(SystemExit) as caught:
        imdb.main(f"{chosen} {ignored}".split())
    assert caught.value.code == 2
    option = ignored.split()[0]
    assert f"error: {option} has no part in {chosen}\n" in capsys.readouterr().err


def test_the_ensemble_judges_texts(imdb, monkeypatch, capsys):
    """`--recipe best --text`: the mean of the networks, and the log-linear model."""
    seen = []

    def members(training, asked, settings, num_networks):
        seen.append(asked)
        signs = np.array([1.0 if "good" in text else -1.0 for text in asked])
        known = SimpleNamespace(knows=lambda texts: ["odd" not in t for t in texts])
        return num_networks * signs, 0.5 * signs, known

    monkeypatch.setattr(imdb, "member_logits", members)
    texts = [f"a film, {'good' if i % 2 else 'bad'}" for i in range(20)]
    labels = np.arange(20, dtype="int32") % 2
    reviews = data.Reviews("sample", "made up", texts, labels, texts[:4], labels[:4])
    args = SimpleNamespace(quick=True, text=["good fun", "odd"])
    results = imdb.run_best(reviews, imdb.Settings(), args)
    assert seen[1] == [*texts[:4], "good fun", "odd"]
    assert results["accuracy"] == 1
    expected = 1 / (1 + np.exp([-1.0, 1.0]))  # the first weight, 0, is the best
    np.testing.assert_allclose(results["probabilities"], expected)
    printed = capsys.readouterr().out
    assert "positive (0.731)  good fun\nno known word (0.269)  odd\n" in printed
    assert "probabilities" not in imdb.run_best(
        reviews, imdb.Settings(), SimpleNamespace(quick=True, text=[])
    )


@pytest.mark.parametrize("backend", ["jax", "torch", "nonsense"])
@pytest.mark.parametrize("name", ["01_cnn_vs_rnn.py", "04_imdb_sentiment.py"])
def test_other_backends_are_refused_in_one_line(name, backend, tmp_path):
    done = subprocess.run(
        [sys.executable, FOLDER / name, "--out", tmp_path / "out"],
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr == "error: this program needs KERAS_BACKEND=tensorflow\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "/proc/none"], "--out /proc/none cannot be written"),
        (["--resume"], "--resume: there is no checkpoint"),
        (["--model", "bert", "--preset", "bert_of_nobody"], "--preset bert_of_nobody"),
        (["--batch-size", "100000000"], "--batch-size 100000000 with reviews of"),
        (["--max-reviews", "9"], "--max-reviews 9 leaves nothing"),
        (["--save", "none/a.keras"], "--save none/a.keras cannot be written: No such"),
        (["--save", "a.h5"], "--save a.h5 must be a file whose name ends in .keras"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_bad_input_is_one_line_and_exit_status_2(arguments, message, tmp_path):
    command = [PROGRAM, "--quick", "--data", "sample", *arguments]
    done = processes.run(command, cwd=tmp_path)
    assert done.returncode == 2, done.stderr[-3000:]
    lines = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in done.stderr
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_missing_data_is_one_line(imdb, monkeypatch, tmp_path):
    def no_network(source):
        raise UserError("IMDB cannot be loaded (why). Remedy.")

    monkeypatch.setattr(data, "load_reviews", no_network)
    with pytest.raises(UserError, match="IMDB cannot be loaded"):
        imdb.main(["--data", "imdb", "--out", str(tmp_path)])


def test_every_tutorial_stands_on_the_pages():
    overview = (FOLDER / "README.md").read_text()
    cards = (FOLDER.parent / "docs/cards.md").read_text()
    assert cards.count("grid-item-card}") == len([*FOLDER.glob("*.py")])
    for path in FOLDER.glob("*.py"):
        assert f"({path.name})" in overview
        title = re.search(r"# (\w.*)", path.read_text())[1]
        assert f"card}} {int(path.stem[:2])}. {title}\n" in cards
        assert f":link: ../tutorials/{path.stem}\n" in cards
    for picture in re.findall(r":img-top: \.\./(\S+)", cards):
        assert (FOLDER.parent / picture).exists()
