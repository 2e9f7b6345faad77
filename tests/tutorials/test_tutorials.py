"""The models of tutorial 4, and the program that trains one of them."""

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

from hw3tf.course import data, sentiment
from hw3tf.course.sentiment import program
from hw3tf.course.tutorial import UserError

FOLDER = pathlib.Path(__file__).parents[2] / "tutorials"
PROGRAM = FOLDER / "04_imdb_sentiment.py"


GOOD = {
    "data": "imdb",
    "model": "transformer",
    "recipe": "default",
    "attention": "fused",
    "accuracy": 0.92,
    "probabilities": [0.1, 0.9],
    "saved_difference": 0.0,
    "exported_difference": 0.0,
}


@pytest.mark.parametrize(
    "contradiction",
    [
        {"probabilities": [0.6, 0.9]},
        {"probabilities": [0.1, 0.4]},
        {"saved_difference": 0.1},
        {"exported_difference": 0.1},
        {"accuracy": 0.914},
        {"accuracy": 0.925, "recipe": "best"},
        {"accuracy": 0.8, "model": "bag"},
        {"accuracy": 0.9, "model": "lstm"},
        {"accuracy": 0.91, "attention": "none"},
    ],
    ids=str,
)
def test_claims_are_checked(contradiction):
    program.check_claims(GOOD, quick=False)
    with pytest.raises(AssertionError):
        program.check_claims({**GOOD, **contradiction}, quick=False)


def test_a_quick_run_says_what_it_does_not_judge(capsys):
    program.check_claims({**GOOD, "accuracy": 0.7}, quick=True)
    printed = capsys.readouterr().out
    assert "0.915 wanted in a full run; quick runs do not judge it (0.7000" in printed
    assert printed.endswith("All claims that this run judges hold.\n")


def test_all_claims_hold_is_said_only_of_a_full_run_on_imdb(capsys):
    program.check_claims({**GOOD, "data": "sample"}, quick=False)
    assert capsys.readouterr().out == "All claims that this run judges hold.\n"
    program.check_claims(GOOD, quick=False)
    assert capsys.readouterr().out == "All claims hold.\n"


SMALL = {"vocab_size": 30, "embedded_words": 30, "embed_dim": 8, "num_layers": 2}


def tokens_and_floats(rng, lengths, width):
    there = np.arange(width) < np.array(lengths)[:, None]
    tokens = rng.integers(1, 30, there.shape) * there
    return [tokens, rng.normal(size=(*there.shape, 6)) * there[:, :, None]]


def test_both_kinds_of_attention_are_the_same_model(rng):
    settings = replace(sentiment.Settings(), **SMALL)
    fused = sentiment.build_classifier(settings)
    plain = sentiment.build_classifier(replace(settings, attention="keras"))
    plain.set_weights(fused.get_weights())
    inputs = tokens_and_floats(rng, [12, 5, 1], 12)
    # Logits of size 1 after two blocks of float32.
    np.testing.assert_allclose(fused(inputs), plain(inputs), atol=1e-5)


def test_without_attention_nothing_but_the_block_is_missing():
    settings = replace(sentiment.Settings(), **SMALL)
    names = {}
    for attention in ("fused", "none"):
        model = sentiment.build_classifier(replace(settings, attention=attention))
        names[attention] = [tuple(w.shape) for w in model.weights]
    block = [(8,)] * 2 + [(8, 2, 4), (2, 4)] * 3 + [(2, 4, 8), (8,)]
    block += [(8,)] * 2 + [(8, 16), (16,), (16, 8), (8,)]
    assert sorted(names["fused"]) == sorted(names["none"] + 2 * block)


