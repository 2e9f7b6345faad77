"""Errors of `hw3tf.layers.IntegerRNN`, eagerly and on symbolic tensors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hw3tf.layers import IntegerRNN
from hw3tf.reference import IntegerRNNCell

FEATURES, UNITS = 2, 3


def ones(*shape, dtype="int32"):
    return np.ones(shape, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "complex64"])
def test_sequences_of_floats_are_refused_not_truncated(dtype, path):
    message = f"`sequences` must be integers.*dtype={dtype}"
    layer = IntegerRNN(UNITS)
    with pytest.raises(TypeError, match=message):
        layer(2.7 * ones(1, 2, FEATURES, dtype=dtype))
    with pytest.raises(TypeError, match=message):
        layer(keras.Input((None, FEATURES), dtype=dtype))


def test_input_without_a_dtype_is_told_of():
    with pytest.raises(TypeError, match=r"default of `keras.Input`.*dtype='int32'"):
        IntegerRNN(UNITS)(keras.Input((None, FEATURES)))


def test_symbolic_input_wider_than_the_state_is_refused():
    with pytest.raises(TypeError, match=r"dtype=int64\. The state is int32"):
        IntegerRNN(UNITS)(keras.Input((None, FEATURES), dtype="int64"))
    IntegerRNN(UNITS, dtype="int64")(keras.Input((None, FEATURES), dtype="int64"))


def test_floats_behind_a_wrapper_are_refused():
    layer = keras.layers.Bidirectional(IntegerRNN(UNITS), dtype="int32", autocast=False)
    with pytest.raises(TypeError, match="`sequences` must be integers"):
        layer(2.7 * ones(1, 2, FEATURES, dtype="float32"))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"sequences": ones(1, 2, FEATURES + 1)}, ValueError, r"`kernel` .*\(3, 3\)"),
        ({"sequences": ones(1, FEATURES)}, ValueError, "`inputs` must have 3 axes"),
        (
            {"sequences": ones(1, 2, FEATURES, dtype="int64")},
            TypeError,
            "`sequences` must be .* or int32: .*int64. .*pass dtype='int64' to the",
        ),
        (
            {"sequences": ones(1, 2, FEATURES, dtype="uint16")},
            TypeError,
            "`sequences` must be integers, .*uint16",
        ),
        ({"mask": ones(1, 3, dtype=bool)}, ValueError, r"`mask` .*\(1, 2\).*\(1, 3\)"),
        (
            {"initial_state": ones(2, UNITS)},
            ValueError,
            r"`initial_state` .*\(1, 3\).*\(2, 3\)",
        ),
        (
            {"initial_state": ones(1, UNITS, dtype="float32")},
            TypeError,
            "`initial_state` must be integers.*float32",
        ),
        (
            {"initial_state": [ones(1, UNITS), ones(1, UNITS)]},
            ValueError,
            "`initial_state` must be one tensor.*a list of 2",
        ),
    ],
    ids=lambda x: str(x)[:20] if isinstance(x, str) else None,
)
def test_bad_calls_are_named(call, error, message):
    layer = IntegerRNN(UNITS)
    layer.build((None, None, FEATURES))
    with pytest.raises(error, match=message):
        layer(**{"sequences": ones(1, 2, FEATURES), **call})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": 0}, "`units` must be a positive integer.*units=0"),
        ({"overflow": "ignore"}, "`overflow` must be one of .*'ignore'"),
        ({"activation": "tanh"}, "`activation` must be one of .*'tanh'"),
        ({"activation": "clip", "clip": (5, 1)}, "`clip` must be an ascending pair"),
        ({"clip": (1, 5)}, "`clip` must be None unless activation='clip'"),
        ({"dtype": "float32"}, "`dtype` must be 'int32' or 'int64'.*float32"),
        ({"dtype": "int8"}, "int8"),
        ({"fractional_bits": -1}, "`fractional_bits` must be an integer from 0 to 31"),
    ],
    ids=str,
)
def test_options_that_do_not_exist_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        IntegerRNN(**{"units": UNITS, **options})


@pytest.mark.parametrize("value", [0.5, 2.0**31, -(2**31) - 1, float("nan"), "glorot"])
def test_weights_that_are_no_integers_of_the_dtype_are_refused(value):
    """By initializers and by `set_weights`, which then changes nothing."""
    initializer = "glorot_uniform"
    if value != "glorot":
        initializer = keras.initializers.Constant(value)
        layer = IntegerRNN(UNITS)
        layer.build((None, None, FEATURES))
        before = layer.get_weights()
        weights = [before[0] + 1, np.full((UNITS, UNITS), value), before[2]]
        with pytest.raises(ValueError, match="`recurrent_kernel` must be integers of"):
            layer.set_weights(weights)
        for a, b in zip(layer.get_weights(), before, strict=True):
            np.testing.assert_array_equal(a, b)
    layer = IntegerRNN(UNITS, bias_initializer=initializer)
    with pytest.raises(ValueError, match="`bias` must be integers of int32"):
        layer(ones(1, 2, FEATURES))


def test_whole_floats_are_weights():
    layer = IntegerRNN(1, dtype="int64")
    layer.build((None, None, 1))
    layer.set_weights([np.full((1, 1), -(2.0**63)), np.zeros((1, 1)), np.array([3.0])])
    np.testing.assert_array_equal(layer.cell.kernel, [[-(2**63)]])


def test_asking_for_a_gradient_is_refused():
    """Of what is before the layer: the head behind it has one, and the weights of the
    layer are not asked."""
    layer = IntegerRNN(UNITS)
    layer.trainable = True
    x = tf.ones((1, 2, FEATURES), "int32")
    with tf.GradientTape() as tape:
        scale = tf.Variable(2.0)
        y = scale * tf.cast(layer(x), "float32")
        with pytest.raises(TypeError, match="integers have no gradient, and a tape"):
            layer(tf.cast(scale * tf.ones((1, 2, FEATURES)), "int32"))
    assert tape.gradient(y, scale) == UNITS * 2 * FEATURES
    assert not layer.trainable_weights


@pytest.mark.parametrize("use_cell", [False, True], ids=["layer", "reference cell"])
def test_a_weight_made_trainable_is_refused(use_cell):
    """Its gradient would be None; `layer.trainable` alone changes no weight."""
    layer = IntegerRNN(UNITS)
    if use_cell:
        layer = keras.layers.RNN(IntegerRNNCell(UNITS), dtype="int32")
    layer.build((None, None, FEATURES))
    layer.trainable = True
    assert layer(ones(1, 2, FEATURES))[0, 0] == 2 * FEATURES
    layer.cell.recurrent_kernel.trainable = True
    message = r"integer weights have no gradient.*recurrent_kernel\.trainable=True"
    with pytest.raises(ValueError, match=message):
        layer(ones(1, 2, FEATURES))
    with pytest.raises(ValueError, match=message):
        tf.function(layer)(ones(1, 2, FEATURES))
