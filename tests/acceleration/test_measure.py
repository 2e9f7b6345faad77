"""`AccelerationReport.measure`: what a model gains on inputs of its own."""

import json
import math
import pathlib
from types import SimpleNamespace

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from backbones import HEADS

import hw3tf
from hw3tf.acceleration import LayerMeasurement, Measurement, accelerate, measurement
from hw3tf.acceleration.patches import attached, is_attached
from hw3tf.ops import fronts

RESULTS = pathlib.Path(__file__).parents[2] / "benchmarks/results/lengths.json"


def made(*seconds, stock=20.0, accelerated=10.0):
    layers = [LayerMeasurement(f"layer_{i}", 2, x) for i, x in enumerate(seconds)]
    return Measurement(layers, stock, accelerated)


def test_shares_of_the_time_by_hand():
    found = made(1.0, 3.0)
    assert found.ratio == 2
    assert found.share == pytest.approx(0.4)
    # 6 seconds of either model are no kernel's: 14 of the 20 were taken over.
    assert found.stock_share == pytest.approx(0.7)
    assert found.limit == pytest.approx(20 / 6)
    lines = str(found).splitlines()
    assert lines[2].split() == ["layer_1", "2", "3,000.000", "30.0%"]
    assert lines[3] == (
        "A call of the model: 20,000.0 ms stock, 10,000.0 ms accelerated, 2.00x as "
        "fast."
    )
    assert lines[4] == (
        "The kernels took over 70% of the stock model's time; they are 40% of the "
        "accelerated one's."
    )
    assert lines[5] == "If they took no time, the model would be 3.33x as fast."


def test_shares_stay_shares_where_noise_contradicts():
    """Kernels alone slower than the whole model, and a model that gains nothing."""
    found = made(11.0)
    assert (found.share, found.stock_share, found.limit) == (1, 1, math.inf)
    found = made(0.0, stock=9.0)
    assert (found.share, found.stock_share) == (0, 0)


def model_of_all():
    """Attention that is called twice, a recurrent layer in a model in the model, and a
    layer of hw3tf, which is on the kernel before and after."""
    inputs = keras.Input((6, 8))
    attention = keras.layers.MultiHeadAttention(2, 4, name="attention")
    x = attention(inputs, attention(inputs, inputs))
    inner = keras.Sequential(
        [keras.layers.GRU(8, return_sequences=True, name="gru")], name="inner"
    )
    return keras.Model(inputs, hw3tf.layers.LSTM(3)(inner(x)))


X = np.random.default_rng(0).standard_normal((2, 6, 8), "float32")


def state(model):
    """What `accelerate` has put on the layers, and what `measure` replaces."""
    layers = [layer for layer in model._flatten_layers() if is_attached(layer)]
    assert layers
    on_layers = [(layer, attached(layer)) for layer in layers]
    for layer, attributes in on_layers:
        assert attributes.items() <= layer.__dict__.items()
    return on_layers, model.predict_function, model.run_eagerly, fronts.watch


def test_calls_are_counted_by_layer_and_the_model_is_as_before():
    model = model_of_all()
    expected = model.predict(X, verbose=0)
    report = hw3tf.accelerate(model)
    before = state(model)
    found = report.measure(X, 0)
    assert [(layer.path, layer.calls) for layer in found.layers] == [
        ("attention", 2),
        ("inner/gru", 1),
        ("(outside of them)", 1),
    ]
    assert all(layer.seconds > 0 for layer in found.layers)
    assert found.stock > 0
    assert found.accelerated > 0
    assert state(model) == before
    assert hw3tf.restore(model) == 2
    np.testing.assert_allclose(model.predict(X, verbose=0), expected, atol=1e-6)


def test_one_form_is_stock_and_the_other_on_the_kernel(kernel_calls):
    inputs = keras.Input((6, 8))
    layer = keras.layers.MultiHeadAttention(2, 4)
    model = keras.Model(inputs, layer(inputs, inputs))
    report = hw3tf.accelerate(model)
    report.measure(X, 0)
    # Once when the accelerated form is traced, and three times outside of a graph.
    assert len(kernel_calls) == 4
    model.predict_on_batch(X)
    assert len(kernel_calls) == 5


def test_more_seconds_are_more_rounds(monkeypatch):
    model = model_of_all()
    report = hw3tf.accelerate(model)
    rounds = []
    monkeypatch.setattr(model, "predict_on_batch", rounds.append)
    report.measure(X, 0)
    assert len(rounds) == 2 + 3 + 2 * 3
    rounds.clear()
    report.measure(X, 0.5)
    assert len(rounds) > 2 + 3 + 2 * 3


def test_a_call_that_fails_leaves_the_model_as_before():
    model = model_of_all()
    report = hw3tf.accelerate(model)
    before = state(model)
    with pytest.raises(ValueError, match=r"incompatible|Invalid input shape"):
        report.measure(X[:, :, :5], 0)
    assert state(model) == before


