"""Few queries against many keys: the paths that read every key once."""

import numpy as np
import pytest
from option_checks import assert_threads_change_no_bit, check, make_arrays, run

from hw3tf import ops

# Queries, keys, heads, key/value heads. Up to 4 rows of queries per key/value head
# go by chunks of keys over all heads; more of them, or terms, cut the keys into
# parts where heads are few; around the chunk (256), its lanes, and the part (1024).
SHAPES = [
    (1, 513, 2, 2),
    (1, 4096, 3, 3),
    (2, 1031, 4, 2),
    (4, 777, 1, 1),
    (1, 2047, 8, 2),
    (5, 2048, 2, 2),
    (1, 2500, 16, 1),
    (16, 3000, 2, 1),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("queries", "keys", "heads", "kv_heads"), SHAPES)
def test_few_queries_are_as_exact_as_keras(queries, keys, heads, kv_heads, dtype, rng):
    arrays = make_arrays(rng, 2, queries, keys, heads, kv_heads, 40, 24)
    check(arrays, dtype, {})
    check(arrays, dtype, {"key_lengths": np.array([keys, keys // 3])})


OPTIONS = {
    "scale": {"scale": -0.7},
    "equal": {"scale": 0.0},
    "soft-cap": {"attn_logits_soft_cap": 3.0},
    "dropout": {"dropout_rate": 0.3, "dropout_seed": 11},
    "window": {"sliding_window": 1500},
    "causal": {"is_causal": True},
    "no-keys": {"key_lengths": np.array([0, 2300])},
    "one-key": {"key_lengths": np.array([1, 1025])},
    "no-query": {"query_lengths": np.array([0, 2])},
}


@pytest.mark.parametrize("queries", [2, 7])
@pytest.mark.parametrize("name", OPTIONS)
def test_few_queries_take_every_option(name, queries, rng):
    arrays = make_arrays(rng, 2, queries, 2300, 2, 1, 16, 16)
    check(arrays, "float32", OPTIONS[name])
    arrays["bias"] = rng.standard_normal((1, 2, queries, 2300))
    check(arrays, "float32", OPTIONS[name])


def test_masked_parts_of_the_keys_do_not_count(rng):
    """A part without a visible key, and a query that sees none in any."""
    arrays = make_arrays(rng, 1, 6, 4096, 1, 1, 16, 16)
    mask = np.ones((1, 1, 6, 4096), bool)
    mask[..., 1024:2048] = False
    mask[:, :, 3] = False
    check(arrays, "float32", {"mask": mask})
    got = run(ops.dot_product_attention, arrays, "float32", {"mask": mask})
    mean = arrays["value"].mean(axis=1)
    np.testing.assert_allclose(got["output"][:, 3], mean, atol=1e-6)
    assert got["logsumexp"][0, 0, 3] == -np.inf


@pytest.mark.parametrize(("queries", "keys", "heads", "kv_heads"), SHAPES)
def test_bits_do_not_depend_on_threads(queries, keys, heads, kv_heads, rng):
    arrays = make_arrays(rng, 1, queries, keys, heads, kv_heads, 64, 64)
    assert_threads_change_no_bit(arrays, "float32", {})


def test_nan_in_a_key_reaches_all_queries_of_its_head(rng):
    arrays = make_arrays(rng, 1, 1, 2000, 2, 2, 16, 16)
    arrays["key"][0, 1234, 1, 3] = np.nan
    output = run(ops.dot_product_attention, arrays, "float32", {})["output"]
    assert np.isnan(output[0, :, 1]).all()
    assert np.isfinite(output[0, :, 0]).all()


def test_a_part_without_weight_does_not_count(rng):
    """Keys that a bias of -infinity takes away, all those of a part among them."""
    arrays = make_arrays(rng, 1, 6, 4096, 1, 1, 16, 16)
    arrays["bias"] = rng.standard_normal((1, 1, 6, 4096))
    arrays["bias"][..., 1000:2100] = -np.inf
    check(arrays, "float32", {})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("decodes", [True, False], ids=["decode", "split"])
def test_a_value_without_weight_reaches_only_its_feature(decodes, bad, rng):
    """0 * NaN and 0 * infinity are NaN, in a part without any weight, too. The odd
    queries give the part weight, so that tiles are computed a second time."""
    queries = 1 if decodes else 6
    arrays = make_arrays(rng, 1, queries, 4096, 1, 1, 16, 16)
    want = run(ops.dot_product_attention, arrays, "float32", {})["output"]
    arrays["value"][0, 1500, 0, 3] = bad
    if decodes:
        arrays["query"][..., 0], arrays["key"][..., 0] = 1.0, 0.0
        arrays["key"][0, 1000:2100, 0, 0] = -np.inf
        weightless = [0]
    else:
        arrays["bias"] = np.zeros((1, 1, queries, 4096))
        arrays["bias"][:, :, ::2, 1000:2100] = -np.inf
        weightless = [0, 2, 4]
    got = run(ops.dot_product_attention, arrays, "float32", {})["output"][0, :, 0]
    assert np.isnan(got[weightless, 3]).all()
    others = np.delete(got, 3, axis=-1)
    assert np.isfinite(others).all()
    odd = np.delete(np.arange(queries), weightless)
    assert np.array_equal(np.isnan(got[odd, 3]), np.full(len(odd), bad != np.inf))
    np.testing.assert_allclose(
        others[odd], np.delete(want[0, :, 0], 3, axis=-1)[odd], atol=1e-6
    )


def test_no_weight_in_any_part_is_nan(rng):
    arrays = make_arrays(rng, 1, 6, 4096, 1, 1, 16, 16)
    arrays["value"][0, 1500, 0, 3] = np.nan
    arrays["bias"] = np.full((1, 1, 1, 4096), -np.inf)
    got = run(ops.dot_product_attention, arrays, "float32", {})
    assert np.isnan(got["output"]).all()
    assert np.isnan(got["logsumexp"]).all()
