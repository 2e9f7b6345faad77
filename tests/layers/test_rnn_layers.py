"""Our recurrent layers as Keras's: dropout, states, wrappers, models, and what is left
to Keras's own loop."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from acceleration_checks import assert_equal_up_to_rounding
from recurrent_checks import (
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


def slow(name):
    return pytest.param(name, marks=pytest.mark.slow)


# Where a test takes seconds: the simple RNN shares all that it looks at.
WITH_GATES = ("LSTM", "GRU", slow("SimpleRNN"))
# Rates of dropout, and other arguments.
DROPOUTS = {
    "inputs": {"dropout": 0.3},
    "state": {"recurrent_dropout": 0.4},
    "both": {"dropout": 0.3, "recurrent_dropout": 0.4},
    "everything": {"dropout": 1.0},
}


def sequences(rng, batch=3, timesteps=5):
    return rng.standard_normal((batch, timesteps, FEATURES), np.float32)


def pair(name, *args, **options):
    """Our layer and Keras's, with the same weights."""
    made = [getattr(m, name)(*args, **options) for m in (hw3tf.layers, keras.layers)]
    for layer in made:
        layer.build((3, 5, FEATURES))
    made[1].set_weights(made[0].get_weights())
    return made


def close(got, wanted):
    for x, y in zip(keras.tree.flatten(got), keras.tree.flatten(wanted), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("what", DROPOUTS)
@pytest.mark.parametrize(
    ("name", "implementation"),
    [("LSTM", 1), ("LSTM", 2), ("GRU", 1), ("GRU", 2), ("SimpleRNN", None)],
)
def test_drops_what_keras_drops(name, implementation, what, rng, rnn_calls):
    """Over several calls: those at inference draw as well, and so does Keras."""
    options = {"seed": 7, **DROPOUTS[what]}
    if implementation:
        # Keras itself fails in training with "auto" and one product per gate.
        options |= {"implementation": implementation, "use_cudnn": False}
    ours, theirs = pair(name, UNITS, return_sequences=True, **options)
    x, seen = sequences(rng, timesteps=3), []
    for training in (True, False, False, True):
        got, wanted = (layer(x, training=training) for layer in (ours, theirs))
        close(got, wanted)
        seen.append(np.asarray(got))
    gradients = [results(layer, x, training=True) for layer in (ours, theirs)]
    assert_equal_up_to_rounding(*gradients)  # of numbers up to 10
    assert len(rnn_calls) == 5
    np.testing.assert_array_equal(seen[1], seen[2])
    # A rate of 1 is none in LSTM and GRU, and all in SimpleRNN.
    drops = what != "everything" or name == "SimpleRNN"
    assert np.array_equal(seen[0], seen[1]) != drops
    assert np.array_equal(seen[0], seen[3]) != (drops and what != "everything")


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_dropout_of_inputs_with_a_product_per_gate(name, rng, rnn_calls):
    """Keras fails here, unless `use_cudnn` is False: the same numbers are right."""
    options = {"implementation": 1, "dropout": 0.3, "seed": 7}
    ours = pair(name, UNITS, **options)[0]
    theirs = pair(name, UNITS, use_cudnn=False, **options)[1]
    theirs.set_weights(ours.get_weights())
    x = sequences(rng)
    close(ours(x, training=True), theirs(x, training=True))
    assert rnn_calls


def test_dropout_is_drawn_once_for_a_state_of_the_whole_batch(rng):
    """The state has a batch of 1, and so has what Keras draws for it."""
    ours, theirs = pair("GRU", UNITS, recurrent_dropout=0.5, seed=3, unroll=True)
    x, state = sequences(rng), rng.standard_normal((1, UNITS), np.float32)
    got, wanted = (y(x, initial_state=state, training=True) for y in (ours, theirs))
    close(got, wanted)


@pytest.mark.parametrize("name", NAMES)
def test_stateful_layers_go_on(name, rng, rnn_calls):
    ours, theirs = pair(name, UNITS, stateful=True, return_sequences=True)
    first = ours(sequences(rng))
    theirs(np.zeros((3, 5, FEATURES), "float32"))  # another beginning
    ours.reset_state()
    theirs.reset_state()
    mask = mask_named("right")
    for _ in range(3):
        x = sequences(rng)
        got, wanted = (layer(x, mask=mask) for layer in (ours, theirs))
        close([got, *ours.states], [wanted, *theirs.states])
    assert len(rnn_calls) == 4
    assert not np.array_equal(first, got)
    with pytest.raises(ValueError, match=r"Expected batch size: 3\n.*batch size: 2"):
        ours(sequences(rng, batch=2))


# All pairs of two.
@pytest.mark.parametrize(
    ("name", "mode", "all_outputs"),
    [
        (name, mode, (i + j) % 2 == 0)
        for i, name in enumerate(NAMES)
        for j, mode in enumerate(["sum", "mul", "ave", "concat", None])
    ],
)
def test_bidirectional(name, mode, all_outputs, rng, rnn_calls):
    options = {"return_sequences": all_outputs, "return_state": True}
    ours, theirs = (
        keras.layers.Bidirectional(layer, merge_mode=mode)
        for layer in pair(name, UNITS, **options)
    )
    x, mask = sequences(rng), mask_named("holes")
    count = 2 * number_of_states(name)
    states = [rng.standard_normal((3, UNITS), np.float32) for _ in range(count)]
    ours(x)
    theirs(x)
    theirs.set_weights(ours.get_weights())
    del rnn_calls[:]
    got, wanted = (y(x, initial_state=states, mask=mask) for y in (ours, theirs))
    close(got, wanted)
    assert [options.reverse for _, options in rnn_calls] == [False, True]


@pytest.mark.parametrize(
    ("name", "timesteps"),
    [("LSTM", 2), ("LSTM", None), ("GRU", None), ("SimpleRNN", 2)],
)
# A loop over the steps takes the place of one vectorized call.
@pytest.mark.filterwarnings("ignore:.*pfor")
def test_time_distributed(name, timesteps, rng, rnn_calls):
    ours, theirs = pair(name, UNITS)
    x = rng.standard_normal((3, 2, 5, FEATURES), np.float32)
    models = []
    for layer in (ours, theirs):
        inputs = keras.Input((timesteps, 5, FEATURES))
        models.append(keras.Model(inputs, keras.layers.TimeDistributed(layer)(inputs)))
    got, wanted = (model.predict(x, verbose=0) for model in models)
    close(got, wanted)
    assert rnn_calls


def test_stack_of_cells_stays_keras():
    cells = [keras.layers.LSTMCell(3), keras.layers.GRUCell(2)]
    assert keras.layers.RNN(cells)(np.zeros((2, 3, 4), "float32")).shape == (2, 2)


def classifier(module, name, **options):
    """Token ids, 0 for padding, through a layer of both directions and another."""
    layer = getattr(module, name)
    first = layer(UNITS, return_sequences=True, **options)
    keras.utils.set_random_seed(1)  # the copies of `first` have no seed of their own
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(20, FEATURES, mask_zero=True),
            keras.layers.Bidirectional(first),
            layer(UNITS, **options),
            keras.layers.Dense(1),
        ]
    )


