"""`accelerate` on recurrent layers: which it finds, and that nothing else changes."""

import copy
import logging

import keras
import numpy as np
import processes
import pytest
import tensorflow as tf
from acceleration_checks import assert_equal_up_to_rounding, gradients, outputs
from checks import run_python
from recurrent_checks import (
    MASKS,
    NAMES,
    assert_as_close_as_keras,
    mask_named,
    number_of_states,
    results,
    trio,
)

import hw3tf
from hw3tf.ops import paths

FEATURES, UNITS = 4, 6
IDS = np.array([[1, 2, 3, 4, 5], [6, 7, 0, 0, 0], [0, 0, 8, 9, 1], [0, 0, 0, 0, 0]])
FUSED = "`inner_loop` is on the kernel"


def layer_of(kind, /, **options):
    return getattr(keras.layers, kind)(UNITS, **options)


def small_model(*layers):
    """Layers over 5 embedded tokens, 0 of them padding."""
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(13, FEATURES, mask_zero=True, name="words"),
            *layers,
        ]
    )


def rows(report):
    return {
        line.path: (line.class_name, line.fused, line.reason) for line in report.layers
    }


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_as_exact_as_keras(
    name, backwards, mask, rng, rnn_calls
):
    options = {"go_backwards": backwards, "return_sequences": True}
    _, layer, exact = trio(name, FEATURES, units=UNITS, return_state=True, **options)
    x = rng.standard_normal((3, 5, FEATURES))
    states = [rng.standard_normal((3, UNITS)) for _ in range(number_of_states(name))]
    call = {"mask": mask_named(mask)}
    stock = results(layer, x, states, **call)
    assert hw3tf.accelerate(layer).num_fused == 1
    fused = results(layer, x, states, **call)
    assert_as_close_as_keras(fused, results(exact, x, states, **call), stock)
    assert len(rnn_calls) == 1
    assert hw3tf.restore(layer) == 1
    assert all(map(np.array_equal, results(layer, x, states, **call), stock))
    assert len(rnn_calls) == 1


def test_report_lists_every_layer_and_counts_them():
    two = keras.layers.Bidirectional(
        layer_of("LSTM", return_sequences=True, name="lstm"), name="two"
    )
    model = small_model(two, layer_of("GRU", name="gru"))
    report = hw3tf.accelerate(model)
    assert rows(report) == {
        "two/forward_lstm": ("LSTM", True, FUSED),
        "two/backward_lstm": ("LSTM", True, FUSED),
        "gru": ("GRU", True, FUSED),
    }
    assert str(report).splitlines()[-2] == (
        "3 of 3 layers with attention or recurrence are fused. "
        "Kernel: op (the kernel covers the call)"
    )


def test_report_counts_both_kinds():
    x = keras.Input((6, 8))
    y = keras.layers.MultiHeadAttention(2, 4)(x, x)
    model = keras.Model(x, layer_of("LSTM", activation="gelu")(y))
    assert "\n1 of 2 layers with attention or recurrence are" in str(
        hw3tf.accelerate(model)
    )


class Both(keras.Model):
    """A subclassed model with a model inside, and an encoder before a decoder."""

    def __init__(self, name):
        super().__init__()
        wrap = keras.layers.Bidirectional
        inner = [layer_of(name, return_sequences=True) for _ in range(2)]
        self.inner = small_model(wrap(inner[0]), inner[1])
        self.encoder = layer_of(name, return_state=True)
        self.decoder = layer_of(name, return_sequences=True)
        self.lines = keras.layers.TimeDistributed(layer_of(name))
        self.dense = keras.layers.Dense(2)

    def call(self, ids):
        x = self.inner(ids)
        _, *states = self.encoder(x)
        y = self.decoder(x, initial_state=states)
        z = self.lines(keras.ops.stack([x, y], axis=1))
        return self.dense(z)


@pytest.mark.parametrize("name", NAMES)
def test_subclassed_nested_stacked_models(name, rnn_calls):
    model = Both(name)
    stock, expected = outputs(model, IDS), gradients(model, IDS)
    report = hw3tf.accelerate(model)
    assert report.num_fused == len(report.layers) == 6
    assert_equal_up_to_rounding(outputs(model, IDS), stock)
    # Six layers, one of them called twice, at each of its two steps.
    assert len(rnn_calls) == 7
    got = gradients(model, IDS)
    largest = max(np.abs(g).max() for g in expected)
    assert_equal_up_to_rounding(got, expected, terms=largest)
    assert hw3tf.restore(model) == 6
    assert all(map(np.array_equal, outputs(model, IDS), stock))


def functional_translator(name):
    """A functional encoder and decoder."""
    source, target = keras.Input((None, FEATURES)), keras.Input((None, FEATURES))
    _, *states = layer_of(name, return_state=True)(source)
    decoder = layer_of(name, return_sequences=True)
    return keras.Model([source, target], decoder(target, initial_state=states))


