"""The integer recurrence under XLA, `tf.function(jit_compile=True)`: a custom call."""

import numpy as np
import pytest
import tensorflow as tf
from integer_rnn_cases import (
    ACTIVATIONS,
    INPUT_DTYPES,
    POLICIES,
    arguments,
    assert_exact,
    in_a_graph,
)
from pairwise import pairwise

from hw3tf import ops, reference
from hw3tf.ops.fronts import reference as reference_front

ONE = np.ones((1, 1), "int32")
LARGE = np.array([[[1], [1]], [[2**30], [2**30]]], "int32")  # entry 1, timestep 1


@pytest.fixture(autouse=True)
def _kernel(monkeypatch):
    """In this file a call that takes the reference fails."""

    def refuse(*args, **kwargs):
        raise AssertionError("the reference ran")

    monkeypatch.delenv("HW3TF_PATH", raising=False)
    monkeypatch.setattr(reference_front, "integer_rnn", refuse)


def compiled(**call):
    """`ops.integer_rnn` of unknown batch size and timesteps, compiled by XLA."""
    return in_a_graph(**call, jit_compile=True)


# Not every three of them: each case compiles two graphs. Inputs are no wider than the
# state.
CASES = [
    tuple(case.values())
    for case in pairwise(
        {
            "weights": ["int8", "int32"],
            "input_dtype": [x for x in INPUT_DTYPES if x != "int64"],
            "number": list(range(len(ACTIVATIONS))),
        }
    )
] + [
    ("int64", input_dtype, i % len(ACTIVATIONS))
    for i, input_dtype in enumerate([*INPUT_DTYPES] * 2)
]


@pytest.mark.parametrize(("weights", "input_dtype", "number"), CASES)
def test_states_are_exact(weights, input_dtype, number, rng):
    """With every dtype, activation and argument, where there is an overflow and where
    there is none."""
    state = "int64" if weights == "int64" else "int32"
    activation, overflow = ACTIVATIONS[number], (*POLICIES, "raise")[number]
    options = {"activation": activation, "overflow": overflow}
    options |= {"clip": (-(2**30), 99)} if activation == "clip" else {}
    options |= {"reverse": number % 2 == 0, "fractional_bits": 7 * (number // 2)}
    given = arguments(rng, 3, 40, 2, 4, state, weights, input_dtype)
    assert_exact(given, compiled, tf.errors.InternalError, **options)
    small = arguments(rng, 3, 40, 2, 4, state, weights, input_dtype, 3, 1)
    small["recurrent_kernel"] = np.eye(4, dtype=weights)
    for name in ("bias", "initial_state", "mask")[number:]:
        del small[name]
    assert not assert_exact(small, compiled, **options, return_sequences=True)


def test_the_largest_limits_of_clip_reach_the_kernel(rng):
    given = arguments(rng, dtype="int64", size=9)
    limits = (-(2**63), 2**63 - 1)
    assert not assert_exact(given, compiled, activation="clip", clip=limits)


@pytest.mark.parametrize("shape", [(0, 3, 1), (2, 0, 1), (0, 0, 1)])
def test_nothing_to_do(shape):
    given = {"inputs": np.ones(shape, "int32"), "kernel": ONE, "recurrent_kernel": ONE}
    for sequences in (False, True):
        assert not assert_exact(given, compiled, return_sequences=sequences)


def test_the_path_is_told():
    paths = []

    @tf.function(jit_compile=True)
    def run(x):
        paths.append(str(ops.integer_rnn_path(x, ONE, ONE)))
        return ops.integer_rnn(x, ONE, ONE, overflow="wrap")

    np.testing.assert_array_equal(run(LARGE), [[2], [-(2**31)]])
    assert set(paths) == {"xla (the kernel covers the call, compiled by XLA)"}


def test_arguments_of_unknown_rank():
    spec = tf.TensorSpec(None, "int32")
    run = tf.function(ops.integer_rnn, [spec] * 3, jit_compile=True)
    np.testing.assert_array_equal(run(LARGE[:1], ONE, ONE), [[2]])


def test_sizes_that_depend_on_values_are_refused():
    @tf.function(jit_compile=True)
    def run(x, keep):
        return ops.integer_rnn(tf.boolean_mask(x, keep), ONE, ONE)

    # XLA's own words, or those of the call: versions differ.
    with pytest.raises(tf.errors.OpError, match=r"depend on values|dynamic"):
        run(LARGE, tf.constant([True, False]))


def test_shapes_that_do_not_fit_are_named():
    unknown = tf.TensorSpec([None, None], "int32")
    spec = tf.TensorSpec([None, None, None], "int32")
    run = tf.function(ops.integer_rnn, [spec, unknown, unknown], jit_compile=True)
    with pytest.raises(tf.errors.OpError, match=r"`kernel` must have shape \(1, 2\)"):
        run(LARGE, np.ones((3, 2), "int32"), np.ones((2, 2), "int32"))


def test_pure_keras_defines_a_result():
    run = tf.function(reference.integer_rnn, jit_compile=True, autograph=False)
    one = tf.constant(ONE)
    got = run(tf.constant(LARGE), one, one, overflow="saturate")
    np.testing.assert_array_equal(got, [[2], [2**31 - 1]])


def test_pure_keras_refuses_what_could_not_raise():
    """The error comes when the call is traced, and names the remedy."""
    run = tf.function(reference.integer_rnn, jit_compile=True, autograph=False)
    one = tf.constant(ONE)
    with pytest.raises(NotImplementedError, match=r"jit_compile=False.*'saturate'"):
        run(tf.constant(LARGE), one, one)
