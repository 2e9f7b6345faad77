"""`hw3tf.reference.integer_rnn` against Python integers. Equality, never closeness."""

import re

import integer_formula
import numpy as np
import pytest
import tensorflow as tf
from integer_rnn_cases import ACTIVATIONS, INPUT_DTYPES, POLICIES, limits
from pairwise import pairwise

from hw3tf import reference

FRACTIONAL_BITS = [0, 1, 15, 16, 17, 31]
BATCH, TIMESTEPS, FEATURES, UNITS = 3, 5, 2, 4


def integers(rng, shape, dtype, size=None):
    """Uniform over the dtype, or over -size..size, edges among them."""
    low, high = limits(dtype)
    if size is not None:
        low, high = max(low, -size), min(high, size)
    values = rng.integers(low, high, shape, "int64", endpoint=True)
    edges = rng.choice([low, high, 0], shape)
    return np.where(rng.random(shape) < 0.2, edges, values).astype(dtype)


def arguments(rng, dtype, weight_dtype=None, input_dtype="int16", size=None):
    """Arrays of a call with a bias, an initial state and a mask."""
    weight_dtype = weight_dtype or dtype
    return {
        "inputs": integers(rng, (BATCH, TIMESTEPS, FEATURES), input_dtype, size),
        "kernel": integers(rng, (FEATURES, UNITS), weight_dtype, size),
        "recurrent_kernel": integers(rng, (UNITS, UNITS), weight_dtype, size),
        "bias": integers(rng, (UNITS,), dtype, size),
        "initial_state": integers(rng, (BATCH, UNITS), dtype, size),
        "mask": rng.random((BATCH, TIMESTEPS)) < 0.7,
    }


def in_a_graph(given, **options):
    """The call in a graph that knows neither batch size nor number of steps."""
    unknown = {"inputs": [None, None, FEATURES], "mask": [None, None]}
    unknown["initial_state"] = [None, UNITS]
    specs = {
        name: tf.TensorSpec(unknown.get(name, x.shape), x.dtype)
        for name, x in given.items()
    }

    @tf.function(input_signature=[specs], autograph=False)
    def graph(given):
        return reference.integer_rnn(**given, **options)

    return graph(given)


def assert_is_the_formula(given, graph=False, **options):
    """The same states, or OverflowError that names the same place."""
    tensors = {name: tf.constant(x) for name, x in given.items()}
    try:
        want = integer_formula.integer_rnn(**given, **options)
    except integer_formula.OverflowAtError as place:
        where = rf"in batch entry {place.batch_entry} at timestep {place.timestep}\."
        with pytest.raises(OverflowError, match=where):
            reference.integer_rnn(**tensors, **options)
        if graph:
            with pytest.raises(tf.errors.InvalidArgumentError, match=where):
                in_a_graph(tensors, **options)
        return
    results = [reference.integer_rnn(**tensors, **options)]
    if graph:
        results.append(in_a_graph(tensors, **options))
    for got in results:
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


OPTIONS = pairwise(
    {
        "activation": ACTIVATIONS,
        "overflow": POLICIES,
        "reverse": [False, True],
        "return_sequences": [False, True],
    }
)


@pytest.mark.parametrize(
    "options", OPTIONS, ids=lambda x: "-".join(map(str, x.values()))
)
def test_every_pair_of_options_is_the_formula(options, rng):
    options = {**options, "clip": (-5, 7) if options["activation"] == "clip" else None}
    given = arguments(rng, "int32", size=20)
    assert_is_the_formula(given, **options, graph=True)
    huge = arguments(rng, "int32")
    assert_is_the_formula(huge, **options, graph=options["activation"] is None)


