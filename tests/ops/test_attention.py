"""`hw3tf.ops.dot_product_attention` against the exact result, on all paths."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from checks import (
    LENGTHS,
    assert_as_close_as_keras,
    exact,
    keras_float32,
    make_inputs,
    with_gradients,
)

from hw3tf import ops


def check(inputs, terms=1.0, **options):
    got = with_gradients(ops.dot_product_attention, *inputs, **options)
    masks = {k: options.pop(k, None) for k in ("query_mask", "key_mask")}
    mask = options.pop("mask", None)
    if masks["key_mask"] is not None:
        mask = masks["key_mask"][:, None, None, :]
    if masks["query_mask"] is not None:
        rows = masks["query_mask"][:, None, :, None]
        mask = rows if mask is None else mask & rows
    options["mask"] = mask
    truth, plain = exact(*inputs, **options), keras_float32(*inputs, **options)
    assert_as_close_as_keras(got, truth, plain, str(options), terms)


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("masked", [False, True], ids=["all-keys", "padded"])
@pytest.mark.parametrize("length", LENGTHS)
def test_self_attention_is_as_exact_as_keras(length, masked, is_causal, rng):
    key_mask = None
    if masked:
        key_mask = np.arange(length) < np.array([[length], [(length + 1) // 2]])
    inputs = make_inputs(rng, 2, length, length, 2, 2, 16, 16)
    check(inputs, key_mask=key_mask, is_causal=is_causal)


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize(
    ("query_length", "key_length"), [(1, 300), (300, 1), (17, 97), (129, 40), (40, 129)]
)
def test_cross_attention_is_as_exact_as_keras(
    query_length, key_length, is_causal, path, rng
):
    check(
        make_inputs(rng, 2, query_length, key_length, 2, 2, 24, 24),
        is_causal=is_causal,
    )


@pytest.mark.parametrize(
    ("size", "value_dim"), [(1, 1), (4, 12), (17, 5), (20, 20), (64, 80), (128, 3)]
)
def test_head_sizes_are_as_exact_as_keras(size, value_dim, path, rng):
    check(make_inputs(rng, 1, 50, 70, 3, 3, size, value_dim), is_causal=True)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (6, 3), (4, 1)])
def test_grouped_heads_are_as_exact_as_keras(heads, kv_heads, path, rng):
    key_mask = rng.random((2, 150)) < 0.6
    inputs = make_inputs(rng, 2, 90, 150, heads, kv_heads, 16, 8)
    check(inputs, key_mask=key_mask)


@pytest.mark.parametrize("scale", [None, 1.0, 0.01, 3.0, np.float32(0.3), -0.5, 0.0])
def test_scale_is_applied(scale, kernel_path, rng):
    check(make_inputs(rng, 1, 33, 65, 2, 2, 8, 8), scale=scale)


def test_long_sequences_are_as_exact_as_keras(rng):
    check(make_inputs(rng, 1, 1500, 1700, 1, 1, 32, 32), is_causal=True)


@pytest.mark.parametrize("size", [30.0, 1e3])
def test_large_scores_are_as_exact_as_keras(size, kernel_path, rng):
    """Scores in the hundreds and ten thousands: one key takes all."""
    query, key, value, grad = make_inputs(rng, 1, 64, 300, 2, 2, 16, 16)
    check((query * np.float32(size), key, value, grad))


def test_rising_scores_are_as_exact_as_keras(kernel_path, rng):
    """The largest score comes last: the running maximum is raised in every
    tile, and everything accumulated before is rescaled."""
    query, key, value, grad = make_inputs(rng, 1, 40, 400, 1, 1, 8, 8)
    query[..., 0], key[..., 0] = 8.0, np.linspace(-60, 60, 400)[None, :, None]
    check((query, key, value, grad))


def test_low_first_scores_do_not_underflow(kernel_path, rng):
    """All scores near -3000: the maximum must follow the first visible key."""
    query, key, value, grad = make_inputs(rng, 1, 40, 200, 1, 1, 8, 8)
    query[..., 0], key[..., 0] = 100.0, -90.0
    check((query, key, value, grad), is_causal=True)


def test_gradients_match_finite_differences(kernel_path, rng):
    """Against the function itself, not against another implementation."""
    query, key, value, grad = make_inputs(rng, 1, 5, 6, 2, 1, 4, 3)
    key_mask = np.array([[True, True, False, True, True, True]])
    options = {"key_mask": key_mask, "is_causal": True}

    def loss(q, k, v):
        output = ops.dot_product_attention(q, k, v, **options).numpy()
        return float((output.astype("float64") * grad).sum())

    grads = with_gradients(
        ops.dot_product_attention, query, key, value, grad, **options
    )[1:]
    inputs = [query, key, value]
    # A step of 1e-2 balances its own error, 1e-4 of the third derivative, and
    # that of float32, 1e-6 / 1e-2.
    step = np.float32(1e-2)
    for which, x in enumerate(inputs):
        for index in np.ndindex(x.shape):
            up, down = x.copy(), x.copy()
            up[index] += step
            down[index] -= step
            around = [
                loss(*inputs[:which], y, *inputs[which + 1 :]) for y in (up, down)
            ]
            slope = (around[0] - around[1]) / (2 * step)
            assert abs(slope - grads[which][index]) < 1e-3


def test_signature_is_that_of_keras():
    """Names, kinds and defaults; Keras gives no types."""
    theirs, ours = (
        [
            p.replace(annotation=p.empty)
            for p in inspect.signature(f).parameters.values()
        ]
        for f in (keras.ops.dot_product_attention, ops.dot_product_attention)
    )
    assert theirs == ours[: len(theirs)]
    added = ours[len(theirs) :]
    assert all(p.kind is p.KEYWORD_ONLY and not p.default for p in added)


def test_mixed_dtypes_are_promoted(rng):
    query, key, value, _ = make_inputs(rng, 1, 5, 6, 1, 1, 4, 4)
    output = ops.dot_product_attention(
        tf.constant(query, "float16"), tf.constant(key), tf.constant(value)
    )
    assert output.dtype == "float32"