@pytest.mark.parametrize("name", NAMES)
def test_functional_encoder_and_decoder(name, rng, rnn_calls):
    model = functional_translator(name)
    x = [rng.standard_normal((3, t, FEATURES), np.float32) for t in (5, 7)]
    model.compile("sgd", "mse")
    stock = model.predict(x, verbose=0)
    report = hw3tf.accelerate(model)
    assert report.num_fused == 2
    assert_equal_up_to_rounding([model.predict(x, verbose=0)], [stock])
    assert len(rnn_calls) == 2


@pytest.mark.parametrize(
    "name", [pytest.param("LSTM", marks=pytest.mark.slow), "GRU", "SimpleRNN"]
)
def test_training_is_that_of_the_stock_model(name, rnn_calls):
    """With dropout, whose random numbers are Keras's."""
    options = {"dropout": 0.2, "recurrent_dropout": 0.3, "seed": 5}
    two = keras.layers.Bidirectional(layer_of(name, return_sequences=True, **options))
    model = small_model(two, layer_of(name, **options), keras.layers.Dense(1))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    # Else the training step is traced twice: it would create these variables.
    model.optimizer.build(model.trainable_variables)
    before = [v.numpy() for v in model.variables]  # those of the dropout, too
    y = np.array([0.0, 1.0, 1.0, 0.0])
    found = []
    for accelerated in (False, True):
        for variable, value in zip(model.variables, before, strict=True):
            variable.assign(value)
        if accelerated:
            hw3tf.accelerate(model)
        fitted = model.fit(IDS, y, epochs=5, verbose=0, shuffle=False)
        weights = [w.ravel() for w in model.get_weights()]
        found.append(np.concatenate([fitted.history["loss"], *weights]))
    assert rnn_calls
    # Five steps of rate 0.1: rounding in the gradients, far below their size.
    np.testing.assert_allclose(found[1], found[0], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_stateful_layers_go_on(name, rng, rnn_calls):
    layer = layer_of(name, stateful=True)
    x = rng.standard_normal((3, 5, FEATURES), np.float32)

    def run():
        layer.reset_state()
        return [np.asarray(layer(x)) for _ in range(3)]

    layer(x)
    stock = run()
    hw3tf.accelerate(layer)
    assert_equal_up_to_rounding(run(), stock)
    assert len(rnn_calls) == 3
    assert not np.array_equal(stock[0], stock[2])


def test_saved_file_loads_as_stock_keras_without_hw3tf(tmp_path):
    model = small_model(keras.layers.Bidirectional(layer_of("LSTM")))
    hw3tf.accelerate(model)
    np.save(tmp_path / "output.npy", model(IDS))
    model.save(tmp_path / "model.keras")
    code = f"""
import sys
import keras
import numpy as np
model = keras.saving.load_model({str(tmp_path / "model.keras")!r})
assert type(model.layers[-1].forward_layer) is keras.layers.LSTM
output = model(np.array({IDS.tolist()}))
expected = np.load({str(tmp_path / "output.npy")!r})
np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)
print("hw3tf" in sys.modules)
"""
    assert run_python(code, modules=processes.OTHERS).split()[-1] == "False"


@pytest.mark.parametrize("make", [keras.models.clone_model, copy.deepcopy])
def test_copies_are_stock(make, rnn_calls):
    model = small_model(layer_of("GRU"))
    hw3tf.accelerate(model)
    make(model)(IDS)
    assert not rnn_calls


def test_layer_object_is_as_before_after_restore():
    layer = layer_of("LSTM")
    layer.build((None, 5, FEATURES))
    before = dict(layer.__dict__)
    with hw3tf.accelerate(layer):
        assert layer.__dict__ != before
    assert layer.__dict__ == before


def test_layers_of_hw3tf_are_fused_by_themselves():
    ours = hw3tf.layers.LSTM(UNITS, return_sequences=True, name="ours")
    whole = hw3tf.layers.IntegerRNN(1, name="whole")
    left = hw3tf.layers.GRU(UNITS, activation="gelu", name="left")
    x = keras.Input((5, FEATURES))
    outputs = [left(ours(x)), whole(keras.ops.cast(x, "int32"))]
    found = rows(hw3tf.accelerate(keras.Model(x, outputs)))
    fused = "a layer of hw3tf, fused by itself"
    assert found["ours"] == ("LSTM", True, fused)
    assert found["whole"] == ("IntegerRNN", True, fused)
    assert found["left"][1] is False
    assert found["left"][2].startswith("`activation` is gelu")


def test_layer_of_hw3tf_with_a_loop_of_its_own_says_so():
    class OwnLoopOfOurs(hw3tf.layers.LSTM):
        def inner_loop(self, sequences, initial_state, mask, training=False):
            return super().inner_loop(sequences, initial_state, None, training)

    (line,) = hw3tf.accelerate(small_model(OwnLoopOfOurs(UNITS))).layers
    assert not line.fused
    assert line.reason == "`OwnLoopOfOurs` overrides `inner_loop`"


class OwnLoop(keras.layers.LSTM):
    def inner_loop(self, sequences, initial_state, mask, training=False):
        return super().inner_loop(2 * sequences, initial_state, mask, training)


class OwnCall(keras.layers.LSTM):
    def call(self, sequences, initial_state=None, mask=None, training=False):
        return 10 * super().call(sequences, initial_state, mask, training)


class OwnCell(keras.layers.Layer):
    """h = x + h"""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.state_size = FEATURES

    def call(self, inputs, states):
        return inputs + states[0], [inputs + states[0]]


class HomeMadeGRU(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.supports_masking = True

    def call(self, x):
        return keras.ops.cumsum(x, axis=1)


NOT_COVERED = {
    "own loop": (OwnLoop(UNITS), "`OwnLoop` overrides `inner_loop`"),
    "own cell": (
        keras.layers.RNN(OwnCell()),
        "`cell` is of type OwnCell, not LSTMCell, GRUCell or SimpleRNNCell",
    ),
    "stack": (
        keras.layers.RNN([keras.layers.LSTMCell(2), keras.layers.LSTMCell(3)]),
        "`cell` is of type StackedRNNCells, not LSTMCell, GRUCell or SimpleRNNCell",
    ),
    "activation": (
        layer_of("GRU", activation="softsign"),
        "`activation` is softsign, not Keras's "
        "tanh, sigmoid, relu, linear, hard_sigmoid",
    ),
    "home-made": (
        HomeMadeGRU(),
        "hw3tf does not know how `HomeMadeGRU` goes through time",
    ),
}


@pytest.mark.parametrize("what", NOT_COVERED)
def test_layer_that_is_not_covered_says_why(what, rnn_calls):
    layer, reason = NOT_COVERED[what]
    model = small_model(layer)
    stock = outputs(model, IDS)
    (line,) = hw3tf.accelerate(model).layers  # nothing of the cells
    assert (line.fused, line.reason) == (False, reason)
    assert all(map(np.array_equal, outputs(model, IDS), stock))
    assert not rnn_calls


def test_convolutional_recurrence_says_why():
    x = keras.Input((3, 4, 4, 1))
    model = keras.Model(x, keras.layers.ConvLSTM2D(2, 2)(x))
    (line,) = hw3tf.accelerate(model).layers
    assert not line.fused
    assert line.reason.startswith("`cell` is of type ConvLSTMCell, not")


class StepByStep(keras.Model):
    def __init__(self):
        super().__init__()
        self.cell = keras.layers.GRUCell(UNITS)

    def call(self, x):
        return self.cell(x[:, 0], [keras.ops.zeros((4, UNITS))])[0]


def test_cell_that_the_model_calls_says_why():
    model = StepByStep()
    model(np.ones((4, 2, FEATURES), "float32"))
    (line,) = hw3tf.accelerate(model).layers
    assert not line.fused
    assert "step by step: only whole layers" in line.reason


@pytest.mark.parametrize("cell", ["LSTMCell", "GRUCell", "SimpleRNNCell"])
def test_general_layer_with_a_cell_of_keras_is_fused(cell, rnn_calls):
    cell = getattr(keras.layers, cell)(UNITS, dropout=0.3, seed=1)
    model = small_model(keras.layers.RNN(cell, return_sequences=True))
    stock = outputs(model, IDS)
    assert hw3tf.accelerate(model).num_fused == 1
    assert_equal_up_to_rounding(outputs(model, IDS), stock)
    assert len(rnn_calls) == 1


POLICIES = [("mixed_bfloat16", "float32"), ("float32", "mixed_float16")]


@pytest.mark.parametrize("policies", POLICIES)
def test_cell_of_another_policy(policies, rng, rnn_calls):
    """The policy of the layer, and that of the cell, which computes."""
    cell = keras.layers.GRUCell(UNITS, dtype=policies[1])
    layer = keras.layers.RNN(cell, dtype=policies[0], return_state=True)
    x = rng.standard_normal((3, 5, FEATURES), np.float32)
    stock = layer(x)
    hw3tf.accelerate(layer)
    fused = layer(x)
    assert len(rnn_calls) == 1
    for got, wanted in zip(fused, stock, strict=True):
        assert got.dtype == wanted.dtype
        unit = 2**-7 if "bfloat16" in policies[0] else 2**-10
        got, wanted = (tf.cast(y, "float32") for y in (got, wanted))
        # Each step rounds states below 1, and so does the end.
        np.testing.assert_allclose(got, wanted, rtol=0, atol=2 * unit)


def test_weights_have_the_precision_of_the_cell(rnn_calls):
    """1 + 2**-9 is not a bfloat16, which the layer is."""
    cell = keras.layers.SimpleRNNCell(1, activation=None, dtype="float32")
    layer = keras.layers.RNN(cell, dtype="mixed_bfloat16")
    layer.build((1, 1, 2))
    layer.set_weights([np.array([[1 + 2**-9], [1]]), np.zeros((1, 1)), np.zeros(1)])
    x = np.array([[[256.0, -256.0]]], "float32")
    assert layer(x) == [[0.5]]
    hw3tf.accelerate(layer)
    assert layer(x) == [[0.5]]
    assert rnn_calls


def test_subclass_with_another_call_is_fused_inside_it(rnn_calls):
    model = small_model(OwnCall(UNITS))
    stock = outputs(model, IDS)
    assert hw3tf.accelerate(model).num_fused == 1
    assert_equal_up_to_rounding(outputs(model, IDS), stock)
    assert len(rnn_calls) == 1


def test_layer_that_was_changed_since_runs_as_in_keras(rnn_calls, caplog):
    model = small_model(layer_of("LSTM"))
    hw3tf.accelerate(model)
    cell = model.layers[-1].cell
    cell.activation = keras.activations.gelu
    with caplog.at_level(logging.DEBUG, "hw3tf"):
        got = outputs(model, IDS)
    assert not rnn_calls
    assert "runs as in Keras: `activation` is gelu" in caplog.text
    hw3tf.restore(model)
    assert all(map(np.array_equal, got, outputs(model, IDS)))


@pytest.mark.parametrize("what", ["values for units", "of another length"])
def test_calls_that_the_kernel_refuses_are_those_of_the_layer(what, rng, rnn_calls):
    layer = layer_of("GRU", return_sequences=True)
    x = rng.standard_normal((3, 5, FEATURES), np.float32)
    layer.build(x.shape)
    if what == "values for units":
        mask = rng.random((3, 5, UNITS)) < 0.5
        stock = layer(x, mask=mask)
        hw3tf.accelerate(layer)
        np.testing.assert_array_equal(layer(x, mask=mask), stock)
    else:
        mask, errors = np.ones((3, 4), bool), []
        for accelerated in (False, True):
            if accelerated:
                hw3tf.accelerate(layer)
            with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is
                layer(x, mask=mask)
            errors.append((type(caught.value), str(caught.value)))
        assert errors[0] == errors[1]
    assert not rnn_calls


@pytest.mark.parametrize("name", NAMES)
def test_unrolled_second_direction_keeps_the_zeros_of_keras(name, rng, rnn_calls):
    """Keras gives zeros for other steps than the masked ones; the results are those of
    the layer as it is. Without a mask, and forwards, the kernel computes."""
    two = keras.layers.Bidirectional(layer_of(name, unroll=True, return_sequences=True))
    x, mask = rng.standard_normal((3, 5, FEATURES), np.float32), mask_named("right")
    stock, plain = two(x, mask=mask), two(x)
    assert hw3tf.accelerate(two).num_fused == 2
    fused = two(x, mask=mask)
    assert [options.reverse for _, options in rnn_calls] == [False]
    assert_equal_up_to_rounding([fused.numpy()], [stock.numpy()])
    assert_equal_up_to_rounding([two(x).numpy()], [plain.numpy()])
    assert len(rnn_calls) == 3


@pytest.mark.parametrize("name", NAMES)
def test_unrolled_last_output_is_fused(name, rng, rnn_calls):
    """Of it Keras zeroes what is masked."""
    options = {"unroll": True, "go_backwards": True, "zero_output_for_mask": True}
    layer = layer_of(name, **options)
    x = rng.standard_normal((3, 5, FEATURES), np.float32)
    mask = mask_named("left")
    stock = layer(x, mask=mask)
    hw3tf.accelerate(layer)
    assert_equal_up_to_rounding([layer(x, mask=mask).numpy()], [stock.numpy()])
    assert len(rnn_calls) == 1


@pytest.mark.parametrize(
    ("place", "replacement", "reason"),
    [
        ((keras.backend, "backend"), lambda: "numpy", "the backend is numpy"),
        ((paths, "_gpu_visible"), lambda: True, "TensorFlow sees a GPU"),
    ],
)
def test_model_that_the_kernel_cannot_serve_stays_as_it_is(
    place, replacement, reason, monkeypatch
):
    layer = layer_of("LSTM")
    layer.build((None, 5, FEATURES))
    before = dict(layer.__dict__)
    monkeypatch.setattr(*place, replacement)
    (line,) = hw3tf.accelerate(layer).layers
    assert (line.fused, line.reason) == (False, reason)
    assert layer.__dict__ == before