@pytest.mark.parametrize("overflow", POLICIES)
@pytest.mark.parametrize("fractional_bits", FRACTIONAL_BITS)
@pytest.mark.parametrize("dtypes", [("int32", "int32"), ("int32", "int8"), ("int64",)])
def test_whole_range_of_the_dtypes_is_the_formula(
    dtypes, fractional_bits, overflow, rng
):
    """Weights, states and inputs of any size: sums of 68 or 130 bits. Inputs are wide
    and narrow in turn, each with every two of the other values."""
    options = {"overflow": overflow, "fractional_bits": fractional_bits}
    turn = FRACTIONAL_BITS.index(fractional_bits) + POLICIES.index(overflow)
    turn += len(dtypes) + (dtypes[-1] == "int8")
    input_dtype = (dtypes[0], "int8")[turn % 2]
    given = arguments(rng, *dtypes, input_dtype=input_dtype)
    assert_is_the_formula(given, **options, return_sequences=True)


@pytest.mark.parametrize("fractional_bits", [32, 47, 48, 63])
def test_long_shifts_are_the_formula(fractional_bits, rng):
    given = arguments(rng, "int64", input_dtype="int64")
    for overflow in POLICIES:
        assert_is_the_formula(given, overflow=overflow, fractional_bits=fractional_bits)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("input_dtype", INPUT_DTYPES)
def test_every_input_dtype_is_widened_exactly(input_dtype, dtype, rng):
    """int64 into an int32 state, too: what the weight leaves of it fits or not."""
    size = 1000 if input_dtype == "int64" else None
    given = arguments(rng, dtype, input_dtype=input_dtype, size=None)
    given["inputs"] = integers(rng, given["inputs"].shape, input_dtype, size)
    for name in ("kernel", "recurrent_kernel", "bias", "initial_state"):
        given[name] = np.sign(given[name])
    given["kernel"] *= np.array([[1], [0]], dtype)
    assert_is_the_formula(given)
    assert_is_the_formula(given, overflow="wrap")


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_edge_of_the_range_is_met_exactly(dtype):
    """One below the limit passes, one above does not, on both sides; what counts is
    the sum, not its parts."""
    low, high = integer_formula.limits(dtype)
    for x, outcome in (
        ([high - 3, 2, 1], high),
        ([high - 3, 2, 2], 2),
        ([low + 3, -2, -1], low),
        ([low + 3, -2, -2], 2),
        ([high, 1], 1),
        ([0, high, -1, 2], 3),
    ):
        given = {
            "inputs": np.array(x, dtype).reshape(1, -1, 1),
            "kernel": np.ones((1, 1), dtype),
            "recurrent_kernel": np.ones((1, 1), dtype),
        }
        if abs(outcome) < 10:
            with pytest.raises(OverflowError, match=f"entry 0 at timestep {outcome}"):
                reference.integer_rnn(**given)
        else:
            assert reference.integer_rnn(**given) == outcome
    # Two products of twice the limit that cancel.
    given = {
        "inputs": np.array([[[high, high]]], dtype),
        "kernel": np.array([[high], [-high]], dtype),
        "recurrent_kernel": np.zeros((1, 1), dtype),
        "bias": np.array([7], dtype),
    }
    assert reference.integer_rnn(**given) == 7


def test_first_batch_entry_and_its_first_step_are_named():
    """In the order of the steps taken, as an index into the inputs; a masked step
    does not overflow."""
    x = np.zeros((3, 6, 1), "int64")
    x[1, [1, 4]] = x[2, 0] = 2**62
    ones = np.ones((1, 1), "int64")
    options = {"kernel": ones, "recurrent_kernel": ones}
    for reverse, mask, where in (
        (False, None, (1, 4)),
        (True, None, (1, 1)),
        (False, np.arange(6) != 4, None),
    ):
        if mask is not None:
            mask = np.broadcast_to(mask, x.shape[:2])
        call = {"inputs": x, **options, "mask": mask, "reverse": reverse}
        if where is None:
            assert reference.integer_rnn(**call)[1, 0] == 2**62
            continue
        with pytest.raises(
            OverflowError, match="entry {} at timestep {}".format(*where)
        ):
            reference.integer_rnn(**call)
        _, steps = reference.integer_rnn_and_overflow(**call)
        np.testing.assert_array_equal(steps, [-1, where[1], -1])


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("cut", range(TIMESTEPS + 1))
def test_a_cut_sequence_is_the_whole(cut, reverse, rng):
    """Without steps (cut 0 and 5) the state is the initial one."""
    given = arguments(rng, "int64")
    options = {"overflow": "wrap", "reverse": reverse}
    whole = reference.integer_rnn(**given, **options)
    parts = [slice(cut), slice(cut, None)]
    for part in reversed(parts) if reverse else parts:
        now = {name: given[name][:, part] for name in ("inputs", "mask")}
        given["initial_state"] = reference.integer_rnn(**{**given, **now}, **options)
    np.testing.assert_array_equal(given["initial_state"], whole)


