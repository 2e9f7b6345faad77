"""Calls of XLA that do not fit the descriptions: errors, and no byte beyond an array.

hw3tf makes no such calls. An exported function that somebody edits may."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw3tf.ops.fronts import ffi

X = jnp.ones((2, 3, 4, 8))
SEED = jnp.zeros(2, "int32")
SHAPES = [((2, 3, 4, 8), "float32"), ((2, 4, 3, 2), "float32"), ((2, 4, 3), "float32")]
GIVEN = {"given": np.int64(0b111)}


def call(operands=(SEED, X, X, X), results=SHAPES, **attributes):
    assert not ffi.ffi_error()
    types = [jax.ShapeDtypeStruct(*result) for result in results]
    run = ffi.jax_ffi.ffi_call("hw3tf_attention", types)
    return jax.block_until_ready(run(*operands, **{**GIVEN, **attributes}))


def test_a_call_that_fits_runs():
    np.testing.assert_allclose(call()[0], np.ones((2, 3, 4, 8)), rtol=1e-6)


def changed(results, at, shape, dtype="float32"):
    return [*results[:at], (shape, dtype), *results[at + 1 :]]


WRONG = {
    "no-given": ({"given": "all"}, "a call lacks `given`"),
    "too-few-arrays": ({"operands": (SEED, X, X)}, "another number of arrays"),
    "too-many-arrays": ({"operands": (SEED, X, X, X, X)}, "another number of arrays"),
    "no-arrays": ({"operands": (), "given": np.int64(0)}, "`query` is not given"),
    "no-value": ({"operands": (SEED, X, X), "given": np.int64(3)}, "`value` is not"),
    "half-a-seed": ({"operands": (SEED[:1], X, X, X)}, "must be two words of int32"),
    "short-seed": ({"operands": (SEED.astype("int16"), X, X, X)}, "two words of int32"),
    "too-few-results": ({"results": SHAPES[:2]}, "another number of arrays"),
    "ranks-differ": ({"operands": (SEED, X[None], X, X)}, "must be two words"),
    "seed-lacks-an-axis": (
        {
            "operands": (SEED[0], *[X[None]] * 3),
            "results": [((1, *shape), dtype) for shape, dtype in SHAPES],
        },
        "lacks an axis of vmap",
    ),
    "axes-of-vmap-differ": (
        {
            "operands": (SEED[None], jnp.stack([X, X, X]), X[None], jnp.stack([X, X])),
            "results": [((3, *shape), dtype) for shape, dtype in SHAPES],
        },
        "different axes of vmap",
    ),
    "results-of-vmap-differ": (
        {
            "operands": (SEED[None], *[X[None]] * 3),
            "results": [
                ((n, *x), d) for n, (x, d) in zip((5, 1, 5), SHAPES, strict=True)
            ],
        },
        "different axes of vmap",
    ),
    "no-axes": ({"operands": (SEED, X[0, 0], X, X)}, "`query` must have 4 axes"),
    "small-result": (
        {"results": changed(SHAPES, 0, (2, 3, 4, 7))},
        r"`output` must have shape \(2, 3, 4, 8\)",
    ),
    "narrow-result": (
        {"results": changed(SHAPES, 0, (2, 3, 4, 8), "bfloat16")},
        "`output` must have dtype float32",
    ),
    "narrow-statistics": (
        {"results": changed(SHAPES, 1, (2, 4, 3, 2), "float16")},
        "`statistics` must have dtype float32",
    ),
    "types-differ": (
        {"operands": (SEED, X, X.astype("bfloat16"), X)},
        "`key` must have dtype float32",
    ),
    "integers": (
        {"operands": (SEED, *[X.astype("int32")] * 3)},
        "has a dtype that attention does not know",
    ),
    "complex": (
        {"operands": (SEED, *[X.astype("complex64")] * 3)},
        "has a dtype that attention does not know",
    ),
    "heads": (
        {"operands": (SEED, X, X[:, :, :3], X[:, :, :3])},
        "a number of heads that divides",
    ),
    "rate": ({"dropout_rate": np.float64(1.5)}, "`dropout_rate` must be"),
    "word": ({"is_causal": np.float32(1)}, "`is_causal` has no type"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_call_that_does_not_fit_is_refused(name):
    wrong, words = WRONG[name]
    with pytest.raises(Exception, match=words):
        call(**wrong)


def test_a_word_that_is_not_known_is_refused():
    x, w = jnp.ones((1, 2, 3), "int32"), jnp.ones((3, 3), "int32")
    run = ffi.jax_ffi.ffi_call(
        "hw3tf_integer_rnn", jax.ShapeDtypeStruct((1, 3), "int32")
    )
    with pytest.raises(Exception, match="`overflow` must be one of 'raise'"):
        jax.block_until_ready(run(x, w, w, **GIVEN, overflow="ignore"))
