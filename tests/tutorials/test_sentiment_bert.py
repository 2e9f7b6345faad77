"""BERT in tutorial 4: the real code for loading and training, on a preset that is small
and made up."""

import functools
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from hw3tf.course import data, sentiment, tutorial
from hw3tf.course.sentiment import bert

keras_hub = pytest.importorskip("keras_hub")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dull", "fine", "film", "."]
HIDDEN = 8


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A folder as `keras_hub` writes it: two layers, ten words, random weights."""
    folder = tmp_path_factory.mktemp("presets") / "bert_minute"
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(WORDS), num_layers=2, num_heads=2, hidden_dim=HIDDEN,
        intermediate_dim=12, max_sequence_length=16,
    )  # fmt: skip
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=WORDS, lowercase=True)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(tokenizer)
    backbone.save_to_preset(str(folder))
    preprocessor.save_to_preset(str(folder))
    return str(folder)


def test_a_preset_is_loaded_with_its_vocabulary(preset):
    preprocess, backbone = sentiment.load_bert(preset, 8)
    inputs = preprocess(["A FINE film.", "dull"])
    assert [WORDS[i] for i in inputs["token_ids"][0]] == (
        ["[CLS]", "a", "fine", "film", ".", "[SEP]", "[PAD]", "[PAD]"]
    )
    assert backbone(inputs)["sequence_output"].shape == (2, 8, HIDDEN)


def test_the_backbone_is_frozen_and_on_the_kernel(preset, kernel_calls):
    preprocess, backbone = sentiment.load_bert(preset, 8)
    model, (before, after), report = sentiment.build_bert(backbone, units=4)
    of_bert = sum(int(np.prod(w.shape)) for w in backbone.weights)
    assert before - after == of_bert
    # Two directions, three gates, two biases; then the other layer, then one number.
    first = 2 * 3 * 4 * (HIDDEN + 4 + 2)
    assert after == first + 2 * 3 * 4 * (8 + 4 + 2) + 8 + 1
    assert [layer.fused for layer in report.layers] == [True, True]
    inputs = preprocess(["a fine film .", "dull"])
    assert model(inputs).shape == (2, 1)
    assert len(kernel_calls) == 2


def test_training_leaves_bert_as_it_was(preset):
    preprocess, backbone = sentiment.load_bert(preset, 8)
    model, _, _ = sentiment.build_bert(backbone, units=4)
    before = [np.array(w) for w in backbone.weights]
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=False)
    x = preprocess(["a fine film", "a dull film"])
    head = np.array(model.trainable_weights[0])
    model.train_on_batch(x, np.array([[1.0], [0.0]]))
    for weight, old in zip(backbone.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert (np.array(model.trainable_weights[0]) != head).any()


def test_padding_does_not_change_the_answer(preset):
    backbone = sentiment.load_bert(preset, 16)[1]
    model, _, _ = sentiment.build_bert(backbone, units=4)
    logits = []
    for length in (6, 16):
        preprocess, _ = sentiment.load_bert(preset, length)
        logits.append(np.array(model(preprocess(["a fine film"]))))
    # Numbers of size 1 after two blocks and two recurrences in float32.
    np.testing.assert_allclose(*logits, atol=1e-5)


@pytest.mark.parametrize(
    ("preset_name", "length", "message"),
    [
        ("bert_of_nobody", 8, "neither a folder nor one of .*bert_base_en_uncased"),
        (".", 8, r"--preset \. cannot be loaded: "),
        (None, 17, "has 16 positions, fewer than --sequence-length 17"),
    ],
)
def test_presets_that_are_no_good_are_refused(
    preset_name, length, message, preset, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(tutorial.UserError, match=message) as caught:
        sentiment.load_bert(preset_name or preset, length)
    assert "\n" not in str(caught.value)


def test_without_keras_hub_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "keras_hub.models", None)
    with pytest.raises(tutorial.UserError, match="pip install"):
        sentiment.load_bert("bert_tiny_en_uncased", 8)


@pytest.mark.parametrize(
    ("units", "jit_compile", "resumed"),
    [(16, False, False), pytest.param(256, "auto", True, marks=pytest.mark.slow)],
    ids=["short", "whole"],
)
def test_a_whole_run_learns_and_keeps_its_best_epoch(
    units, jit_compile, resumed, preset, tmp_path, capsys, monkeypatch
):
    build = functools.partial(bert.build_bert, units=units)
    monkeypatch.setattr(bert, "build_bert", build)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200).astype("int32")
    texts = [f"a film . {'fine' if y else 'dull'} ." for y in labels]
    reviews = data.Reviews(
        "sample", "made up", texts[:150], labels[:150], texts[150:], labels[150:]
    )
    settings = tutorial_settings(preset)

    def compile_model(model, training, settings):
        assert len(training) == 5
        model.compile(
            keras.optimizers.Adam(0.01),
            keras.losses.BinaryCrossentropy(from_logits=True),
            metrics=[keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")],
            jit_compile=jit_compile,
        )
        # As in the lesson. Else the training step is traced once more.
        model.optimizer.build(model.trainable_variables)

    args = SimpleNamespace(out=tmp_path, resume=False, text=["a fine film ."])
    results = sentiment.run_bert(reviews, settings, compile_model, args)
    assert results["accuracy"] > 0.95
    assert results["trainable"][0] > results["trainable"][1]
    printed = capsys.readouterr().out
    assert "parameters" in printed
    assert "positive" in printed.splitlines()[-1]
    assert (tmp_path / "best_bert.weights.h5").exists()
    if resumed:  # in short: test_sentiment.py, with another model
        args.resume = True
        again = sentiment.run_bert(reviews, settings, compile_model, args)
        assert again["accuracy"] == results["accuracy"]


def tutorial_settings(preset):
    from dataclasses import make_dataclass

    values = {
        "preset": preset, "sequence_length": 10, "batch_size": 26, "epochs": 6,
        "held_out": 20, "max_reviews": None, "seed": 0,
    }  # fmt: skip
    return make_dataclass("Settings", values)(**values)
