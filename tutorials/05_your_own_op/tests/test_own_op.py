"""Tests against Python's integers and float64: `pip install . && pytest`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from own_op import core, layers, ops

# Of the large ones, several threads take a part each.
SHAPES = [(3, 5), (7, 1), (2, 3, 65), (300, 1000), (70_000, 3), (0, 4), (2, 0), (9,)]


def draw(shape, dtype="float32", seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


def formula(x, scale):
    return x * scale / tf.sqrt(tf.reduce_mean(x * x, -1, keepdims=True) + 1e-6)


def with_gradients(function, x, scale, dy, **options):
    with tf.GradientTape() as tape:
        tape.watch((x, scale))
        y = function(x, scale, **options)
    return [t.numpy() for t in (y, *tape.gradient(y, (x, scale), dy))]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_alternating_sums_are_those_of_python(shape):
    x = np.random.default_rng(0).integers(-(2**40), 2**40, shape)
    want = np.zeros(shape[:-1], object)
    for t in range(shape[-1]):
        want = x[..., t].astype(object) - want
    for threads in range(4):
        y = core.alternating_sum(x, threads=threads)
        assert y.dtype == np.int64
        assert np.array_equal(y, want)
    for strided in (
        np.asfortranarray(x),
        np.flip(np.flip(x).copy()),
        x.repeat(2, -1)[..., ::2],
    ):
        assert np.array_equal(core.alternating_sum(strided), want)


def test_alternating_sum_refuses_other_types_and_ranks():
    with pytest.raises(TypeError, match=r"`x` must be int64\. Received: float64"):
        core.alternating_sum(np.ones((2, 3)))
    with pytest.raises(ValueError, match="`x` must have at least 1 axis"):
        core.alternating_sum(np.array(1))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_error_is_at_most_twice_that_of_float32(shape):
    inputs = [draw(shape, seed=1), draw(shape[-1:], seed=2), draw(shape, seed=3)]
    exact = with_gradients(formula, *[tf.cast(x, "float64") for x in inputs])
    plain = with_gradients(formula, *inputs)
    for one, double, float32 in zip(
        with_gradients(ops.rms_norm, *inputs), exact, plain, strict=True
    ):
        assert one.shape == double.shape
        bound = 2 * np.abs(float32 - double).max(initial=0) + 1e-6
        assert np.abs(one - double).max(initial=0) <= bound


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_do_not_depend_on_the_number_of_threads(shape):
    inputs = [draw(shape, seed=1), draw(shape[-1:], seed=2), draw(shape, seed=3)]
    alone = with_gradients(ops.rms_norm, *inputs, threads=1)
    for threads in (0, 2, 3, 7):
        shared = with_gradients(ops.rms_norm, *inputs, threads=threads)
        for one, other in zip(alone, shared, strict=True):
            assert one.tobytes() == other.tobytes()


def test_nan_stays_in_its_row_and_large_numbers_are_right():
    x = np.ones((3, 4), "float32") * [[1], [np.nan], [1e30]]
    y = ops.rms_norm(x.astype("float32"), np.ones(4, "float32")).numpy()
    assert np.isnan(y[1]).all()
    np.testing.assert_allclose(y[[0, 2]], 1, rtol=1e-6)


@pytest.mark.parametrize("run", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_wrong_inputs_are_refused(run):
    with pytest.raises(TypeError, match=r"`x` must be float32\. Received: float64"):
        run(ops.rms_norm)(draw((2, 3), "float64"), draw((3,)))
    with pytest.raises(ValueError, match="`x` must have at least 1 axis"):
        run(ops.rms_norm)(draw(()), draw((1,)))
    with pytest.raises(ValueError, match=r"`scale` must have shape \(3,\).*\(4,\)"):
        run(ops.rms_norm)(draw((2, 3)), draw((4,)))


def test_wrong_sizes_are_refused_where_a_graph_does_not_know_them():
    unknown = tf.TensorSpec(None, tf.float32)
    graph = tf.function(ops.rms_norm, input_signature=(unknown, unknown))
    for x, scale in (((), (1,)), ((2, 3), (4,)), ((2, 3), (3, 1))):
        with pytest.raises(tf.errors.InvalidArgumentError, match="must have"):
            graph(draw(x), draw(scale))


def test_layer_trains_and_is_saved(tmp_path):
    inputs = keras.Input((None, 6))
    outputs = keras.layers.Dense(1)(layers.RmsNorm(epsilon=1e-5)(inputs))
    model = keras.Model(inputs, outputs)
    assert model.layers[1].output.shape == (None, None, 6)
    x = draw((20, 3, 6)).numpy()
    model.compile("adam", "mse")
    model.fit(x, x[..., :1], epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[1].epsilon == 1e-5
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )
