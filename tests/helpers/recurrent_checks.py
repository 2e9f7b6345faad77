"""Checks that the tests of recurrent layers share."""

import keras
import numpy as np
import tensorflow as tf

import hw3tf

EPS = {"float16": 2**-10, "bfloat16": 2**-7, "float32": 2**-23, "float64": 2**-52}
NAMES = ("LSTM", "GRU", "SimpleRNN")
MASKS = {
    "none": None,
    "right": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]],
    "left": [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]],
    "holes": [[1, 0, 1, 0, 1], [0, 1, 0, 1, 0], [1, 1, 0, 1, 1]],
    "all masked": [[0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]],
}


def mask_named(name):
    """A boolean array of shape (3, 5), or None."""
    return None if MASKS[name] is None else np.array(MASKS[name], bool)


def number_of_states(name):
    return 2 if name == "LSTM" else 1


def trio(name, features, **options):
    """Our layer, Keras's and Keras's in float64, with the same random weights."""
    ours, theirs = getattr(hw3tf.layers, name), getattr(keras.layers, name)
    # An orthogonal matrix takes as long as a call, and is replaced.
    options = {"recurrent_initializer": "zeros", **options}
    made = (
        ours(**options),
        theirs(**options),
        theirs(**{**options, "dtype": "float64"}),
    )
    rng = np.random.default_rng(1)
    for layer in made:
        layer.build((None, None, features))
    weights = [rng.standard_normal(w.shape) / 2 for w in made[0].trainable_weights]
    for layer in made:
        for weight, values in zip(layer.trainable_weights, weights, strict=True):
            weight.assign(values)
    return made


def results(layer, x, states=(), **call):
    """All results of a call as arrays, and the gradients of the sequences, the initial
    states and the weights."""
    x = tf.cast(x, layer.compute_dtype)
    states = [tf.cast(s, layer.compute_dtype) for s in states]
    with tf.GradientTape() as tape:
        tape.watch([x, *states])
        given = {"initial_state": states} if states else {}
        got = layer(x, **given, **call)
        got = list(got) if isinstance(got, tuple | list) else [got]
        loss = sum(tf.reduce_sum(y * tf.cos(y)) for y in got)
    sources = [x, *states, *(w.value for w in layer.trainable_weights)]
    found = tape.gradient(loss, sources, unconnected_gradients="zero")
    return [tf.cast(y, "float64").numpy() for y in (*got, *found)]


def rms(x):
    return np.sqrt(np.mean(np.square(x)))


def assert_as_close_as_keras(got, exact, stock, what="", dtype="float32"):
    """The error against float64 is at most twice that of Keras: of each array the root
    of the mean square, because the largest error of two orders of summation differs by
    more. A few units in the last place of the largest number are allowed always: Keras
    may happen to hit the exact value."""
    ulps = 4 * EPS[dtype]
    for i, (x, truth, plain) in enumerate(zip(got, exact, stock, strict=True)):
        assert x.shape == truth.shape, f"{what}[{i}]: {x.shape}, not {truth.shape}"
        if x.size:
            bound = 2 * rms(plain - truth) + ulps * np.abs(truth).max()
            assert rms(x - truth) <= bound, f"{what}[{i}]: {rms(x - truth):.2e}"


def assert_equals_keras(layers, x, states=(), what="", **call):
    """`layers`: as `trio` makes them."""
    got, stock, exact = (results(layer, x, states, **call) for layer in layers)
    assert_as_close_as_keras(got, exact, stock, what, layers[0].compute_dtype)
