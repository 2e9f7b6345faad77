"""A batch of 1 beside a batch of B, no keys at all, lengths of 64 bits."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from formula import attention
from option_checks import EPS, make_arrays, run

from hw3tf import _core, ops, reference

BATCH = 3
SHARED = [
    shared
    for count in (1, 2)
    for shared in itertools.combinations(("query", "key", "value"), count)
]


def shared_arrays(rng, shared, query_length=5, key_length=7):
    """Arrays of which those in `shared` have a batch of 1."""
    arrays = make_arrays(rng, BATCH, query_length, key_length, 4, 2, 8, 6)
    return arrays | {name: arrays[name][:1] for name in shared}


def options_of(rng, query_length=5, key_length=7):
    return {
        "key_mask": rng.random((BATCH, key_length)) < 0.7,
        "query_lengths": np.array([query_length, 0, 3], "int32"),
        "dropout_rate": 0.25,
        "dropout_seed": 7,
    }


def repeated(arrays):
    """The same call, written out: what has a batch of 1 is repeated."""
    return {
        n: np.broadcast_to(x, (BATCH, *x.shape[1:])).copy() for n, x in arrays.items()
    }


def summed(results, arrays):
    """Results of the repeated call: gradients of what was repeated are summed."""
    return {
        n: x.sum(axis=0, keepdims=True)
        if n.startswith("grad_") and len(arrays[n[5:]]) == 1
        else x
        for n, x in results.items()
    }


# Eagerly on every path; the graphs take the paths in turn. XLA cannot call Python.
MODES = [("eager", path) for path in ("op", "pybind", "reference")]
IN_TURN = {"graph": ("op", "pybind", "reference"), "xla": ("reference", "op")}
PLACES = [
    pytest.param(shared, mode, path, id=f"{'-'.join(shared)}-{mode}-{path}")
    for i, shared in enumerate(SHARED)
    for mode, path in [*MODES, *((m, p[i % len(p)]) for m, p in IN_TURN.items())]
]


@functools.cache  # for all modes and paths
def case_and_truth(shared):
    """Arrays and options, and results of the call with the arrays repeated."""
    rng = np.random.default_rng(0)
    arrays, options = shared_arrays(rng, shared), options_of(rng)
    judge = run(reference.dot_product_attention, repeated(arrays), "float64", options)
    return arrays, options, summed(judge, arrays)


@pytest.mark.parametrize(("shared", "mode", "path"), PLACES)
def test_a_batch_of_1_serves_every_batch_entry(shared, mode, path, monkeypatch):
    """Values and gradients are those of the call with the arrays repeated, in graphs of
    unknown batch, too."""
    monkeypatch.setenv("HW3TF_PATH", path)
    arrays, options, truth = case_and_truth(shared)
    graph = {"graph": mode != "eager", "jit_compile": mode == "xla"}
    got = run(ops.dot_product_attention, arrays, "float32", options, **graph)
    for name, want in truth.items():
        assert got[name].shape == want.shape
        finite = np.isfinite(want)  # the logsumexp of a query that sees no key is not
        np.testing.assert_array_equal(got[name][~finite], want[~finite])
        size = np.abs(want[finite]).max()
        np.testing.assert_allclose(
            got[name][finite], want[finite], atol=32 * EPS["float32"] * size
        )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_a_gradient_is_summed_in_any_dtype(dtype, kernel_path, rng):
    """A sum of BATCH gradients, each rounded once to `dtype`, and rounded once more."""
    arrays = shared_arrays(rng, ("query", "key"))
    got = run(ops.dot_product_attention, arrays, dtype, {})
    parts = run(ops.dot_product_attention, repeated(arrays), dtype, {})
    want = summed(parts, arrays)
    for name in ("grad_query", "grad_key"):
        np.testing.assert_allclose(
            got[name], want[name], atol=EPS[dtype] * np.abs(want[name]).max()
        )
    np.testing.assert_array_equal(got["output"], want["output"])


def test_threads_change_no_bit_of_a_summed_gradient(rng):
    def normal(*shape):
        return rng.standard_normal(shape, "float32")

    query, key = normal(1, 300, 4, 32), normal(6, 257, 4, 32)
    results = []
    try:
        for threads in (1, 2, 5):
            ops.set_num_threads(threads)
            forward = _core.attention_forward(query, key, key, scale=0.2)
            grads = _core.attention_backward(
                query, key, key, *forward[:2], forward[0], scale=0.2
            )
            results.append([*forward, *grads[:3]])
    finally:
        ops.set_num_threads(0)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_masks_and_lengths_of_a_batch_of_1(path, rng):
    """They serve every batch entry, whatever the batches of the arrays."""
    arrays = shared_arrays(rng, ("query",))
    query, key, value = (
        tf.constant(arrays[n], "float32") for n in ("query", "key", "value")
    )
    one = {
        "query_mask": rng.random((1, 5)) < 0.7,
        "key_mask": rng.random((1, 7)) < 0.7,
        "query_lengths": np.array([4], "int32"),
        "key_lengths": np.array([5], "int32"),
    }
    every = {n: np.repeat(x, BATCH, axis=0) for n, x in one.items()}
    got = ops.dot_product_attention(query, key, value, **one)
    want = ops.dot_product_attention(query, key, value, **every)
    np.testing.assert_array_equal(got, want)
    padding = ops.dot_product_attention(
        query, key, value, mask=one["key_mask"][:, None, None]
    )
    want = ops.dot_product_attention(query, key, value, key_mask=every["key_mask"])
    np.testing.assert_array_equal(padding, want)


def test_batches_of_0_and_1(path):
    one, none = tf.ones((1, 3, 2, 4)), tf.ones((0, 3, 2, 4))
    assert ops.dot_product_attention(one, none, none).shape == (0, 3, 2, 4)
    assert ops.dot_product_attention(none, one, one).shape == (0, 3, 2, 4)


@pytest.mark.parametrize("sizes", [(1, 3, 3), (3, 1, 3), (None, 1, 3), (None, None, 1)])
def test_symbolic_batches(sizes):
    query, key, value = (
        keras.KerasTensor((size, 5, 2, 4), name=str(i)) for i, size in enumerate(sizes)
    )
    shape = ops.dot_product_attention(query, key, value).shape
    assert shape == (3 if 3 in sizes else None, 5, 2, 4)


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_without_keys_the_output_is_zeros(mode, path, rng):
    """As Keras's own: a sum over nothing. The gradients are zeros, too."""
    if mode == "xla" and path == "pybind":
        pytest.skip("XLA cannot call Python")
    arrays = make_arrays(rng, 2, 5, 0, 4, 2, 8, 6)
    arrays["bias"] = rng.standard_normal((1, 4, 5, 1))
    graph = {"graph": mode != "eager", "jit_compile": mode == "xla"}
    options = {"key_mask": np.ones((2, 0), bool)}
    got = run(ops.dot_product_attention, arrays, "float32", options, **graph)
    assert got["output"].shape == (2, 5, 4, 6)
    assert np.isneginf(got.pop("logsumexp")).all()
    assert got["grad_query"].shape == (2, 5, 4, 8)
    for name, x in got.items():
        assert not x.any(), name
    query, none = np.ones((2, 5, 2, 8), "float32"), np.ones((2, 0, 2, 8), "float32")
    np.testing.assert_array_equal(
        keras.ops.dot_product_attention(query, none, none),
        ops.dot_product_attention(query, none, none),
    )


