"""Second derivatives and forward mode, which the kernel leaves to the reference."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from checks import run_python

import hw3tf
from hw3tf import ops, reference
from hw3tf.ops.fronts import second_order

SHAPE = (2, 6, 2, 4)
OPTIONS = {
    "plain": {},
    "masked": {"is_causal": True, "key_lengths": [6, 3], "query_lengths": [5, 6]},
    "window-cap": {"sliding_window": 3, "attn_logits_soft_cap": 2.0, "scale": -0.7},
    "dropout": {"dropout_rate": 0.3, "dropout_seed": 5},
}


@pytest.fixture(autouse=True)
def _already_said(monkeypatch):
    """The warning about the cost comes once in a process: here it has come already."""
    monkeypatch.setattr(second_order, "say_once", lambda what: None)


def make_inputs():
    rng = np.random.default_rng(0)
    bias = rng.standard_normal((1, 2, 6, 6), "float32")
    return [
        *(tf.constant(x) for x in rng.standard_normal((3, *SHAPE), "float32")),
        bias,
    ]


@pytest.fixture
def inputs():
    return make_inputs()


def gradient_of_gradient(attention, inputs, dtype="float32", **options):
    """The gradient of a sum of squares of gradients, with respect to all inputs."""
    inputs = [tf.cast(x, dtype) for x in inputs]
    with tf.GradientTape() as outer:
        outer.watch(inputs)
        with tf.GradientTape() as inner:
            inner.watch(inputs)
            query, key, value, bias = inputs
            output = attention(query, key, value, bias=bias, **options)
            loss = tf.reduce_sum(output**3)
        grads = inner.gradient(loss, inputs)
        penalty = sum(tf.reduce_sum(g**2) for g in grads)
    return outer.gradient(penalty, inputs)


@functools.cache  # for all modes and paths
def of_the_reference(name):
    """In float32 and in float64."""
    return [
        gradient_of_gradient(
            reference.dot_product_attention, make_inputs(), dtype, **OPTIONS[name]
        )
        for dtype in ("float32", "float64")
    ]


# XLA takes seconds for each graph, and what it compiles is the reference.
IN_XLA = ("masked", "dropout")


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        pytest.param(
            mode,
            name,
            marks=pytest.mark.slow if mode == "xla" and name not in IN_XLA else [],
        )
        for mode in ("eager", "graph", "xla")
        for name in OPTIONS
    ],
)
def test_gradient_of_a_gradient(mode, name, kernel_path, inputs):
    """As exact as the reference's own float32."""
    if mode == "xla" and kernel_path == "pybind":
        pytest.skip("XLA cannot call Python")

    def compute():
        return gradient_of_gradient(ops.dot_product_attention, inputs, **OPTIONS[name])

    got = (
        compute if mode == "eager" else tf.function(compute, jit_compile=mode == "xla")
    )()
    for arrays in zip(got, *of_the_reference(name), strict=True):
        x, plain, truth = (np.asarray(a, "float64") for a in arrays)
        size = np.abs(truth).max()
        bound = 2 * np.abs(plain - truth).max() + 2**-19 * size
        assert np.abs(x - truth).max() <= bound


def test_one_tensor_in_three_places(kernel_path, inputs):
    """Query, key and value may be the same tensor: its derivatives add up once."""
    x = inputs[0]

    def compute(attention, dtype):
        y = tf.cast(x, dtype)
        with tf.GradientTape() as outer:
            outer.watch(y)
            with tf.GradientTape() as inner:
                inner.watch(y)
                loss = tf.reduce_sum(attention(y, y, y) ** 2)
            penalty = tf.reduce_sum(inner.gradient(loss, y) ** 2)
        return outer.gradient(penalty, y)

    want = compute(reference.dot_product_attention, "float64")
    got = compute(ops.dot_product_attention, "float32")
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_ragged(kernel_path, rng):
    values = tf.constant(rng.standard_normal((9, 2, 4), "float32"))

    def compute(dtype, attend):
        x = tf.cast(values, dtype)
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(attend(x) ** 2)
            penalty = tf.reduce_sum(tf.convert_to_tensor(inner.gradient(loss, x)) ** 2)
        return outer.gradient(penalty, x)

    def ragged(x):
        x = tf.RaggedTensor.from_row_lengths(x, [4, 0, 5])
        return ops.ragged_dot_product_attention(x, x, x, is_causal=True).values

    def dense(x):
        parts = (x[None, :4], x[None, 4:])
        attention = reference.dot_product_attention
        return tf.concat([attention(p, p, p, is_causal=True)[0] for p in parts], 0)

    got, want = compute("float32", ragged), compute("float64", dense)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_forward_mode(monkeypatch, inputs):
    monkeypatch.setenv("HW3TF_PATH", "op")
    query, key, value, bias = inputs
    results = []
    for attention in (ops.dot_product_attention, reference.dot_product_attention):
        with tf.autodiff.ForwardAccumulator(query, tf.ones_like(query)) as accumulator:
            output = attention(query, key, value, bias=bias, is_causal=True)
        results.append(accumulator.jvp(output))
    np.testing.assert_allclose(*results, atol=1e-6)


