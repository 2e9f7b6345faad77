"""Masked keys and queries, queries that see nothing, and NaN."""

import numpy as np
import pytest
import tensorflow as tf
from checks import (
    TILES,
    assert_as_close_as_keras,
    exact,
    keras_float32,
    make_inputs,
    with_gradients,
)
from option_checks import check, make_arrays

from hw3tf import ops
from hw3tf.ops.attention.call import AttentionCall
from hw3tf.ops.attention.options import AttentionOptions, kernel_options


def fused(inputs, **options):
    return with_gradients(ops.dot_product_attention, *inputs, **options)


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
def test_first_tile_fully_masked_is_as_exact_as_keras(is_causal, path, rng):
    length = 3 * TILES["key_tile"]
    inputs = make_inputs(rng, 1, length, length, 2, 2, 8, 8)
    mask = (np.arange(length) >= TILES["key_tile"] + 5)[None, None, None, :]
    got = fused(inputs, mask=mask, is_causal=is_causal)
    options = {"mask": mask, "is_causal": is_causal}
    assert_as_close_as_keras(
        got, exact(*inputs, **options), keras_float32(*inputs, **options)
    )


def test_query_without_visible_key_gets_the_mean_of_all_values(path, rng):
    query, key, value, grad = make_inputs(rng, 2, 40, 150, 2, 2, 8, 8)
    key_mask = np.stack([np.zeros(150, bool), np.arange(150) >= 20])
    output, grad_query, grad_key, grad_value = fused(
        (query, key, value, grad), key_mask=key_mask, is_causal=True
    )
    mean = value.astype("float64").mean(axis=1)
    # Entry 0 sees nothing; of entry 1, the queries before position 20.
    for b, t in [(0, 0), (0, 39), (1, 0), (1, 19)]:
        np.testing.assert_allclose(output[b, t], mean[b], atol=1e-6)
    assert not grad_query[0].any()
    assert not grad_query[1, :20].any()
    assert grad_query[1, 21:].any()
    assert not grad_key[0].any()
    assert not grad_key[1, :20].any()
    np.testing.assert_allclose(
        grad_value[0, 7], grad[0].astype("float64").sum(axis=0) / 150, atol=1e-6
    )


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_mean_of_all_values_is_as_exact_as_keras(dtype, rng):
    arrays = make_arrays(rng, 2, 9, 20, 2, 2, 8, 8)
    del arrays["grad_logsumexp"]  # minus infinity where nothing is seen
    key_mask = np.arange(20) >= np.array([[20], [3]])
    check(arrays, dtype, {"key_mask": key_mask, "is_causal": True})


def test_masked_queries_get_the_mean_of_all_values(path, rng):
    inputs = make_inputs(rng, 1, 70, 30, 1, 1, 4, 4)
    query_mask = np.arange(70)[None] % 3 != 0
    output, grad_query, _, _ = fused(inputs, query_mask=query_mask)
    np.testing.assert_allclose(
        output[0, ::3, 0], np.tile(inputs[2][0, :, 0].mean(0), (24, 1)), atol=1e-6
    )
    assert not grad_query[0, ::3].any()


KEY_MASKS = [(2, 1, 1, 30), (1, 1, 1, 30), (30,), (1, 30), (2, 1, 1, 1)]
QUERY_MASKS = [(2, 1, 20, 1), (1, 1, 20, 1)]
OTHER_MASKS = [(2, 2, 20, 30), (20, 30), (1, 2, 1, 30), (2, 20, 1), (1, 1, 1, 1)]


@pytest.mark.parametrize("shape", KEY_MASKS + QUERY_MASKS + OTHER_MASKS)
def test_masks_of_any_shape_take_the_kernel(shape, kernel_path, rng):
    inputs = make_inputs(rng, 2, 20, 30, 2, 2, 8, 8)
    mask = rng.random(shape) < 0.7
    assert ops.attention_path(*inputs[:3], mask=mask).path == kernel_path
    got = fused(inputs, mask=mask)
    assert_as_close_as_keras(
        got, exact(*inputs, mask=mask), keras_float32(*inputs, mask=mask)
    )


@pytest.mark.parametrize("shape", KEY_MASKS + QUERY_MASKS + OTHER_MASKS)
def test_padding_reaches_the_kernel_as_such_and_nothing_is_expanded(shape, rng):
    query, key, value, _ = make_inputs(rng, 2, 20, 30, 2, 2, 8, 8)
    bias = tf.zeros(shape)
    asked = AttentionOptions(mask=rng.random(shape) < 0.7, bias=bias)
    call = AttentionCall(query, key, value, asked)
    options = kernel_options(call.options, call.query, call.key)
    assert [m is not None for m in (options.key_mask, options.query_mask)] == [
        shape in (*KEY_MASKS, (1, 1, 1, 1)),
        shape in QUERY_MASKS,
    ]
    given = options.bias if options.mask is None else options.mask
    assert given.shape == (1,) * (4 - len(shape)) + shape


