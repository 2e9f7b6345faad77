"""`hw3tf.reference`, the judge of the kernels, against formulas in NumPy."""

import formula
import keras
import numpy as np
import pytest
import tensorflow as tf

from hw3tf import reference

BATCH, QUERIES, KEYS, HEADS, KV_HEADS, SIZE, VALUE_DIM = 2, 6, 7, 4, 2, 5, 3


def make_inputs(rng):
    return [
        rng.standard_normal(shape)
        for shape in (
            (BATCH, QUERIES, HEADS, SIZE),
            (BATCH, KEYS, KV_HEADS, SIZE),
            (BATCH, KEYS, KV_HEADS, VALUE_DIM),
        )
    ]


def option(name, rng):
    """Keyword arguments that turn the option `name` on."""
    arrays = {
        "bias": rng.standard_normal((HEADS, QUERIES, 1)),
        "mask": rng.random((1, HEADS, QUERIES, KEYS)) < 0.6,
        "query_mask": rng.random((BATCH, QUERIES)) < 0.7,
        "key_mask": rng.random((BATCH, KEYS)) < 0.6,
        "query_lengths": np.array([4, QUERIES]),
        "key_lengths": np.array([0, 5]),
    }
    values = {
        "scale": -0.7,
        "is_causal": True,
        "attn_logits_soft_cap": 1.5,
        "sliding_window": 2,
        "dropout_rate": 0.4,
    }
    if name == "dropout_rate":
        return {"dropout_rate": 0.4, "dropout_seed": 9}
    return {name: {**arrays, **values}[name]}


NAMES = [
    "bias",
    "mask",
    "query_mask",
    "key_mask",
    "query_lengths",
    "key_lengths",
    "scale",
    "is_causal",
    "attn_logits_soft_cap",
    "sliding_window",
    "dropout_rate",
]


def expected(inputs, options):
    options = dict(options)
    if "dropout_seed" in options:
        options["keep"] = formula.dropout_mask(
            BATCH, HEADS, QUERIES, KEYS, 0.4, options.pop("dropout_seed")
        )
    return formula.attention(*inputs, **options)


def options_of(names, rng):
    merged = {}
    for name in names:
        merged |= option(name, rng)
    return merged


PAIRS = [(a, b) for i, a in enumerate(NAMES) for b in NAMES[i:]]


@pytest.mark.parametrize("names", [*PAIRS, NAMES], ids="-".join)
def test_every_pair_of_options_is_the_formula(names, rng):
    """float64, up to its rounding: numbers of size 1, sums of at most 7."""
    inputs, options = make_inputs(rng), options_of(names, rng)
    got = reference.dot_product_attention(
        *inputs, **options, return_logsumexp=True, return_attention_scores=True
    )
    for x, y in zip(got, expected(inputs, options), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-13)