def compile_once(model, **options):
    """Keras traces a training step twice that creates the optimizer's variables."""
    model.compile(keras.optimizers.SGD(0.1), "mse", **options)
    model.optimizer.build(model.trainable_variables)


def tokens(rng, batch=32, timesteps=9):
    """Padded on the right, on the left, and one row of padding alone."""
    ids = rng.integers(1, 20, (batch, timesteps))
    lengths = rng.integers(1, timesteps + 1, batch)
    steps = np.arange(timesteps)
    ids[::2][steps >= lengths[::2, None]] = 0
    ids[1::2][steps < timesteps - lengths[1::2, None]] = 0
    ids[5] = 0
    return ids


@pytest.mark.parametrize("dropout", [pytest.param(0.0, marks=pytest.mark.slow), 0.2])
@pytest.mark.parametrize("name", WITH_GATES)
def test_fit_goes_the_way_of_keras(name, dropout, rng, rnn_calls):
    """The same losses after each epoch, with padding of every kind."""
    x = tokens(rng)
    y = np.sum(x, axis=1) % 2
    options = {"dropout": dropout, "recurrent_dropout": dropout}
    models = [classifier(m, name, **options) for m in (hw3tf.layers, keras.layers)]
    models[1].set_weights(models[0].get_weights())
    losses = []
    for model in models:
        compile_once(model)
        fitted = model.fit(x, y, 8, 3, validation_split=0.25, shuffle=False, verbose=0)
        losses.append([*fitted.history["loss"], *fitted.history["val_loss"]])
    assert rnn_calls
    # Some 9 steps of SGD enlarge a rounding little.
    np.testing.assert_allclose(*losses, rtol=2e-5, atol=2e-6)
    weights = (m.get_weights() for m in models)
    for got, wanted in zip(*weights, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-6)


