"""Values and gradients on JAX, to compare with the kernel's own."""

import jax
import jax.numpy as jnp
import keras
import numpy as np


def results_and_grads(function, arrays, upstream, dtype="float32"):
    """Results and gradients, lists of arrays.

    Args:
        function: Of the tensors: a tuple of results.
        arrays: Arrays by the names of the arguments.
        upstream: The gradients of the results.
        dtype: What the tensors are cast to.
    """
    tensors = {name: jnp.asarray(x, dtype) for name, x in arrays.items()}
    results, pull = jax.vjp(lambda tensors: tuple(function(**tensors)), tensors)
    grads = pull(
        tuple(jnp.asarray(g, r.dtype) for g, r in zip(upstream, results, strict=True))
    )[0]
    return [np.asarray(x) for x in (*results, *(grads[name] for name in arrays))]


def assert_same_bits(got, want):
    """Of lists of arrays; a NaN is a NaN."""
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        assert a.dtype == b.dtype, i
        np.testing.assert_array_equal(a, b, err_msg=str(i))


def numpy(x):
    return keras.ops.convert_to_numpy(x)