VARIANTS = [
    {"attention": "fused"},
    {"attention": "keras"},
    {"attention": "none"},
    {"model": "gru"},
    {"model": "lstm", "attention": "keras"},
    {"positions": True, "convolution": False, "phrases": False},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_padding_does_not_change_the_answer(variant, rng):
    model = sentiment.build_classifier(
        replace(sentiment.Settings(), **SMALL, **variant)
    )
    tokens, floats = tokens_and_floats(rng, [9], 9)
    alone = model([tokens, floats])
    padding = [(0, 0), (0, 11)]
    padded = [np.pad(tokens, padding), np.pad(floats, [*padding, (0, 0)])]
    np.testing.assert_allclose(alone, model(padded), atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_review_without_a_word_gets_a_number(variant):
    model = sentiment.build_classifier(
        replace(sentiment.Settings(), **SMALL, **variant)
    )
    empty = [np.zeros((1, 1), "int64"), np.zeros((1, 1, 6), "float32")]
    assert np.isfinite(model(empty)).all()


@pytest.mark.parametrize("attention", ["fused", "none"])
def test_without_attention_far_words_do_not_meet(attention, rng):
    """The features of a word before pooling depend on words that are far away: with
    the block, and only with it."""
    settings = replace(sentiment.Settings(), **{**SMALL, "attention": attention})
    model = sentiment.build_classifier(settings)
    features = keras.Model(model.inputs, model.get_layer("features").output)
    tokens, floats = tokens_and_floats(rng, [30], 30)
    one = features([tokens, floats])[0].numpy()
    tokens[0, 0] = tokens[0, 0] % 29 + 1
    changed = np.abs(features([tokens, floats])[0].numpy() - one).max(axis=1) > 1e-6
    assert changed[0]
    assert changed[10:].all() if attention == "fused" else not changed[2:].any()


def test_strings_go_the_whole_way_and_into_a_file(tmp_path):
    texts = ["a fine film", "a dull film", "fine !", "dull"] * 3
    labels = np.array([1, 0] * 6)
    settings = replace(sentiment.Settings(), **SMALL, sequence_length=20)
    tokenizer, features, *_ = sentiment.prepare(texts, labels, settings)
    model = sentiment.build_classifier(settings)
    whole = sentiment.with_tokenizer(tokenizer, features, model)
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
        ["--model", "rnn"],
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
def test_bad_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        program.main(arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_wrong_number_says_what_was_expected_and_what_came(capsys):
    with pytest.raises(SystemExit):
        program.main(["--epochs", "abc"])
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
def test_options_that_would_be_ignored_are_refused_by_name(chosen, ignored, capsys):
    with pytest.raises(SystemExit) as caught:
        program.main(f"{chosen} {ignored}".split())
    assert caught.value.code == 2
    option = ignored.split()[0]
    assert f"error: {option} has no part in {chosen}\n" in capsys.readouterr().err


def test_the_ensemble_judges_texts(monkeypatch, capsys):
    """`--recipe best --text`: the mean of the networks, and the log-linear model."""
    seen = []

    def members(training, asked, settings, members):
        seen.append(asked)
        signs = np.array([1.0 if "good" in text else -1.0 for text in asked])
        known = SimpleNamespace(knows=lambda texts: ["odd" not in t for t in texts])
        return signs, 0.5 * signs, known

    monkeypatch.setattr(program, "member_logits", members)
    monkeypatch.setattr(data, "stacking_weight", lambda *_: 2.0)
    texts = [f"a film, {'good' if i % 2 else 'bad'}" for i in range(20)]
    labels = np.arange(20, dtype="int32") % 2
    reviews = data.Reviews("sample", "made up", texts, labels, texts[:4], labels[:4])
    args = SimpleNamespace(quick=True, text=["good fun", "odd"])
    results = program.run_best(reviews, sentiment.Settings(), args)
    assert seen[1] == [*texts[:4], "good fun", "odd"]
    assert results["accuracy"] == 1
    expected = 1 / (1 + np.exp([-2 / 3, 2 / 3]))  # the mean of 1 and 2 times 0.5
    np.testing.assert_allclose(results["probabilities"], expected)
    printed = capsys.readouterr().out
    assert "positive (0.661)  good fun\nno known word (0.339)  odd\n" in printed
    assert "probabilities" not in program.run_best(
        reviews, sentiment.Settings(), SimpleNamespace(quick=True, text=[])
    )


def test_another_backend_is_refused_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "hw3tf.course.sentiment", "--out", tmp_path / "out"],
        env=os.environ | {"KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    (line,) = [x for x in done.stderr.splitlines() if "error" in x]
    assert "this program needs TensorFlow, and Keras runs on jax" in line
    assert not list(tmp_path.iterdir())


def test_each_position_has_a_vector_of_its_own(rng):
    """With positions, and only with them, the order of the words counts."""
    words = {**SMALL, "attention": "none", "convolution": False, "phrases": False}
    floats = np.zeros((1, 4, 6), "float32")
    for positions in (False, True):
        settings = sentiment.Settings(**words, positions=positions)
        model = sentiment.build_classifier(settings)
        found = model([np.int64([[3, 4, 5, 6]]), floats])
        other = model([np.int64([[6, 5, 4, 3]]), floats])
        assert np.allclose(found, other, atol=1e-6) == (not positions)


def test_rare_words_share_the_vector_of_unknown_ones():
    model = sentiment.build_classifier(sentiment.Settings(**SMALL))
    floats = np.zeros((1, 2, 6), "float32")
    unknown = model([np.int64([[3, 1]]), floats])
    np.testing.assert_array_equal(model([np.int64([[3, 77]]), floats]), unknown)
    assert np.any(model([np.int64([[3, 29]]), floats]) != unknown)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "/proc/none"], "--out /proc/none cannot be written"),
        (["--resume"], "--resume: there is no checkpoint"),
        (["--model", "bert", "--preset", "bert_of_nobody"], "--preset bert_of_nobody"),
        (
            ["--batch-size", "100000000", "--max-reviews", "400"],
            "--batch-size 100000000 with reviews of",
        ),
        (["--model", "gru", "--max-reviews", "9"], "--max-reviews 9 leaves nothing"),
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


def test_missing_data_is_one_line(monkeypatch, tmp_path):
    def no_network(source, **options):
        raise UserError("IMDB cannot be loaded (why). Remedy.")

    monkeypatch.setattr(data, "load_reviews", no_network)
    with pytest.raises(UserError, match="IMDB cannot be loaded"):
        program.main(["--data", "imdb", "--out", str(tmp_path)])


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
