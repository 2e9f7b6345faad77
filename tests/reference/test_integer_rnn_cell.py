"""`hw3tf.reference.IntegerRNNCell` under `keras.layers.RNN`."""

import keras
import numpy as np
import pytest
from integer_formula import integer_rnn

from hw3tf.reference import IntegerRNNCell


def rnn_with_weights(rng, units, features, dtype, size, **options):
    """`keras.layers.RNN` with a cell of random weights, and these."""
    cell_options = {
        k: options.pop(k)
        for k in ("activation", "clip", "fractional_bits")
        if k in options
    }
    cell = IntegerRNNCell(units, dtype=dtype, **cell_options)
    layer = keras.layers.RNN(cell, dtype=dtype, **options)
    layer.build((None, None, features))
    weights = [rng.integers(-size, size, w.shape, dtype) for w in layer.weights]
    layer.set_weights(weights)
    return layer, weights


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_sequences": True},
        {"go_backwards": True, "return_sequences": True},
        {"activation": "relu"},
        {"activation": "sign"},
        {"activation": "clip", "clip": (-9, 3)},
        {"fractional_bits": 20},
    ],
)
def test_rnn_of_the_cell_is_the_formula(options, dtype, rng):
    """With weights of any size: it wraps."""
    size = 2 ** (int(dtype[3:]) - 1) - 1
    layer, weights = rnn_with_weights(rng, 3, 2, dtype, size, **options)
    x = rng.integers(-size, size, (4, 6, 2), dtype)
    mask = rng.random((4, 6)) < 0.8
    if options.get("return_sequences"):
        mask = None  # Keras repeats the output of a masked step, not the state
    options = {**options, "overflow": "wrap", "mask": mask}
    options["reverse"] = options.pop("go_backwards", False)
    want = integer_rnn(x, *weights, **options)
    got = layer(x, mask=mask)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, want)


def test_cell_survives_its_config():
    cell = IntegerRNNCell(
        3,
        activation="clip",
        clip=(-1, 5),
        use_bias=False,
        kernel_initializer=keras.initializers.RandomUniform(-3, 4, seed=1),
        fractional_bits=2,
        dtype="int64",
        name="a",
    )
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(cell)
    )
    assert again.get_config() == cell.get_config()
    for layer in (cell, again):
        layer.build((None, 2))
    assert len(again.weights) == 2
    np.testing.assert_array_equal(cell.kernel, again.kernel)


@pytest.mark.parametrize(
    ("initializer", "values"),
    [
        ("zeros", [[0, 0], [0, 0]]),
        ("ones", [[1, 1], [1, 1]]),
        ("identity", [[1, 0], [0, 1]]),
        (keras.initializers.Constant(-(2**63)), [[-(2**63)] * 2] * 2),
        (
            keras.initializers.Constant([[2**62 + 1, 2], [3, 4]]),
            [[2**62 + 1, 2], [3, 4]],
        ),
        (keras.initializers.Identity(-3), [[-3, 0], [0, -3]]),
        (lambda shape, dtype: np.full(shape, 2**53, dtype), [[2**53] * 2] * 2),
    ],
)
def test_integer_initializers_are_kept_exactly(initializer, values):
    cell = IntegerRNNCell(2, recurrent_initializer=initializer, dtype="int64")
    cell.build((None, 2))
    np.testing.assert_array_equal(cell.recurrent_kernel, np.array(values, "int64"))


def test_random_uniform_yields_the_integers_between_its_limits():
    initializer = keras.initializers.RandomUniform(-3, 4, seed=1)
    cell = IntegerRNNCell(40, recurrent_initializer=initializer)
    cell.build((None, 1))
    values = np.unique(keras.ops.convert_to_numpy(cell.recurrent_kernel))
    assert values.tolist() == [-3, -2, -1, 0, 1, 2, 3]


@pytest.mark.parametrize(
    "initializer",
    [
        "glorot_uniform",
        "orthogonal",
        "random_normal",
        "random_uniform",
        keras.initializers.Constant(2.5),
        keras.initializers.Constant(2**31),
        keras.initializers.Identity(float("nan")),
        lambda shape, dtype: np.full(shape, 0.5, dtype),
    ],
)
def test_initializers_of_other_numbers_are_refused(initializer):
    cell = IntegerRNNCell(2, kernel_initializer=initializer)
    with pytest.raises(ValueError, match=r"`kernel` must be integers of int32.*Rec"):
        cell.build((None, 2))


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_input_that_is_not_integers_is_refused(dtype):
    cell = IntegerRNNCell(2)
    with pytest.raises(TypeError, match=f"`inputs` must be integers.*{dtype}"):
        cell(np.ones((1, 3), dtype), cell.get_initial_state(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": 0}, "`units` must be a positive integer.*0"),
        ({"units": 1.5}, "`units` must be a positive integer.*1.5"),
        ({"dtype": "float32"}, "`dtype` must be 'int32' or 'int64'.*float32"),
        ({"dtype": "int16"}, "`dtype` must be 'int32' or 'int64'.*int16"),
        ({"activation": "tanh"}, "`activation` must be one of"),
    ],
)
def test_options_that_do_not_exist_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        IntegerRNNCell(**{"units": 2, **options})