@pytest.mark.parametrize("dtype", ["int64", "uint32", "uint64"])
@pytest.mark.parametrize("name", ["query_lengths", "key_lengths"])
def test_lengths_of_64_bits_do_not_wrap(name, dtype, path):
    """2**32 + 2 is not 2."""
    x = tf.ones((2, 3, 1, 4))
    longest = 2**32 - 1 if dtype == "uint32" else 2**32 + 2
    lengths = np.array([3, longest], dtype)
    with pytest.raises(ValueError, match=rf"`{name}` must be .*\[1\]={longest}"):
        ops.dot_product_attention(x, x, x, **{name: lengths})


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_lengths_of_64_bits_do_not_wrap_in_a_graph(dtype, kernel_path):
    x = tf.ones((2, 3, 1, 4))

    @tf.function
    def attend(lengths):
        return ops.dot_product_attention(x, x, x, key_lengths=lengths)

    with pytest.raises(tf.errors.InvalidArgumentError, match=r"`key_lengths` must be"):
        attend(tf.constant([3, 2**32 + 2], dtype))
    np.testing.assert_array_equal(attend(tf.constant([3, 2], dtype)), x)


def test_lengths_of_64_bits_do_not_wrap_in_the_reference():
    value = np.arange(3.0).reshape(1, 3, 1, 1)
    x = np.zeros((1, 3, 1, 1))
    got = reference.dot_product_attention(x, x, value, key_lengths=[2**32 + 2])
    want, _, _ = attention(x, x, value)
    np.testing.assert_allclose(got, want)


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 1.5, True])
def test_seeds_of_the_dropout_mask_are_integers_of_64_bits(seed):
    with pytest.raises(ValueError, match="`seed` must be an integer of 64 bits"):
        ops.attention_dropout_mask(1, 1, 1, 1, rate=0.5, seed=seed)