def encoder_decoder(module, name):
    """The states of one layer begin the other."""
    source, target = keras.Input((None, FEATURES)), keras.Input((None, FEATURES))
    layer = getattr(module, name)
    _, *states = layer(UNITS, return_state=True, name="encoder")(source)
    states = states if len(states) > 1 else states[0]
    decoder = layer(UNITS, return_sequences=True, name="decoder")
    y = decoder(target, initial_state=states)
    return keras.Model([source, target], keras.layers.Dense(2, name="dense")(y))


@pytest.mark.parametrize("name", WITH_GATES)
def test_encoder_and_decoder(name, rng, rnn_calls):
    ours, theirs = (encoder_decoder(m, name) for m in (hw3tf.layers, keras.layers))
    theirs.set_weights(ours.get_weights())
    x = [sequences(rng), sequences(rng, timesteps=7)]
    y = rng.standard_normal((3, 7, 2), np.float32)
    close(ours(x), theirs(x))
    for model in (ours, theirs):
        compile_once(model)
        model.fit(x, y, epochs=2, verbose=0)
    close(ours.get_weights(), theirs.get_weights())
    assert len(rnn_calls) >= 4


def test_given_states_take_the_mask_of_the_sequences_as_in_keras(rng):
    """The mask that the sequences bring is not used then; one that is given is."""
    ours, theirs = pair("LSTM", UNITS)
    x, mask = sequences(rng), mask_named("right")
    states = [rng.standard_normal((3, UNITS), np.float32) for _ in range(2)]

    def run(layer, **call):
        given = tf.identity(x)
        given._keras_mask = tf.constant(mask)
        given_states = [tf.identity(s) for s in states]
        return layer(given, initial_state=given_states, **call)

    close(run(ours), run(theirs))
    close(run(ours), theirs(x, initial_state=states))
    close(run(ours, mask=mask), theirs(x, initial_state=states, mask=mask))


class Doubling(hw3tf.layers.LSTM):
    """With another call around the loop."""

    def call(self, sequences, initial_state=None, mask=None, training=False):
        return super().call(2 * sequences, initial_state, mask, training)


def test_subclass_with_another_call_is_fused_inside_it(rng, rnn_calls):
    layer, plain = Doubling(UNITS), keras.layers.LSTM(UNITS)
    x = sequences(rng)
    layer(x)
    plain.build(x.shape)
    plain.set_weights(layer.get_weights())
    close(layer(x), plain(2 * x))
    assert len(rnn_calls) == 2