def test_jacobian_of_a_gradient(monkeypatch, inputs):
    monkeypatch.setenv("HW3TF_PATH", "op")
    results = []
    for attention in (ops.dot_product_attention, reference.dot_product_attention):
        x = inputs[0][:1, :3]
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(attention(x, x, x) ** 2)
            gradient = inner.gradient(loss, x)
        results.append(outer.jacobian(gradient, x, experimental_use_pfor=False))
    np.testing.assert_allclose(*results, atol=1e-5 * np.abs(results[1]).max())


def adversarial_step(model, x):
    """The fast gradient sign method with everything under one tape."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        loss = tf.reduce_sum(model(x) ** 2)
        moved = x + 0.1 * tf.sign(tape.gradient(loss, x))
        loss = tf.reduce_sum(model(moved) ** 2)
    return loss, tape.gradient(loss, model.trainable_variables)


def gradient_penalty(model, x):
    with tf.GradientTape() as tape:
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = tf.reduce_sum(model(x))
        loss = tf.reduce_mean((tf.norm(inner.gradient(y, x), axis=-1) - 1.0) ** 2)
    return loss, tape.gradient(loss, model.trainable_variables)


@pytest.mark.parametrize("step", [adversarial_step, gradient_penalty])
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_an_accelerated_model_has_what_stock_has(step, graph, rng):
    i = keras.Input((6, 8))
    y = keras.layers.MultiHeadAttention(2, 4)(i, i)
    model = keras.Model(i, keras.layers.Dense(1)(y))
    x = tf.constant(rng.standard_normal((3, 6, 8), "float32"))
    run = (lambda: tf.function(step)(model, x)) if graph else (lambda: step(model, x))
    want = tf.nest.flatten(run())
    with hw3tf.accelerate(model) as report:
        assert report.num_fused == 1
        got = tf.nest.flatten(run())
    for a, b in zip(got, want, strict=True):
        assert (a is None) == (b is None)  # a bias has no gradient of a gradient
        if b is not None:
            np.testing.assert_allclose(a, b, atol=1e-5 * (1 + np.abs(b).max()))


def test_what_it_costs_is_said_once():
    code = """
import warnings
import tensorflow as tf
from hw3tf import ops
x = tf.ones((1, 3, 1, 2))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = ops.dot_product_attention(x, x, x)
            g = inner.gradient(y, x)
        outer.gradient(g, x)
for w in caught:
    print(w.category.__name__, w.message)
"""
    (line,) = run_python(code).splitlines()
    assert line.startswith("RuntimeWarning hw3tf: a second derivative")
    assert "hw3tf.restore(model)" in line
    assert "tf.stop_gradient" in line


def test_where_it_cannot_be_computed_the_error_says_what_to_do():
    """A graph that was made without hw3tf's Python has no number_bits."""
    library = ops.load_op_library()
    x = tf.ones((1, 3, 2, 4))
    none = tf.zeros([0])
    rest = [tf.zeros([0], t) for t in ["bool"] * 3 + ["int32"] * 2 + ["int64"] * 2]
    numbers = tf.constant([1.0, 0.0, 0.0], "float64")
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = library.hw3tf_attention(
                x, x, x, none, *rest, tf.constant(0, "int64"), numbers
            )[0]
        gradient = inner.gradient(y, x)
    with pytest.raises(NotImplementedError, match=r"hw3tf\.restore.*tf\.stop_gradient"):
        outer.gradient(gradient, x)