def test_empty_batch_and_sequence_have_their_shapes():
    w, u = np.ones((2, 3), "int32"), np.ones((3, 3), "int32")
    for batch_size, timesteps in ((0, 4), (2, 0), (0, 0)):
        x = np.zeros((batch_size, timesteps, 2), "int8")
        assert reference.integer_rnn(x, w, u).shape == (batch_size, 3)
        states = reference.integer_rnn(x, w, u, return_sequences=True)
        assert states.shape == (batch_size, timesteps, 3)


GOOD = {
    "inputs": np.zeros((2, 3, 4), "int8"),
    "kernel": np.zeros((4, 5), "int32"),
    "recurrent_kernel": np.zeros((5, 5), "int32"),
}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"inputs": np.zeros((2, 3, 4))}, r"`inputs` .*dtype bool or .*float64"),
        ({"inputs": np.zeros((2, 3, 4), "complex64")}, "`inputs` .*complex64"),
        ({"inputs": np.zeros((2, 3), "int8")}, r"`inputs` .*\(batch, .*\(2, 3\)"),
        ({"kernel": np.zeros((3, 5), "int32")}, r"`kernel` .*\(4, 5\).*\(3, 5\)"),
        ({"kernel": np.zeros((4, 5), "float32")}, "`kernel` .*float32"),
        ({"recurrent_kernel": np.zeros((5, 4), "int32")}, r"\(5, 5\).*\(5, 4\)"),
        ({"recurrent_kernel": np.zeros((5, 5), "int64")}, "dtype int8 or int64. .*32"),
        ({"bias": np.zeros((4,), "int32")}, r"`bias` .*\(5,\). .*\(4,\)"),
        ({"bias": np.zeros((5,), "int64")}, "`bias` .*dtype int32. .*int64"),
        ({"initial_state": np.zeros((3, 5), "int32")}, r"\(2, 5\). .*\(3, 5\)"),
        ({"mask": np.ones((2, 4), "bool")}, r"`mask` .*\(2, 3\). .*\(2, 4\)"),
        ({"mask": np.ones((2, 3), "int32")}, "`mask` must have dtype bool"),
        ({"overflow": "ignore"}, "`overflow` must be one of .*'ignore'"),
        ({"activation": "tanh"}, "`activation` must be one of .*'tanh'"),
        ({"activation": "clip"}, "`clip` must be a pair of integers.*clip=None"),
        ({"activation": "clip", "clip": (3, 2)}, r"clip=\(3, 2\)"),
        ({"activation": "clip", "clip": (0, 2**31)}, "range of int32"),
        ({"clip": (0, 1)}, "`clip` must be None unless activation='clip'"),
        ({"fractional_bits": 32}, "from 0 to 31"),
        ({"fractional_bits": True}, "from 0 to 31"),
    ],
    ids=lambda x: str(x)[:30] if isinstance(x, str) else None,
)
def test_bad_input_is_named(bad, message):
    error = TypeError if re.search("dtype|float|complex", message) else ValueError
    with pytest.raises(error, match=message):
        reference.integer_rnn(**{**GOOD, **bad})
