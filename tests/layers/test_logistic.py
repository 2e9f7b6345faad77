"""`hw3tf.layers.Logistic`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hw3tf.layers import Logistic

INTEGERS = ("int8", "uint8", "int16", "int32", "int64", "uint64")


@pytest.fixture
def no_infinities():
    """Every op that returns an infinity or NaN raises."""
    tf.debugging.enable_check_numerics()
    yield
    tf.debugging.disable_check_numerics()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("input_dtype", INTEGERS)
@pytest.mark.parametrize("gain", [1000, 1e38])
def test_integers_are_told_apart_exactly(gain, input_dtype, dtype, no_infinities):
    """0, 0.5 and 1 by the sign, at the ends of the range, too, and where the product
    would overflow the float."""
    limits = np.iinfo(input_dtype)
    x = np.array([limits.min, 0, 1, 2, limits.max - 1, limits.max], input_dtype)
    want = np.array([0.0 if limits.min else 0.5, 0.5, 1, 1, 1, 1], dtype)
    got = Logistic(gain, dtype=dtype)(x)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, want)
    if limits.min:
        np.testing.assert_array_equal(Logistic(gain, dtype=dtype)(-x[2:]), 1 - want[2:])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_gains_give_the_logistic_function(dtype):
    """The bound: a few units in the last place, after the exponential."""
    x = np.arange(-200, 201)
    got = np.asarray(Logistic(0.1, dtype=dtype)(x), "float64")
    exact = 1 / (1 + np.exp(-0.1 * x.astype("longdouble")))
    assert np.max(np.abs(got / exact - 1)) < 30 * np.finfo(dtype).eps
    assert got[200] == 0.5
    tiny = float(Logistic(1e-18, dtype="float64")(np.array(2**63 - 1)))
    assert tiny == pytest.approx(1 / (1 + np.exp(-9.223372036854775807)), rel=1e-15)


def test_floats_and_infinities_pass_and_nan_is_not_hidden():
    x = np.array([-np.inf, -3e38, 0.0, 3e38, np.inf, np.nan], "float32")
    got = Logistic()(x)
    np.testing.assert_array_equal(got, [0, 0, 0.5, 1, 1, np.nan])


def test_gradient_of_a_float_is_that_of_the_formula():
    x = tf.constant([-1e30, -0.01, 0.0, 0.02, 1e30])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = Logistic(100.0)(x)
    want = 100 * y * (1 - y)
    np.testing.assert_allclose(tape.gradient(y, x), want, rtol=1e-5)
    assert want[0] == want[4] == 0 < want[2]


def test_booleans_shapes_masks_and_config():
    layer = Logistic(gain=3, dtype="float64", name="a")
    assert layer(np.array([[True, False]])).shape == (1, 2)
    symbolic = layer(keras.Input((None, 2), dtype="int64"))
    assert symbolic.shape == (None, None, 2)
    assert symbolic.dtype == "float64"
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert again.get_config() == layer.get_config()
    assert again.gain == 3.0
    x = tf.constant([[1, 2]])
    x._keras_mask = tf.constant([[True, False]])
    np.testing.assert_array_equal(layer(x)._keras_mask, [[True, False]])


@pytest.mark.parametrize("gain", [0, -1.0, float("inf"), float("nan"), 1e39, "1", True])
def test_gains_that_are_none_are_refused(gain):
    with pytest.raises(ValueError, match="`gain` must be a positive number, finite in"):
        Logistic(gain)


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match=r"`dtype` must be a float dtype.*int32"):
        Logistic(dtype="int32")
    with pytest.raises(
        TypeError, match=r"`inputs` must be integers or real.*complex64"
    ):
        Logistic()(np.ones(3, "complex64"))
