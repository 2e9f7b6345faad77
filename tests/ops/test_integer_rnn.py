"""`hw3tf.ops.integer_rnn` against Python integers: equality, never closeness."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from integer_rnn_cases import (
    ACTIVATIONS,
    INPUT_DTYPES,
    POLICIES,
    arguments,
    assert_exact,
    in_a_graph,
    integers,
    limits,
)

from hw3tf import _core, ops


@pytest.fixture
def threads():
    yield _core.set_num_threads
    _core.set_num_threads(0)


def options_of(rng, dtype, **fixed):
    clip = sorted(int(x) for x in integers(rng, 2, dtype, 1000))
    activation = fixed.get("activation")
    return {"clip": tuple(clip) if activation == "clip" else None, **fixed}


@pytest.mark.parametrize("sequences", [False, True], ids=["last", "all"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_states_are_exact(dtype, activation, sequences, path, rng):
    for reverse in (False, True):
        options = options_of(rng, dtype, activation=activation, reverse=reverse)
        given = arguments(rng, dtype=dtype, size=9)
        assert not assert_exact(given, return_sequences=sequences, **options)
        assert not assert_exact(
            {k: given[k] for k in ("inputs", "kernel", "recurrent_kernel")},
            return_sequences=sequences,
            **options,
        )


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_policies_at_the_edges(dtype, policy, path, rng):
    """One above and one below the range, by every argument alone; then anything."""
    low, high = limits(dtype)
    for edge, step in ((high, 1), (low, -1)):
        for first, second in ((edge, 0), (edge, step), (edge, -step)):
            given = {
                "inputs": np.array([[[first], [second]]], dtype),
                "kernel": np.ones((1, 1), dtype),
                "recurrent_kernel": np.ones((1, 1), dtype),
            }
            outside = assert_exact(given, overflow=policy)
            assert outside == (policy == "raise" and second == step)
    for size in (2, 2**15, None):
        given = arguments(rng, dtype=dtype, input_dtype=dtype, size=size)
        assert_exact(given, overflow=policy, return_sequences=True)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_sums_beyond_the_range_are_clipped_from_both_sides(dtype, path):
    """Steps that the fast lanes leave to the exact sum."""
    low, high = limits(dtype)
    given = {
        "inputs": np.array([[[high], [high], [low], [low]]], dtype),
        "kernel": np.full((1, 1), 2, dtype),
        "recurrent_kernel": np.ones((1, 1), dtype),
    }
    options = {"activation": "clip", "clip": (-5, 7), "return_sequences": True}
    assert_exact(given, overflow="saturate", **options)
    states = ops.integer_rnn(**given, overflow="saturate", **options)
    assert np.ravel(states).tolist() == [7, 7, -5, -5]


def test_partial_sums_do_not_count(path):
    """Products far beyond the range that cancel are no overflow."""
    for dtype in ("int32", "int64"):
        high = limits(dtype)[1]
        given = {
            "inputs": np.full((1, 2, 4), high, dtype),
            "kernel": np.array([[high], [high], [-high], [-high]], dtype),
            "recurrent_kernel": np.array([[high]], dtype),
            "initial_state": np.array([[1]], dtype),
        }
        assert assert_exact(given)  # at the second step, high * high
        assert not assert_exact({**given, "recurrent_kernel": given["kernel"][:1] * 0})


@pytest.mark.parametrize("sign", [1, -1], ids=["positive", "negative"])
@pytest.mark.parametrize(
    ("dtype", "bits", "size"), [("int32", 20, 2**20), ("int64", 30, 2**45)]
)
def test_fixed_point_rounds_sums_that_no_state_holds(dtype, bits, size, sign, path):
    """The three units end just below the middle of two numbers, at it and above it."""
    half = 2 ** (bits - 1)
    remainders = [[half - 1, half, half + 1]]
    kernel = np.array([[sign * size] * 3, *remainders], dtype)
    for timesteps in (1, 8):  # few steps are computed number by number
        given = {
            "inputs": np.full((1, timesteps, 2), [size, 1], dtype),
            "kernel": kernel,
            "recurrent_kernel": np.zeros((3, 3), dtype),
        }
        assert not assert_exact(given, fractional_bits=bits)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_sum_beyond_128_bits_is_no_small_number(policy, path):
    """2**128 and -2**128, of which the lowest 128 bits are 0."""
    low, high = limits("int64")
    for weights in ([low] * 4, [high] * 4 + [4]):
        given = {
            "inputs": np.full((1, 1, len(weights)), low),
            "kernel": np.array(weights)[:, None],
            "recurrent_kernel": np.zeros((1, 1), "int64"),
        }
        assert assert_exact(given, overflow=policy) == (policy == "raise")


@pytest.mark.parametrize("input_dtype", INPUT_DTYPES)
@pytest.mark.parametrize("weights", ["int8", "int32", "int64"])
def test_inputs_of_every_dtype_are_widened(weights, input_dtype, path, rng):
    state = "int64" if weights == "int64" else "int32"
    if (state, input_dtype) == ("int32", "int64"):
        return  # refused: ops/test_integer_rnn_errors.py
    # A step of the reference takes some 10 ms, and none differs from the first ones.
    timesteps = 5 if path == "reference" else 40
    for features in (1, 3):
        given = arguments(
            rng,
            features=features,
            units=features,
            timesteps=timesteps,
            dtype=state,
            weight_dtype=weights,
            input_dtype=input_dtype,
        )
        given["mask"][:] = True
        assert_exact(given, overflow="wrap", return_sequences=True)
        assert_exact(given, overflow="saturate")


@pytest.mark.parametrize("units", [1, 3, 40])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_a_sequence_can_be_split_at_any_step(units, reverse, kernel_path, rng):
    given = arguments(rng, timesteps=23, units=units, features=units % 39)
    del given["mask"]
    options = {"reverse": reverse, "return_sequences": True, "overflow": "wrap"}
    whole = ops.integer_rnn(**given, **options).numpy()
    inputs = given.pop("inputs")
    for step in range(24):
        cut = 23 - step if reverse else step
        parts = [inputs[:, :cut], inputs[:, cut:]]
        first, second = parts[::-1] if reverse else parts
        begin = ops.integer_rnn(first, **given, **options).numpy()
        state = ops.integer_rnn(
            first, **given, **{**options, "return_sequences": False}
        )
        if step:
            np.testing.assert_array_equal(state, begin[:, -1])
        rest = {**given, "initial_state": state}
        end = ops.integer_rnn(second, **rest, **options).numpy()
        np.testing.assert_array_equal(np.concatenate([begin, end], 1), whole)


def test_nothing_to_compute(path):
    kernel, recurrent = np.ones((2, 3), "int32"), np.eye(3, dtype="int32")
    initial = np.arange(6, dtype="int32").reshape(2, 3)
    empty = np.zeros((2, 0, 2), "int32")
    last = ops.integer_rnn(empty, kernel, recurrent, initial_state=initial)
    np.testing.assert_array_equal(last, initial)
    assert not ops.integer_rnn(empty, kernel, recurrent).numpy().any()
    states = ops.integer_rnn(empty, kernel, recurrent, return_sequences=True)
    assert states.shape == (2, 0, 3)
    none = ops.integer_rnn(empty[:0], kernel, recurrent)
    assert (none.shape, none.dtype) == ((0, 3), "int32")


def test_a_masked_step_keeps_the_state_and_cannot_overflow(path):
    high = limits("int32")[1]
    given = {
        "inputs": np.array([[[1], [high], [2]]], "int32"),
        "kernel": np.ones((1, 1), "int32"),
        "recurrent_kernel": np.ones((1, 1), "int32"),
        "mask": np.array([[True, False, True]]),
    }
    states = ops.integer_rnn(**given, return_sequences=True)
    np.testing.assert_array_equal(states[0, :, 0], [1, 1, 3])
    given["mask"][0, 0] = given["mask"][0, 2] = False
    assert not ops.integer_rnn(**given).numpy().any()


def test_the_first_batch_entry_that_overflows_is_named(kernel_path, threads):
    """And its first step, not the one that came first in time."""
    high = 2**31 - 1
    for features in (1, 2):
        inputs = np.zeros((300, 50, features), "int32")
        inputs[7, [30, 32, 40], 0] = high, high, -1
        inputs[123:, 3:5, 0] = high
        weights = np.ones((features, 1), "int32"), np.ones((1, 1), "int32")
        for number in (1, 2, 5):
            threads(number)
            with pytest.raises(OverflowError, match=r"entry 7 at timestep 32\b"):
                ops.integer_rnn(inputs, *weights)
            with pytest.raises(OverflowError, match=r"entry 7 at timestep 30\b"):
                ops.integer_rnn(inputs, *weights, reverse=True)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    shape=st.tuples(
        st.integers(0, 5), st.integers(0, 80), st.integers(1, 9), st.integers(1, 20)
    ),
    types=st.sampled_from([("int32", "int8"), ("int32", "int32"), ("int64", "int64")]),
    input_dtype=st.sampled_from(INPUT_DTYPES),
    size=st.sampled_from([1, 3, 100, 2**15, 2**31, None]),
    weight_size=st.sampled_from([1, 2, 100, 2**15 - 1, 2**15, None]),
    diagonal=st.booleans(),
    activation=st.sampled_from(ACTIVATIONS),
    policy=st.sampled_from(POLICIES),
    reverse=st.booleans(),
    sequences=st.booleans(),
    masked=st.booleans(),
    bits=st.sampled_from([0, 0, 0, 4, 31]),
    seed=st.integers(0, 2**32 - 1),
)
def test_anything_is_exact(
    shape, types, input_dtype, size, weight_size, diagonal, activation, policy,
    reverse, sequences, masked, bits, seed,
):  # fmt: skip
    rng = np.random.default_rng(seed)
    dtype, weight_dtype = types
    if (dtype, input_dtype) == ("int32", "int64"):
        input_dtype = "int32"
    given = arguments(
        rng, *shape, dtype, weight_dtype, input_dtype, size, weight_size or size
    )
    if diagonal:
        given["recurrent_kernel"] *= np.eye(shape[3], dtype=weight_dtype)
    if not masked:
        del given["mask"]
    options = options_of(rng, dtype, activation=activation)
    options |= {"reverse": reverse, "return_sequences": sequences}
    assert_exact(given, overflow=policy, fractional_bits=bits, **options)


def test_a_graph_computes_and_raises_the_same(path, rng):
    for size in (9, None):
        given = arguments(rng, dtype="int64", input_dtype="int64", size=size)
        for sequences in (False, True):
            outside = assert_exact(
                given,
                in_a_graph,
                tf.errors.InvalidArgumentError,
                return_sequences=sequences,
            )
            assert outside == (size is None)
