"""Derivatives of the gradients of the recurrent layers, which pure Keras computes."""

import functools
import warnings

import numpy as np
import pytest
import tensorflow as tf
from rnn_checks import CELLS, kernel, make_arrays, specification

from hw3tf import ops
from hw3tf.ops.fronts import second_order
from hw3tf.ops.rnn.options import RnnOptions

OPTIONS = {
    "plain": ({}, {}),
    "masked": (
        {"mask": "holes", "lengths": True, "input_dropout": "one"},
        {"return_sequences": True, "reverse": True, "zero_output_for_mask": True},
    ),
    "bare": ({"biases": False, "states": False}, {"activation": "hard_sigmoid"}),
}


@pytest.fixture(autouse=True)
def _already_said(monkeypatch):
    """Warnings are errors, and this one is given once per process."""
    monkeypatch.setattr(second_order, "say_once", lambda what: None)


def gradient_of_gradient(function, cell, arrays, options, dtype="float64"):
    """The gradient of a sum of squares of gradients, with respect to all tensors."""
    tensors = {
        name: tf.constant(x, dtype if x.dtype.kind == "f" else x.dtype)
        for name, x in arrays.items()
        if not name.startswith("grad_")
    }
    inside = [n for n, x in tensors.items() if x.dtype == dtype and "dropout" not in n]
    wanted = [tensors[name] for name in inside]
    with tf.GradientTape() as outer:
        outer.watch(wanted)
        with tf.GradientTape() as inner:
            inner.watch(wanted)
            results = function(cell, tensors, RnnOptions(**options))
            loss = sum(tf.reduce_sum(x**3) for x in results if x is not None)
        grads = inner.gradient(loss, wanted)
        penalty = sum(tf.reduce_sum(g**2) for g in grads)
    return outer.gradient(penalty, wanted)


@functools.cache
def case_and_truth(cell, case):
    """Arrays and options, and what the specification makes of them."""
    of_arrays, options = OPTIONS[case]
    rng = np.random.default_rng(0)
    arrays = make_arrays(rng, cell, timesteps=3, **of_arrays)
    wanted = gradient_of_gradient(specification, cell, arrays, options)
    return arrays, options, [np.asarray(x) for x in wanted]


@pytest.mark.parametrize(
    ("mode", "case", "cell"),
    [
        pytest.param(
            mode,
            case,
            cell,
            # XLA takes seconds for each graph, and what it compiles is the reference.
            marks=pytest.mark.slow if mode == "xla" and cell != "lstm" else [],
        )
        for mode in ("eager", "graph", "xla")
        for case in OPTIONS
        for cell in CELLS
    ],
)
def test_gradient_of_a_gradient(cell, case, mode, kernel_path):
    """That of the specification, to the last bits of float64."""
    if mode == "xla" and (kernel_path == "pybind" or case != "masked"):
        return  # XLA cannot call Python, and takes seconds for each case
    if mode == "graph" and (
        case == "bare" or (kernel_path, case) == ("pybind", "plain")
    ):
        return  # the same Keras as eagerly, a second for each case
    arrays, options, wanted = case_and_truth(cell, case)

    def run():
        return gradient_of_gradient(kernel, cell, arrays, options)

    if mode != "eager":
        run = tf.function(run, autograph=False, jit_compile=mode == "xla")
    got = run()
    for x, y in zip(got, wanted, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-12 * np.abs(y).max())


def test_only_one_gradient_has_a_gradient(kernel_path, rng):
    """The tape of the weights alone: the gradient of the inputs is skipped."""
    x = tf.constant(rng.standard_normal((2, 3, 5)))
    k = tf.constant(rng.standard_normal((5, 16)))
    r = tf.constant(rng.standard_normal((4, 16)))

    def penalty_of(run):
        with tf.GradientTape() as outer:
            outer.watch(k)
            with tf.GradientTape() as inner:
                inner.watch(k)
                loss = tf.reduce_sum(run(x, k, r) ** 3)
            penalty = tf.reduce_sum(inner.gradient(loss, k) ** 2)
        return outer.gradient(penalty, k)

    def in_keras(x, k, r):
        tensors = {"inputs": x, "kernel": k, "recurrent_kernel": r}
        return specification("lstm", tensors, RnnOptions())[0]

    want = penalty_of(in_keras)
    size = np.abs(want).max()
    np.testing.assert_allclose(penalty_of(ops.lstm), want, rtol=0, atol=1e-12 * size)


def test_forward_mode(rng, monkeypatch):
    monkeypatch.setenv("HW3TF_PATH", "op")
    arrays = make_arrays(rng, "gru", biases=False, states=False)
    x, k, r = (tf.constant(arrays[n]) for n in ("inputs", "kernel", "recurrent_kernel"))
    direction = tf.constant(rng.standard_normal(k.shape))
    with tf.autodiff.ForwardAccumulator(k, direction) as forward:
        loss = tf.reduce_sum(ops.gru(x, k, r) ** 2)
    with tf.GradientTape() as tape:
        tape.watch(k)
        same = tf.reduce_sum(ops.gru(x, k, r) ** 2)
    want = tf.reduce_sum(tape.gradient(same, k) * direction)
    np.testing.assert_allclose(forward.jvp(loss), want, rtol=1e-12)


def test_forward_mode_through_pybind_says_what_to_do(rng, monkeypatch):
    monkeypatch.setenv("HW3TF_PATH", "pybind")
    x, k, r = tf.ones((1, 2, 1)), tf.ones((1, 1)), tf.ones((1, 1))

    def derivative():
        with tf.autodiff.ForwardAccumulator(k, k) as forward:
            y = ops.simple_rnn(x, k, r)
        return forward.jvp(y)

    message = r"this derivative of a recurrent layer cannot .*hw3tf\.restore"
    with pytest.raises(NotImplementedError, match=message):
        derivative()


def test_it_is_said_once(monkeypatch):
    monkeypatch.undo()
    second_order.say_once.cache_clear()
    x, k, r = tf.ones((1, 2, 1)), tf.ones((1, 1)), tf.ones((1, 1))

    def run():
        with tf.GradientTape() as outer:
            outer.watch(k)
            with tf.GradientTape() as inner:
                inner.watch(k)
                y = ops.simple_rnn(x, k, r)
            first = inner.gradient(y, k)
        return outer.gradient(first, k)

    with pytest.warns(RuntimeWarning, match="a second derivative of a recurrent layer"):
        run()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run()