@pytest.mark.parametrize("name", NAMES)
def test_regularizers_constraints_and_config(name, rng):
    options = {
        "kernel_regularizer": "l2",
        "recurrent_regularizer": "l1",
        "bias_regularizer": "l2",
        "activity_regularizer": "l2",
        "kernel_constraint": "non_neg",
        "kernel_initializer": "ones",
    }
    ours, theirs = pair(name, UNITS, **options)
    x = sequences(rng)
    for layer in (ours, theirs):
        layer(x)
    close(ours.losses, theirs.losses)
    assert len(ours.losses) == (3 if name == "SimpleRNN" else 4)
    own, other = ours.get_config(), theirs.get_config()
    for config in (own, other):
        config.pop("name")
    assert own == other
    model = keras.Sequential([keras.Input((5, FEATURES)), ours])
    model.compile(keras.optimizers.SGD(100.0), "mse")
    model.fit(x, np.zeros((3, UNITS)), verbose=0)
    assert np.min(ours.cell.kernel) >= 0


@pytest.mark.parametrize("name", NAMES)
def test_weights_keep_their_gradient_by_trainable(name, rng):
    layer = trio(name, FEATURES, units=UNITS)[0]
    layer.cell.kernel.trainable = False
    assert len(layer.trainable_weights) == 2
    assert len(results(layer, sequences(rng))) == 4


# What the kernel does not compute: arguments, a change to the layer, and the reason.
LEFT_TO_KERAS = {
    "gelu": (
        {"activation": "gelu"},
        None,
        "`activation` is gelu, not Keras's tanh, sigmoid",
    ),
    "a layer": (
        {"activation": keras.layers.ReLU()},
        None,
        "`activation` is <ReLU name=",
    ),
    "lambda": (
        {"recurrent_activation": lambda x: keras.ops.sigmoid(2 * x)},
        None,
        "`recurrent_activation` is <lambda>, not Keras's",
    ),
    "a cell's own call": (
        {},
        lambda layer: setattr(layer.cell, "call", layer.cell.call),
        "`cell`: the layer has a `call` of its own",
    ),
    "a cell's own dropout": (
        {"dropout": 0.5},
        lambda layer: setattr(layer.cell, "get_dropout_mask", lambda x: None),
        "`cell`: the layer has a `get_dropout_mask` of its own",
    ),
    "another cell": (
        {},
        lambda layer: vars(layer).update(cell=Halved(layer.cell)),
        "`cell` is of type Halved, not LSTMCell, GRUCell or SimpleRNNCell",
    ),
    "without autocast": (
        {},
        lambda layer: setattr(layer.cell, "autocast", False),
        "`cell.autocast` is False",
    ),
    "an activity regularizer": (
        {},
        lambda layer: setattr(
            layer.cell, "activity_regularizer", keras.regularizers.L2()
        ),
        "`cell` has an activity regularizer",
    ),
}


class Halved(keras.layers.LSTMCell):
    """A cell with the weights of another."""

    def __init__(self, cell):
        super().__init__(cell.units)
        self.build((None, FEATURES))
        self.set_weights(cell.get_weights())

    def call(self, inputs, states, training=False):
        return super().call(inputs / 2, states, training)


@pytest.mark.parametrize("what", LEFT_TO_KERAS)
def test_what_the_kernel_does_not_compute_is_keras(what, rng, rnn_calls, caplog):
    options, change, reason = LEFT_TO_KERAS[what]
    layers = pair("LSTM", UNITS, return_sequences=True, **options)
    for layer in layers if change else ():
        change(layer)
    x, mask = sequences(rng), mask_named("left")
    with caplog.at_level(logging.DEBUG, "hw3tf"):
        got, wanted = (results(layer, x, mask=mask) for layer in layers)
    assert all(map(np.array_equal, got, wanted))
    assert not rnn_calls
    assert f"{layers[0].name} runs as in Keras: {reason}" in caplog.text


