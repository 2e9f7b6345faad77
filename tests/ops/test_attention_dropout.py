"""Dropout of attention weights: which and how many it drops, and its exact effect."""

import formula
import numpy as np
import pytest
import tensorflow as tf
from option_checks import make_arrays, run

from hw3tf import ops, reference

SIZES = (2, 19, 45, 4, 2, 8, 6)
SCORES = (2, 4, 19, 45)


def weights_of(seed, rate=0.4, length=45, **options):
    """The weights that the kernel really uses: the output where the values are
    the unit vectors, and the same without dropout."""
    rng = np.random.default_rng(0)
    query, key, *_ = make_arrays(rng, 2, 19, length, 4, 2, 8, 6).values()
    value = np.broadcast_to(np.eye(length)[:, None], (2, length, 2, length))
    inputs = [x.astype("float32") for x in (query, key, value)]
    dropped = ops.dot_product_attention(
        *inputs, dropout_rate=rate, dropout_seed=seed, **options
    )
    whole = ops.dot_product_attention(*inputs, **options)
    return [np.moveaxis(x.numpy(), 2, 1) for x in (dropped, whole)]


@pytest.mark.parametrize("seed", [0, 1, -1, 2**32 + 7, 2**64 - 1])
def test_mask_is_that_of_the_formula(seed):
    keep = ops.attention_dropout_mask(*SCORES, rate=0.4, seed=seed)
    assert keep.dtype == bool
    np.testing.assert_array_equal(keep, formula.dropout_mask(*SCORES, 0.4, seed))
    np.testing.assert_array_equal(
        keep, reference.attention_dropout_mask(*SCORES, 0.4, seed)
    )


@pytest.mark.parametrize("rate", [1e-12, 0.1, 0.999, np.nextafter(1.0, 0.0)])
def test_mask_of_any_rate_is_that_of_the_reference(rate):
    np.testing.assert_array_equal(
        ops.attention_dropout_mask(*SCORES, rate=rate, seed=3),
        reference.attention_dropout_mask(*SCORES, rate, 3),
    )


@pytest.mark.parametrize("length", [1, 3, 4, 45, 130])
@pytest.mark.parametrize("seed", [5, -(2**40)])
def test_exactly_the_weights_of_the_mask_are_dropped(seed, length, path):
    dropped, whole = weights_of(seed, length=length)
    keep = ops.attention_dropout_mask(2, 4, 19, length, rate=0.4, seed=seed)
    np.testing.assert_array_equal(dropped != 0, keep)
    # Exponentials of numbers of size 10, which are rounded to 1e-6.
    np.testing.assert_allclose(dropped, keep * whole / 0.6, rtol=5e-6)


def test_masked_weights_stay_masked_and_the_others_their_dropout(path, rng):
    """What dropout drops does not depend on the other options."""
    mask = rng.random((2, 1, 19, 45)) < 0.6
    mask[1, 0, 7] = False
    dropped, whole = weights_of(9, mask=mask, sliding_window=30)
    keep = ops.attention_dropout_mask(*SCORES, rate=0.4, seed=9)
    keep[1, :, 7] = True  # sees nothing: the mean, without dropout
    whole[1, :, 7] *= 0.6
    np.testing.assert_allclose(dropped[1, :, 7], 1 / 45, rtol=1e-6)
    np.testing.assert_allclose(dropped, keep * whole / 0.6, rtol=5e-6)


def test_given_the_mask_the_result_is_that_of_the_formula(path, rng):
    """With all options, in float64: numbers of size 1, sums of at most 45."""
    arrays = make_arrays(rng, *SIZES)
    arrays["bias"] = rng.standard_normal((4, 19, 1))
    options = {
        "key_lengths": np.array([45, 20]),
        "is_causal": True,
        "attn_logits_soft_cap": 2.0,
    }
    dropout = {"dropout_rate": 0.3, "dropout_seed": 123}
    got = run(ops.dot_product_attention, arrays, "float64", options | dropout)
    want = formula.attention(
        *(arrays[n] for n in ("query", "key", "value", "bias")),
        **options,
        dropout_rate=0.3,
        keep=ops.attention_dropout_mask(*SCORES, rate=0.3, seed=123),
    )
    np.testing.assert_allclose(got["output"], want[0], atol=1e-13)
    np.testing.assert_allclose(got["logsumexp"], want[1], atol=1e-13)