def _structured(name, rng, queries=70, keys=200):
    """Masks whose tiles are all ones, all zeros or mixed, as (queries, keys)."""
    t, s = np.ogrid[:queries, :keys]
    band = np.broadcast_to(abs(s - 2 * t) < 40, (queries, keys))
    return {
        "ones": np.ones((queries, keys), bool),
        "causal": np.broadcast_to(s <= 2 * t + 2, (queries, keys)),
        "band": band,
        "band with holes": band & (rng.random((queries, keys)) < 0.8),
        "one hole": (t != 33) | (s != 130),
        "one key": np.broadcast_to(s == 3 * t % keys, (queries, keys)),
        "packed": t // 30 == s // 90,
    }[name]


@pytest.mark.parametrize(
    "name",
    ["ones", "causal", "band", "band with holes", "one hole", "one key", "packed"],
)
@pytest.mark.parametrize("bias", [False, True], ids=["mask", "mask-and-bias"])
def test_tiles_of_a_mask_that_are_whole_are_as_exact_as_keras(
    name, bias, kernel_path, rng
):
    inputs = make_inputs(rng, 2, 70, 200, 2, 2, 8, 8)
    options = {"mask": _structured(name, rng)[None, None]}
    if bias:
        options["bias"] = rng.standard_normal((1, 2, 70, 200), "float32")
    got = fused(inputs, **options)
    assert_as_close_as_keras(
        got, exact(*inputs, **options), keras_float32(*inputs, **options)
    )


@pytest.mark.parametrize("which", ["key", "value"])
def test_keys_that_no_query_of_a_tile_sees_do_not_reach_it(which, kernel_path, rng):
    query, key, value, grad = make_inputs(rng, 1, 70, 200, 2, 2, 8, 8)
    mask = _structured("band", rng)[None, None]
    clean = fused((query, key, value, grad), mask=mask)
    hidden = ~mask[0, 0].any(axis=0)
    assert hidden.any()
    (key if which == "key" else value)[0, hidden] = np.nan
    for x, y in zip(fused((query, key, value, grad), mask=mask), clean, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)


def test_masks_given_in_two_ways_are_combined(path, rng):
    inputs = make_inputs(rng, 2, 20, 30, 2, 2, 8, 8)
    one, other = rng.random((2, 2, 30)) < 0.7
    got = fused(inputs, mask=one[:, None, None, :], key_mask=other)
    want = fused(inputs, key_mask=one & other)
    for x, y in zip(got, want, strict=True):
        np.testing.assert_array_equal(x, y)


def test_numeric_mask_counts_nonzero_as_visible(path, rng):
    inputs = make_inputs(rng, 2, 20, 30, 2, 2, 8, 8)
    mask = rng.random((2, 1, 1, 30)) < 0.7
    got = fused(inputs, mask=mask.astype("int32") * 3)
    np.testing.assert_array_equal(got[0], fused(inputs, mask=mask)[0])


def test_nan_in_a_query_stays_in_its_row(path, rng):
    inputs = make_inputs(rng, 1, 100, 100, 1, 1, 4, 4)
    inputs[0][0, 3] = np.nan  # every score of query 3: looks like "fully masked"
    output = fused(inputs)[0]
    assert np.isnan(output[0, 3]).all()
    assert np.isfinite(np.delete(output, 3, axis=1)).all()


@pytest.mark.parametrize("which", ["key", "value"])
def test_nan_in_a_visible_key_reaches_every_query_that_sees_it(which, kernel_path, rng):
    length, at = 3 * TILES["key_tile"], TILES["key_tile"] + 3
    inputs = make_inputs(rng, 1, length, length, 1, 1, 4, 4)
    inputs[1 if which == "key" else 2][0, at] = np.nan
    output = fused(inputs, is_causal=True)[0]
    assert np.isnan(output[0, at:]).all()
    assert np.isfinite(output[0, :at]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_masked_does_not_reach_the_result(bad, kernel_path, rng):
    query, key, value, grad = make_inputs(rng, 1, 60, 200, 2, 2, 4, 4)
    key_mask = rng.random((1, 200)) < 0.6
    clean = fused((query, key, value, grad), key_mask=key_mask)
    key[0, ~key_mask[0]] = bad
    value[0, ~key_mask[0]] = bad
    dirty = fused((query, key, value, grad), key_mask=key_mask)
    # Numbers of size 1, in another order of their sums where NaN is near.
    for x, y in zip(clean, dirty, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)


def test_infinite_scores_give_nan_as_in_keras(kernel_path, rng):
    inputs = make_inputs(rng, 1, 4, 40, 1, 1, 4, 4)
    inputs[0][0, 1], inputs[1][0, 20] = 3e38, 3e38
    assert np.isnan(fused(inputs)[0][0, 1]).all()
    assert np.isnan(keras_float32(*inputs)[0][0, 1]).all()


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)], ids=["no-batch", "no-queries"])
def test_empty_queries_give_an_empty_result(shape, path):
    batch, query_length = shape
    query = tf.zeros((batch, query_length, 2, 4))
    key = tf.ones((batch, 7, 2, 4))
    with tf.GradientTape() as tape:
        tape.watch([query, key])
        output = ops.dot_product_attention(query, key, key)
    assert output.shape == query.shape
    grads = tape.gradient(output, [query, key])
    assert [g.shape for g in grads] == [query.shape, key.shape]
    assert not grads[1].numpy().any()
