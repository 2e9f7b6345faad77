"""Any shape, any integers and any options, drawn by Hypothesis, against the formula."""

import integer_formula
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hw3tf import reference

INPUT_DTYPES = ("bool", "int8", "uint8", "int16", "int32", "int64")


def integers(dtype, shape):
    """Arrays of a dtype: all of its range, small numbers, its limits."""
    if dtype == "bool":
        return arrays.arrays(dtype, shape)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    elements = st.one_of(
        st.integers(max(low, -3), 3),
        st.sampled_from([low, high]),
        st.integers(low, high),
    )
    return arrays.arrays(dtype, shape, elements=elements)


@st.composite
def calls(draw):
    """(tensors, options) of a call."""
    dtype, weight_dtype = draw(
        st.sampled_from([("int32", "int8"), ("int32", "int32"), ("int64", "int64")])
    )
    batch_size, timesteps = draw(st.integers(0, 3)), draw(st.integers(0, 5))
    features, units = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    input_dtype = draw(st.sampled_from(INPUT_DTYPES))
    tensors = {
        "inputs": integers(input_dtype, (batch_size, timesteps, features)),
        "kernel": integers(weight_dtype, (features, units)),
        "recurrent_kernel": integers(weight_dtype, (units, units)),
    }
    for name, strategy in (
        ("bias", integers(dtype, (units,))),
        ("initial_state", integers(dtype, (batch_size, units))),
        ("mask", arrays.arrays(bool, (batch_size, timesteps))),
    ):
        if draw(st.booleans()):
            tensors[name] = strategy
    tensors = {name: draw(strategy) for name, strategy in tensors.items()}
    activation = draw(st.sampled_from([None, "relu", "sign", "clip"]))
    low, high = sorted(draw(st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 2)))
    options = {
        "activation": activation,
        "clip": (low, high) if activation == "clip" else None,
        "reverse": draw(st.booleans()),
        "return_sequences": draw(st.booleans()),
        "overflow": draw(st.sampled_from(["raise", "wrap", "saturate"])),
        "fractional_bits": draw(st.sampled_from([0, 0, 1, 8, 16, 31])),
    }
    return tensors, options


# derandomize: the same examples in every run; on a busy machine drawing is slow.
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(calls())
def test_any_call_is_the_formula(call):
    tensors, options = call
    try:
        want = integer_formula.integer_rnn(**tensors, **options)
    except integer_formula.OverflowAtError as place:
        where = f"in batch entry {place.batch_entry} at timestep {place.timestep}\\."
        with pytest.raises(OverflowError, match=where):
            reference.integer_rnn(**tensors, **options)
        return
    got = reference.integer_rnn(**tensors, **options)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)