def test_backward_drops_what_forward_dropped(kernel_path):
    """The gradient of the values is the weights, transposed."""
    rng = np.random.default_rng(0)
    query, key, *_ = make_arrays(rng, *SIZES).values()
    value = tf.zeros((2, 45, 2, 19 * 4))
    grad_output = np.zeros((2, 19, 4, 19 * 4), "float32")
    for t in range(19):
        for n in range(4):
            grad_output[:, t, n, t * 4 + n] = 1
    with tf.GradientTape() as tape:
        tape.watch(value)
        output = ops.dot_product_attention(
            tf.cast(query, "float32"),
            tf.cast(key, "float32"),
            value,
            dropout_rate=0.4,
            dropout_seed=5,
        )
    grad = tape.gradient(output, value, output_gradients=tf.constant(grad_output))
    grad = grad.numpy().reshape(2, 45, 2, 19, 4)
    weights = np.stack([grad[:, :, n // 2, :, n] for n in range(4)], axis=1)
    dropped, _ = weights_of(5)
    np.testing.assert_allclose(np.swapaxes(weights, 2, 3), dropped, rtol=5e-6)


@pytest.mark.parametrize(
    "seed", [3, np.int16(3), np.uint64(3), tf.constant(3), tf.constant(3, "uint64")]
)
def test_seed_of_any_kind_counts_as_its_value(seed, path, rng):
    q, k, v, *_ = make_arrays(rng, *SIZES).values()
    got = ops.dot_product_attention(q, k, v, dropout_rate=0.5, dropout_seed=seed)
    want = ops.dot_product_attention(q, k, v, dropout_rate=0.5, dropout_seed=3)
    np.testing.assert_array_equal(got, want)


def test_seed_may_change_in_a_graph(path, rng):
    q, k, v, *_ = make_arrays(rng, *SIZES).values()

    @tf.function
    def step(seed):
        return ops.dot_product_attention(q, k, v, dropout_rate=0.5, dropout_seed=seed)

    results = [step(tf.constant(seed, "int64")).numpy() for seed in (1, 2, 1)]
    assert step.experimental_get_tracing_count() == 1
    assert not np.allclose(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_expectation_is_attention_without_dropout(kernel_path, rng):
    """The mean over 2000 seeds: its deviation is that of one, by sqrt(2000)."""
    q, k, v, *_ = make_arrays(rng, 1, 2, 9, 1, 1, 4, 3).values()

    @tf.function
    def step(seed):
        return ops.dot_product_attention(q, k, v, dropout_rate=0.4, dropout_seed=seed)

    samples = np.stack([step(tf.constant(s, "int64")) for s in range(2000)])
    error = samples.mean(axis=0) - ops.dot_product_attention(q, k, v)
    assert np.all(np.abs(error) < 5 * samples.std(axis=0) / np.sqrt(2000))


def test_no_dropout_needs_no_seed_and_ignores_one(path, rng):
    q, k, v, *_ = make_arrays(rng, *SIZES).values()
    plain = ops.dot_product_attention(q, k, v)
    for seed in (None, 4):
        got = ops.dot_product_attention(q, k, v, dropout_rate=0, dropout_seed=seed)
        np.testing.assert_array_equal(got, plain)


def test_bad_arguments_of_the_mask_are_refused():
    with pytest.raises(ValueError, match="rate"):
        ops.attention_dropout_mask(1, 1, 2, 2, rate=1.0, seed=0)
    with pytest.raises(ValueError, match="shape"):
        ops.attention_dropout_mask(1, 1, -2, 2, rate=0.5, seed=0)