def test_dropout_of_another_number_of_masks_is_keras(rng, rnn_calls, caplog):
    """Keras takes rows of the one mask that was drawn for masks of the gates."""
    layers = pair("LSTM", UNITS, dropout=0.5, seed=1, use_cudnn=False)
    for layer in layers:
        layer.cell.implementation = 1
    x = sequences(rng, batch=4)
    with caplog.at_level(logging.DEBUG, "hw3tf"):
        got, wanted = (layer(x, training=True) for layer in layers)
    np.testing.assert_array_equal(got, wanted)
    assert not rnn_calls
    assert "the cell has drawn 1 masks of dropout, not 4" in caplog.text


def test_another_number_of_states_is_the_error_of_keras(rng, rnn_calls):
    x, state = sequences(rng), np.zeros((3, UNITS), "float32")
    errors = []
    for layer in pair("LSTM", UNITS):
        with pytest.raises(IndexError) as caught:
            layer(x, initial_state=[state])
        errors.append(str(caught.value))
    assert errors[0] == errors[1]
    assert not rnn_calls


def test_masks_with_a_value_for_each_unit_are_keras(rng, rnn_calls, caplog):
    ours, theirs = pair("GRU", UNITS, return_sequences=True)
    x, mask = sequences(rng), rng.random((3, 5, UNITS)) < 0.5
    with caplog.at_level(logging.DEBUG, "hw3tf"):
        np.testing.assert_array_equal(ours(x, mask=mask), theirs(x, mask=mask))
    assert not rnn_calls
    assert "the mask, of shape (3, 5, 6), is not one of steps" in caplog.text


@pytest.mark.parametrize(
    ("place", "replacement", "reason"),
    [
        ((keras.backend, "backend"), lambda: "numpy", "the backend is numpy"),
        ((paths, "_gpu_visible"), lambda: True, "TensorFlow sees a GPU"),
    ],
)
def test_where_the_kernel_does_not_serve(
    place, replacement, reason, rng, rnn_calls, caplog, monkeypatch
):
    ours, theirs = pair("LSTM", UNITS)
    x = sequences(rng)
    wanted = theirs(x)
    monkeypatch.setattr(*place, replacement)
    with caplog.at_level(logging.DEBUG, "hw3tf"):
        np.testing.assert_array_equal(ours(x), wanted)
    assert not rnn_calls
    assert f"runs as in Keras: {reason}" in caplog.text


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_cudnn_is_refused_as_in_keras(name, rng):
    layer = getattr(hw3tf.layers, name)(UNITS, use_cudnn=True)
    with pytest.raises(ValueError, match="use_cudnn=True was specified"):
        layer(sequences(rng))


@pytest.mark.parametrize("name", NAMES)
def test_eager_is_graph(name, rng, rnn_calls):
    """tensorflow/tensorflow#15952"""
    layer = trio(name, FEATURES, units=UNITS, return_sequences=True)[0]
    x, mask = sequences(rng), mask_named("holes")
    specs = [
        tf.TensorSpec((None, None, FEATURES)),
        tf.TensorSpec((None, None), "bool"),
    ]
    graph = tf.function(lambda x, mask: layer(x, mask=mask), input_signature=specs)
    np.testing.assert_array_equal(layer(x, mask=mask), graph(x, mask))
    assert len(rnn_calls) == 2


@pytest.mark.parametrize("name", NAMES)
def test_unknown_sizes_keep_their_shapes(name):
    layer = getattr(hw3tf.layers, name)(UNITS, return_sequences=True, return_state=True)
    y, *states = layer(keras.Input((None, FEATURES)))
    assert y.shape == (None, None, UNITS)
    assert {s.shape for s in states} == {(None, UNITS)}
    shapes = []

    @tf.function(input_signature=[tf.TensorSpec((None, None, FEATURES))])
    def run(x):
        shapes.extend(z.shape.as_list() for z in layer(x))
        return x

    run.get_concrete_function()
    assert shapes == [[None, None, UNITS], *[[None, UNITS]] * len(states)]