@pytest.mark.parametrize("names", [[], *([n] for n in NAMES), NAMES], ids="-".join)
def test_gradients_are_slopes_of_the_formula(names, rng):
    """Along a random direction, of output, logsumexp and scores at once."""
    inputs, options = make_inputs(rng), options_of(names, rng)
    bias = options.pop("bias", None)
    arrays = inputs if bias is None else [*inputs, bias]
    factors = [rng.standard_normal(x.shape) for x in expected(inputs, options)]

    def total(results, seen):
        logsumexp = np.where(seen, results[1], 0.0)
        return sum(
            np.sum(factor * x)
            for factor, x in zip(
                factors, (results[0], logsumexp, results[2]), strict=True
            )
        )

    def loss(arrays):
        results = expected(arrays[:3], {**options, "bias": (*arrays, None)[3]})
        return total(results, np.isfinite(results[1]))

    tensors = [tf.constant(x) for x in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        results = reference.dot_product_attention(
            *tensors, **options, return_logsumexp=True, return_attention_scores=True
        )
        seen = tf.math.is_finite(results[1])
        logsumexp = tf.where(seen, results[1], 0.0)
        value = sum(
            tf.reduce_sum(factor * x)
            for factor, x in zip(
                factors, (results[0], logsumexp, results[2]), strict=True
            )
        )
    grads = tape.gradient(value, tensors)
    step = 1e-5  # its own error 1e-10 of the third derivative, rounding 1e-15 / 1e-5
    for which, x in enumerate(arrays):
        direction = rng.standard_normal(x.shape)
        up, down = list(arrays), list(arrays)
        up[which], down[which] = x + step * direction, x - step * direction
        slope = (loss(up) - loss(down)) / (2 * step)
        np.testing.assert_allclose(np.sum(grads[which] * direction), slope, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("is_causal", [False, True])
def test_what_keras_can_do_is_keras(is_causal, dtype, rng):
    inputs = [tf.cast(x, dtype) for x in make_inputs(rng)]
    options = option("bias", rng) | option("mask", rng)
    got = reference.dot_product_attention(*inputs, **options, is_causal=is_causal)
    want = keras.ops.dot_product_attention(*inputs, **options, is_causal=is_causal)
    assert got.dtype == want.dtype == dtype
    # Two softmaxes in float32, rounded to the dtype: the last bit may differ.
    eps = {"float32": 1e-6, "bfloat16": 2e-2, "float16": 2e-3}[dtype]
    np.testing.assert_allclose(
        tf.cast(got, "float64"), tf.cast(want, "float64"), atol=eps
    )


def test_scores_from_the_logsumexp_are_the_softmax(rng):
    """`attention_scores`, which the kernel paths use, and its gradients."""
    inputs, options = make_inputs(rng), options_of(NAMES, rng)
    for name in ("dropout_rate", "dropout_seed"):
        del options[name]
    bias, scale, cap = (
        options.pop(n) for n in ("bias", "scale", "attn_logits_soft_cap")
    )
    query, key, value = map(tf.constant, inputs)
    factor = rng.standard_normal((BATCH, HEADS, QUERIES, KEYS))
    results = []
    for from_logsumexp in (True, False):
        with tf.GradientTape() as tape:
            tape.watch([query, key])
            _, logsumexp, scores = reference.dot_product_attention(
                query,
                key,
                value,
                bias,
                scale=scale,
                attn_logits_soft_cap=cap,
                **options,
                return_logsumexp=True,
                return_attention_scores=True,
            )
            if from_logsumexp:
                logits = reference.attention_logits(query, key, bias, scale, cap)
                visible = reference.visible_keys(logits, **options)
                scores = reference.attention_scores(logits, visible, logsumexp)
            loss = tf.reduce_sum(scores * factor)
        results.append([scores, *tape.gradient(loss, [query, key])])
    for x, y in zip(*results, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-13)


def ragged(rng, lengths, *inner):
    return tf.RaggedTensor.from_row_lengths(
        rng.standard_normal((sum(lengths), *inner)), lengths
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True, "sliding_window": 2},
        {"attn_logits_soft_cap": 1.5, "scale": 0.3},
    ],
    ids=str,
)
def test_ragged_is_one_sequence_after_the_other(options, rng):
    """Empty sequences of queries and of keys, and queries that see no key: the
    window of the last query of the second sequence lies behind its keys."""
    query_lengths, key_lengths = [3, 9, 0, 4, 1], [5, 2, 3, 0, 6]
    query = ragged(rng, query_lengths, HEADS, SIZE)
    key = ragged(rng, key_lengths, KV_HEADS, SIZE)
    value = ragged(rng, key_lengths, KV_HEADS, VALUE_DIM)
    tensors = [query.values, key.values, value.values]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        got = reference.ragged_dot_product_attention(
            *(
                x.with_values(v)
                for x, v in zip((query, key, value), tensors, strict=True)
            ),
            **options,
        )
        loss = tf.reduce_sum(got.values**2)
    for grad in tape.gradient(loss, tensors):
        assert np.isfinite(tf.convert_to_tensor(grad)).all()
    np.testing.assert_array_equal(got.row_lengths(), query_lengths)
    for b, (length, others) in enumerate(zip(query_lengths, key_lengths, strict=True)):
        if not others:
            assert not np.any(got[b])
        elif length:
            want = formula.attention(
                query[b][None], key[b][None], value[b][None], **options
            )[0]
            np.testing.assert_allclose(got[b], want[0], atol=1e-13)
