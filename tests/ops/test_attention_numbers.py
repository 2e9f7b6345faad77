"""Difficult numbers: huge scores, infinities, NaN, and 16,384 positions."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from option_checks import EPS, check, make_arrays, run

from hw3tf import ops, reference

SIZES = (1, 40, 150, 2, 2, 16, 16)


def with_scores(arrays, scores):
    """The same call with other scores: `scores`, `(keys,)`, for every query."""
    query, key = arrays["query"] * 0, arrays["key"] * 0
    query[..., 0], key[..., 0] = 1.0, np.reshape(scores, (1, -1, 1))
    # Something for the gradients of query and key to depend on.
    query[..., 1], key[..., 1] = arrays["query"][..., 1], arrays["key"][..., 1]
    return {**arrays, "query": query, "key": key}


POSITIONS = np.arange(150)
SCORES = {
    "1e4": np.full(150, 1e4),
    "-1e4": np.full(150, -1e4),
    "both": np.where(POSITIONS % 2, 1e4, -1e4),
    "alternating-in-size": np.linspace(-1e4, 1e4, 150) * (-1.0) ** POSITIONS,
    "rising": np.linspace(-1e4, 1e4, 150),
    "falling": np.linspace(1e4, -1e4, 150),
    "one-dominant-first": np.where(POSITIONS == 0, 1e4, 0),
    "one-dominant-last": np.where(POSITIONS == 149, 1e4, 0),
    "one-dominant": np.where(POSITIONS == 70, 100.0, 0),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("name", SCORES)
def test_extreme_scores_are_as_exact_as_keras(name, dtype, rng):
    arrays = with_scores(make_arrays(rng, *SIZES), SCORES[name])
    check(arrays, dtype, {"scale": 1.0})
    # The same scores through the bias: the maximum is kept after scale and cap.
    arrays["bias"] = np.broadcast_to(SCORES[name], (1, 1, 1, 150))
    check(arrays, dtype, {"scale": 0.5, "is_causal": True})


@pytest.mark.parametrize("value_dim", [1, 5, 8, 19])
@pytest.mark.parametrize("rise", [100.0, 1e4])
def test_rising_scores_are_as_exact_as_keras_with_any_size_of_values(
    rise, value_dim, rng
):
    """What was added up under an old maximum is scaled anew, in rows or in columns,
    which depends on the size of the values."""
    arrays = make_arrays(rng, *SIZES[:-1], value_dim)
    check(with_scores(arrays, np.linspace(0, rise, 150)), options={"scale": 1.0})


def test_extreme_scores_in_float16_are_as_exact_as_keras(rng):
    """Up to 6e4, the largest score that Keras itself can hold in float16."""
    arrays = with_scores(make_arrays(rng, *SIZES), SCORES["both"] * 6)
    check(arrays, "float16", {"scale": 1.0})


@pytest.mark.parametrize("value", [0.0, 3.5, -7.0])
def test_equal_scores_give_the_mean(value, path, rng):
    arrays = with_scores(make_arrays(rng, *SIZES), np.full(150, value))
    arrays["query"][..., 1] = 0
    got = run(ops.dot_product_attention, arrays, "float32", {"scale": 1.0})
    mean = arrays["value"].mean(axis=1, keepdims=True)
    np.testing.assert_allclose(got["output"], mean.repeat(40, 1), atol=1e-6)
    np.testing.assert_allclose(got["logsumexp"], value + np.log(150), atol=1e-6)


@pytest.mark.parametrize("cap", [0.01, 1.0, 30.0])
def test_cap_far_below_the_scores_is_as_exact_as_keras(cap, path, rng):
    arrays = make_arrays(rng, *SIZES)
    arrays["query"] *= 100
    check(arrays, options={"attn_logits_soft_cap": cap})


@pytest.mark.parametrize("scores_in", ["float32", "bfloat16"])
def test_scores_of_extreme_logits_are_those_of_keras(scores_in, kernel_path, rng):
    """From the logsumexp of the kernel, which at 1e4 is rounded to 1e-3."""
    query, key, value, *_ = make_arrays(rng, *SIZES).values()
    tensors = [tf.cast(x, scores_in) for x in (query * 1e3, key, value)]
    exact, plain = (
        reference.dot_product_attention(
            *(tf.cast(x, d) for x in tensors), return_attention_scores=True
        )[1]
        for d in ("float64", scores_in)
    )
    got = ops.dot_product_attention(*tensors, return_attention_scores=True)[1]
    error, allowed = (np.abs(tf.cast(x, "float64") - exact).max() for x in (got, plain))
    assert error <= 2 * allowed
    # Sums of 150 weights of at most 1, as exact as the dtype.
    total = np.sum(tf.cast(got, "float64"), axis=-1)
    np.testing.assert_allclose(total, 1, atol=4 * EPS[scores_in])


def test_minus_infinity_in_a_bias_is_a_mask(path, rng):
    """In a query that sees something else; in one that does not, NaN as in Keras."""
    arrays = make_arrays(rng, *SIZES)
    mask = rng.random((1, 2, 40, 150)) < 0.5
    mask[0, :, 5] = False
    mask[0, :, 5, 149] = True
    masked = run(ops.dot_product_attention, arrays, "float32", {"mask": mask})
    arrays["bias"] = np.where(mask, 0.0, -np.inf)
    biased = run(ops.dot_product_attention, arrays, "float32", {})
    for name, x in masked.items():
        # The same sums with zeros between their terms: other pairs may be added.
        np.testing.assert_allclose(biased[name], x, atol=1e-5, err_msg=name)
    assert np.isfinite(biased["grad_bias"]).all()
    arrays["bias"][0, :, 7] = -np.inf
    output = run(ops.dot_product_attention, arrays, "float32", {})["output"]
    assert np.isnan(output[0, 7]).all()
    assert np.isfinite(np.delete(output, 7, axis=1)).all()
    theirs = keras.ops.dot_product_attention(
        *(arrays[n] for n in ("query", "key", "value")), arrays["bias"]
    )
    np.testing.assert_array_equal(np.isnan(theirs), np.isnan(output))


@pytest.mark.parametrize("bias", [np.nan, np.inf])
def test_nan_or_infinity_in_a_bias_stays_in_its_query(bias, path, rng):
    arrays = make_arrays(rng, *SIZES)
    arrays["bias"] = np.zeros((1, 2, 40, 150))
    arrays["bias"][0, 1, 3, 100] = bias
    output = run(ops.dot_product_attention, arrays, "float32", {})["output"]
    assert np.isnan(output[0, 3, 1]).all()
    output[0, 3, 1] = 0
    assert np.isfinite(output).all()


HIDING = {
    "mask": lambda hidden: {"mask": ~hidden[None, None]},
    "mask-of-heads": lambda hidden: {"mask": np.stack([~hidden] * 2)[None]},
    "key_mask": lambda hidden: {"key_mask": ~hidden[:1]},
    "key_lengths": lambda hidden: {"key_lengths": [int((~hidden[0]).sum())]},
    "sliding_window": lambda hidden: {"sliding_window": 60},
    "is_causal": lambda hidden: {"is_causal": True},
}


def hidden_keys(name):
    """(queries, keys): what the option of that name hides."""
    queries, keys = np.arange(40)[:, None], np.arange(150)
    if name == "key_lengths":
        return np.broadcast_to(keys >= 97, (40, 150))
    if name == "sliding_window":
        return abs(queries - keys) >= 60
    if name == "is_causal":
        return keys > queries
    return np.broadcast_to(keys % 3 == 1, (40, 150))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", HIDING)
def test_what_is_hidden_does_not_reach_the_result(name, bad, dtype, kernel_path, rng):
    """NaN in keys, values and bias where no query sees them, forward and backward.
    The results stay up to the order of their sums: a tile with such values is
    multiplied row by row."""
    hidden = hidden_keys(name)
    options = HIDING[name](hidden)
    arrays = make_arrays(rng, *SIZES)
    arrays["bias"] = rng.standard_normal((1, 2, 40, 150))
    clean = run(ops.dot_product_attention, arrays, dtype, options)
    nowhere = hidden.all(axis=0)
    assert nowhere.any()
    arrays["key"][:, nowhere] = bad
    arrays["value"][:, nowhere] = bad
    arrays["bias"][:, :, hidden] = bad
    dirty = run(ops.dot_product_attention, arrays, dtype, options)
    for of, x in clean.items():
        atol = 8 * EPS[dtype] * np.abs(x).max()
        np.testing.assert_allclose(dirty[of], x, atol=atol, rtol=0, err_msg=of)


@pytest.mark.parametrize("where", ["query", "key", "value"])
@pytest.mark.parametrize("name", ["sliding_window", "is_causal", "mask"])
def test_nan_reaches_exactly_those_who_see_it(name, where, kernel_path, rng):
    hidden = hidden_keys(name)
    arrays = make_arrays(rng, *SIZES)
    at = 20
    arrays[where][0, at, :, 3] = np.nan
    output = run(ops.dot_product_attention, arrays, "float32", HIDING[name](hidden))
    touched = np.isnan(output["output"]).any(axis=(0, 2, 3))
    expected = ~hidden[:, at]
    if where == "query":
        expected = np.arange(40) == at
    np.testing.assert_array_equal(touched, expected)


def test_all_nan_gives_nan(path):
    x = tf.fill((1, 5, 2, 4), np.nan)
    assert np.isnan(ops.dot_product_attention(x, x, x, sliding_window=2)).all()


LONG = 16384


def long_judge(q, k, v, g, visible, rows, keys):
    """float64, 512 queries at a time: the output and grad_query of the queries
    `rows`, grad_key and grad_value of `keys`; every query counts in the latter."""
    scale = q.shape[1] ** -0.5
    grad_key, grad_value = np.zeros((2, len(keys), q.shape[1]))
    output, grad_query = np.zeros((2, *q.shape))
    for start in range(0, LONG, 512):
        at = slice(start, start + 512)
        sees = visible(np.arange(start, start + 512)[:, None], np.arange(LONG))
        seen = np.flatnonzero(sees.any(axis=0))
        seen = slice(seen[0], seen[-1] + 1)
        x = np.where(sees[:, seen], scale * (q[at] @ k[seen].T), -np.inf)
        np.exp(x - x.max(axis=1, keepdims=True), out=x)
        x /= x.sum(axis=1, keepdims=True)
        output[at] = x @ v[seen]
        delta = np.sum(g[at] * output[at], axis=1, keepdims=True)
        mine = [r - start for r in rows if start <= r < start + 512]
        slope = x[mine] * (g[at][mine] @ v[seen].T - delta[mine])
        grad_query[at][mine] = scale * slope @ k[seen]
        some = (seen.start <= keys) & (keys < seen.stop)
        weights = x[:, keys[some] - seen.start]
        slope = weights * (g[at] @ v[keys[some]].T - delta)
        grad_key[some] += scale * slope.T @ q[at]
        grad_value[some] += weights.T @ g[at]
    return output[rows], grad_query[rows], grad_key, grad_value


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("lengths", "heads", "options"),
    [
        ((1100, 20), (1, 1), {}),
        ((1100, 600), (1, 1), {"is_causal": True}),
        ((40, 3000), (1, 1), {}),
        ((900, 900), (2, 1), {"sliding_window": 60}),
    ],
    ids=["few-keys", "causal", "few-queries", "window"],
)
def test_what_is_cut_for_many_threads_is_as_exact_as_keras(
    lengths, heads, options, dtype, rng
):
    """Ranges of queries, split keys, and the chunks of a window."""
    check(make_arrays(rng, 1, *lengths, *heads, 8, 8), dtype, options)


@pytest.mark.parametrize(
    ("options", "visible"),
    [
        ({}, lambda t, s: (t >= 0) & (s >= 0)),
        (
            {"is_causal": True, "sliding_window": 1000, "key_lengths": [15500]},
            lambda t, s: (s <= t) & (t - s < 1000) & (s < 15500),
        ),
    ],
    ids=["full", "causal-window-lengths"],
)
def test_long_sequences_are_as_exact_as_keras(options, visible, monkeypatch, rng):
    """The judge computes all scores in chunks; Keras, in float32, only the rows
    that are compared: the rows of its matrix do not depend on each other. Sums
    over all queries, of grad_key and grad_value, have 8 of their units more."""
    monkeypatch.setenv("HW3TF_PATH", "op")
    arrays = make_arrays(rng, 1, LONG, LONG, 1, 1, 16, 16)
    del arrays["grad_logsumexp"]
    arrays = {n: x.astype("float32") for n, x in arrays.items()}
    rows = np.unique(np.r_[0, 1, LONG - 1, rng.integers(0, 15000, 20)])
    keys = np.unique(np.r_[0, 14999, rng.integers(0, 15000, 20)])
    got = run(ops.dot_product_attention, arrays, "float32", options)
    exact = long_judge(
        *(x[0, :, 0].astype("float64") for x in arrays.values()), visible, rows, keys
    )
    few = {n: arrays[n][:, rows] for n in ("query", "grad_output")}
    mask = visible(rows[:, None], np.arange(LONG))
    plain = run(
        keras.ops.dot_product_attention, arrays | few, "float32", {"mask": mask}
    )
    for name, at, truth in (
        ("output", rows, exact[0]),
        ("grad_query", rows, exact[1]),
        ("grad_key", keys, exact[2]),
        ("grad_value", keys, exact[3]),
    ):
        error = np.abs(got[name][0, at, 0] - truth).max()
        bound = 8 * EPS["float32"] * np.abs(truth).max()
        if at is rows:
            bound = 2 * np.abs(plain[name][0, :, 0] - truth).max() + bound / 2
        assert error <= bound, f"{name}: error {error:.2e} > {bound:.2e}"