@pytest.mark.parametrize("name", NAMES)
def test_batch_of_zero(name, rng):
    layer = getattr(hw3tf.layers, name)(UNITS)
    layer.build((None, 5, FEATURES))
    run = tf.function(layer, input_signature=[tf.TensorSpec((None, 5, FEATURES))])
    assert run(tf.zeros((0, 5, FEATURES))).shape == (0, UNITS)


@pytest.mark.parametrize("name", NAMES)
def test_mask_of_another_length_is_an_error(name, rng):
    """tensorflow/tensorflow#45035"""
    layer = getattr(hw3tf.layers, name)(UNITS)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="mask"):
        layer(sequences(rng, timesteps=6), mask=np.ones((3, 5), bool))


@pytest.mark.parametrize("name", NAMES)
def test_every_path(name, path, rng, rnn_calls):
    """Without the kernel, Keras's own loop and not another one."""
    ours, theirs = pair(name, UNITS, return_sequences=True, return_state=True)
    x, mask = sequences(rng), mask_named("holes")
    got, wanted = (results(layer, x, mask=mask) for layer in (ours, theirs))
    assert_equal_up_to_rounding(got, wanted)
    assert {taken for taken, _ in rnn_calls} == {path} - {"reference"}
    assert path != "reference" or all(map(np.array_equal, got, wanted))


# The functions of the other layers are compiled in ops/test_rnn_xla.py.
@pytest.mark.parametrize("name", ["LSTM", *map(slow, ("GRU", "SimpleRNN"))])
def test_compiled_by_xla(name, rng, rnn_calls):
    models = [classifier(module, name) for module in (hw3tf.layers, keras.layers)]
    models[1].set_weights(models[0].get_weights())
    x, losses = tokens(rng), []
    for model, jit in zip(models, (True, False), strict=True):
        compile_once(model, jit_compile=jit)
        fitted = model.fit(x, x[:, 0] % 2, 16, 2, shuffle=False, verbose=0)
        predicted = model.predict(x, verbose=0).ravel()
        losses.append(fitted.history["loss"] + predicted.tolist())
    assert {taken for taken, _ in rnn_calls} == {"xla"}
    np.testing.assert_allclose(*losses, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:hw3tf. a second derivative")
def test_gradient_of_a_gradient(name, rng):
    found, x = [], tf.constant(sequences(rng))
    for layer in pair(name, UNITS):
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = tf.reduce_sum(layer(x) ** 2)
            penalty = tf.reduce_sum(inner.gradient(y, x) ** 2)
        found.append(outer.gradient(penalty, layer.trainable_weights))
    assert_equal_up_to_rounding(*([g.numpy() for g in gs] for gs in found))


@pytest.mark.parametrize("options", [{}, {"recurrent_dropout": 0.2, "dropout": 0.2}])
@pytest.mark.parametrize("rows", [1, None])
@pytest.mark.parametrize("name", NAMES)
def test_no_loop_is_left_in_the_graph(name, rows, options):
    """tensorflow/tensorflow#26642; nor with recurrent dropout, #38236, nor for a batch
    of 1, #59698."""
    found = []
    for layer in pair(name, UNITS, **options):
        run = tf.function(
            lambda x, layer=layer: layer(x, training=True),
            input_signature=[tf.TensorSpec((rows, None, FEATURES))],
        )
        graph = run.get_concrete_function().graph
        found.append([op.type for op in graph.get_operations()])
    ours, theirs = found
    assert len([op for op in ours if op.startswith("Hw3tf")]) == 1
    assert not any("While" in op for op in ours)
    assert any("While" in op for op in theirs)


def test_single_precision_of_keras_is_the_judge(rng):
    """The bound that the tests use tells a wrong layer from a right one."""
    ours, theirs, exact = trio("LSTM", FEATURES, units=UNITS)
    x = sequences(rng)
    wrong = results(ours, x * (1 + 1e-4))
    with pytest.raises(AssertionError):
        assert_as_close_as_keras(wrong, results(exact, x), results(theirs, x))