def test_a_kernel_that_fails_leaves_the_model_as_before(monkeypatch):
    """In the calls outside of a graph, when all is replaced."""
    model = model_of_all()
    report = hw3tf.accelerate(model)
    before = state(model)
    front = fronts.front_of("op")
    attention = front.attention

    def fail(*args, **kwargs):
        if fronts.watch is not None:
            raise MemoryError("none left")
        return attention(*args, **kwargs)

    monkeypatch.setattr(front, "attention", fail)
    with pytest.raises(MemoryError, match="none left"):
        report.measure(X, 0)
    assert state(model) == before


def test_kernels_are_timed_without_what_their_operands_wait_for(monkeypatch):
    """JAX returns arrays before it has computed them: the time of a product before the
    attention is not that of the attention."""
    now = [0.0]

    class Later:
        """An array that takes `seconds` once somebody waits for it."""

        def __init__(self, seconds):
            self.seconds = seconds

        def block_until_ready(self):
            now[0] += self.seconds
            self.seconds = 0

    monkeypatch.setattr(measurement.time, "perf_counter", lambda: now[0])
    stopwatch = measurement._Stopwatch()
    front = SimpleNamespace(rnn=lambda cell, tensors, options: (Later(3.0), None))
    timed = stopwatch.watch("ffi", front)
    timed.rnn("gru", {"inputs": Later(50.0)}, options=Later(7.0))
    assert stopwatch.calls == [("(outside of them)", 3.0)]
    assert stopwatch.watch("reference", front) is front


def test_states_of_layers_are_as_before(rng):
    inputs = keras.Input((6, 8), batch_size=2)
    layer = keras.layers.GRU(4, stateful=True)
    model = keras.Model(inputs, layer(inputs))
    report = hw3tf.accelerate(model)
    model.predict_on_batch(X)
    before = [np.array(v) for v in model.non_trainable_variables]
    assert np.any(before[0])
    report.measure(X, 0)
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_texts_go_through_the_preprocessor_of_a_task():
    """What KerasHub's `from_preset` makes: `predict_on_batch` takes texts."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film"]
    tokenizer = keras_hub.models.BertTokenizer(words)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
        tokenizer, sequence_length=6
    )
    backbone = keras_hub.models.BertBackbone(**HEADS)
    model = keras_hub.models.BertTextClassifier(
        backbone, num_classes=2, preprocessor=preprocessor
    )
    found = hw3tf.accelerate(model).measure(["a film", "film"], 0)
    assert [layer.calls for layer in found.layers] == [1, 1]


def test_a_model_that_traces_its_own_calls_shows_no_kernel():
    class Traced(keras.Model):
        def __init__(self):
            super().__init__()
            self.gru = keras.layers.GRU(4, name="gru")

        @tf.function
        def call(self, x):
            return self.gru(x)

    model = Traced()
    model(X)
    report = hw3tf.accelerate(model)
    try:
        text = str(report.measure(X, 0))
    except ValueError as error:
        text = str(error)
    assert "No kernel was seen at work" in text or "cannot be timed" in text
    assert fronts.watch is None


def test_what_cannot_be_measured_is_refused():
    layer = keras.layers.MultiHeadAttention(2, 4)
    layer.build((2, 6, 8), (2, 6, 8))
    with pytest.raises(TypeError, match=r"`measure` needs a `keras.Model`.*layer: <"):
        accelerate(layer).measure(X)
    model = model_of_all()
    report = accelerate(model)
    for seconds in (-1, float("nan")):
        with pytest.raises(ValueError, match=r"at least 0. Received: (-1|nan)"):
            report.measure(X, seconds)
    hw3tf.restore(model)
    with pytest.raises(ValueError, match="nothing to measure"):
        report.measure(X)
    assert "report.measure" not in str(report)


def test_the_report_says_from_which_length_layers_gain():
    """What the benchmark of lengths found."""
    from hw3tf.acceleration.accelerate import (
        ATTENTION_GAINS_FROM,
        RECURRENCE_GAINS_FROM,
    )

    found = {"attention": set(), "recurrence": set()}
    for case in json.loads(RESULTS.read_text())["cases"]:
        kind = "attention" if case["kind"] == "attention" else "recurrence"
        ours, stock = (case["microseconds"][name] for name in ("hw3tf", "keras"))
        gains = [int(n) for n in ours if stock[n] / ours[n] < 1.1]
        found[kind].add(max(gains, default=0))
    assert 2 * max(found["attention"]) == ATTENTION_GAINS_FROM
    assert (2 * max(found["recurrence"]) or 1) == RECURRENCE_GAINS_FROM
    report = hw3tf.accelerate(model_of_all())
    lengths = [layer.gains_from for layer in report.layers]
    assert lengths == [ATTENTION_GAINS_FROM, RECURRENCE_GAINS_FROM] + [
        RECURRENCE_GAINS_FROM
    ]
    lines = str(report).splitlines()
    assert f"yes    length {ATTENTION_GAINS_FROM}" in lines[1]
    assert lines[-1] == "`report.measure(inputs)` times the model before and after."


def test_layers_that_stay_gain_nothing():
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, keras.layers.AdditiveAttention()([inputs, inputs]))
    report = hw3tf.accelerate(model)
    assert [layer.gains_from for layer in report.layers] == [None]
    lines = str(report).splitlines()
    assert lines[1].split()[2:4] == ["no", "-"]
    assert "measure" not in lines[-1]
