"""Calls of the integer recurrence for the tests, and their judge: Python integers."""

import re

import integer_formula
import numpy as np
import pytest
import tensorflow as tf

from hw3tf import ops

POLICIES = ("raise", "wrap", "saturate")
ACTIVATIONS = (None, "relu", "sign", "clip")
INPUT_DTYPES = ("bool", "int8", "uint8", "int16", "int32", "int64")


def limits(dtype):
    """The smallest and the largest value of an integer dtype, or of bool."""
    return (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)


def integers(rng, shape, dtype, size=None):
    """Uniform over the dtype, or over -size..size, with its edges among them."""
    low, high = limits(dtype)
    if size is not None:
        low, high = max(low, -size), min(high, size)
    values = rng.integers(low, high, shape, "int64", endpoint=True)
    edges = rng.choice([low, high], shape)
    return np.where(rng.random(shape) < 0.1, edges, values).astype(dtype)


def arguments(
    rng,
    batch=3,
    timesteps=5,
    features=2,
    units=4,
    dtype="int32",
    weight_dtype=None,
    input_dtype="int16",
    size=None,
    weight_size=None,
):
    """Arrays of a call with a bias, an initial state and a mask."""
    weight_dtype = weight_dtype or dtype
    weight_size = weight_size or size
    return {
        "inputs": integers(rng, (batch, timesteps, features), input_dtype, size),
        "kernel": integers(rng, (features, units), weight_dtype, weight_size),
        "recurrent_kernel": integers(rng, (units, units), weight_dtype, weight_size),
        "bias": integers(rng, (units,), dtype, size),
        "initial_state": integers(rng, (batch, units), dtype, size),
        "mask": rng.random((batch, timesteps)) < 0.7,
    }


def assert_exact(given, function=ops.integer_rnn, error=OverflowError, **options):
    """The states of Python integers, or the same overflow; returns whether there
    is one."""
    try:
        want = integer_formula.integer_rnn(**given, **options)
    except integer_formula.OverflowAtError as at:
        place = f"batch entry {at.batch_entry} at timestep {at.timestep}"
        with pytest.raises(error, match=re.escape(place) + r"\b"):
            function(**given, **options)
        return True
    got = function(**given, **options)
    assert got.dtype == want.dtype
    assert tuple(got.shape) == want.shape
    np.testing.assert_array_equal(got, want)
    return False


def in_a_graph(jit_compile=None, **call):
    """`ops.integer_rnn` in a graph that knows neither batch size nor timesteps."""
    unknown = {"inputs": (0, 1), "mask": (0, 1), "initial_state": (0,)}
    given = {k: x for k, x in call.items() if isinstance(x, np.ndarray)}
    options = {k: x for k, x in call.items() if k not in given}
    specs = {}
    for name, x in given.items():
        shape = list(x.shape)
        for axis in unknown.get(name, ()):
            shape[axis] = None
        specs[name] = tf.TensorSpec(shape, x.dtype)

    @tf.function(input_signature=[specs], autograph=False, jit_compile=jit_compile)
    def graph(given):
        states = ops.integer_rnn(**given, **options)
        steps = [None] if options.get("return_sequences") else []
        units = given["recurrent_kernel"].shape[-1]
        assert states.shape.as_list() == [None, *steps, units]
        return states

    return graph({k: tf.constant(x) for k, x in given.items()})
