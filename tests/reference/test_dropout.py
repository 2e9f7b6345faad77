"""The dropout mask in Keras ops against Philox in Python integers."""

import formula
import keras
import numpy as np
import pytest
import tensorflow as tf

from hw3tf import reference
from hw3tf.reference.dropout import philox

# Of Random123, the authors' library (kat_vectors: philox4x32 10).
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    (
        [0xFFFFFFFF] * 4,
        [0xFFFFFFFF] * 2,
        [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
    ),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_gives_the_known_answers(counter, key, words):
    assert formula.philox(counter, key) == words
    got = philox(*(list(np.array(x, "uint32").view("int32")) for x in (counter, key)))
    assert [int(x) % 2**32 for x in got] == words


@pytest.mark.parametrize("seed", [0, 1, 2**32 + 5, -1, -(2**40), 2**63 + 11])
def test_mask_is_that_of_the_formula(seed):
    want = formula.dropout_mask(2, 3, 5, 11, 0.4, seed)
    np.testing.assert_array_equal(
        reference.attention_dropout_mask(2, 3, 5, 11, 0.4, seed), want
    )
    # The same seed as a tensor: 64 bits, signed or not.
    dtype = "int64" if seed < 2**63 else "uint64"
    tensor = tf.constant(np.array(seed, dtype))
    np.testing.assert_array_equal(
        reference.attention_dropout_mask(2, 3, 5, 11, 0.4, tensor), want
    )


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint8", "uint32", "uint64"])
def test_seed_of_any_integer_dtype_counts_as_its_value(dtype):
    limits = np.iinfo(dtype)
    for value in np.array([limits.min, 100, limits.max], dtype):
        np.testing.assert_array_equal(
            reference.attention_dropout_mask(1, 1, 2, 9, 0.5, tf.constant(value)),
            formula.dropout_mask(1, 1, 2, 9, 0.5, int(value)),
        )


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_mask_is_the_same_in_graphs(jit_compile):
    @tf.function(jit_compile=jit_compile)
    def run(seed):
        return reference.attention_dropout_mask(2, 3, 5, 11, 0.4, seed)

    for seed in (7, -7, 2**40 + 1):
        np.testing.assert_array_equal(
            run(tf.constant(seed, "int64")),
            formula.dropout_mask(2, 3, 5, 11, 0.4, seed),
        )


def test_sizes_may_be_tensors():
    @tf.function(input_signature=[tf.TensorSpec([None] * 4)])
    def run(x):
        return reference.attention_dropout_mask(*keras.ops.shape(x), 0.4, 3)

    np.testing.assert_array_equal(
        run(tf.zeros((2, 3, 5, 11))), formula.dropout_mask(2, 3, 5, 11, 0.4, 3)
    )


def test_threshold_is_the_rate_to_32_bits():
    """No rate keeps everything but 0; the largest below 1 keeps almost nothing."""
    assert np.all(reference.attention_dropout_mask(1, 1, 9, 9, 0.0, 0))
    rate = np.nextafter(1.0, 0.0)
    assert not np.any(reference.attention_dropout_mask(1, 4, 90, 90, rate, 0))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_share_that_is_kept_is_binomial(rate):
    """Of n weights, n (1 - rate) are kept, up to the deviation of a coin: over all,
    per query, per key, per head. The largest of 512 deviations stays below 5."""
    keep = np.array(reference.attention_dropout_mask(4, 8, 128, 128, rate, 1))
    for axes in ((0, 1, 2, 3), (0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)):
        mean = keep.mean(axis=axes)
        deviation = np.sqrt(rate * (1 - rate) / (keep.size / mean.size))
        assert np.abs(mean - (1 - rate)).max() < 5 * deviation


def test_rows_and_seeds_are_independent():
    """Neighbours along any axis, and neighbouring seeds, agree as two coins do."""
    one, other = (
        np.array(reference.attention_dropout_mask(4, 8, 128, 128, 0.5, seed))
        for seed in (1, 2)
    )
    pairs = [(one, other)]
    for axis in range(4):
        size = one.shape[axis]
        pairs.append(tuple(one.take(range(i, size - 1 + i), axis=axis) for i in (0, 1)))
    for x, y in pairs:
        deviation = 0.5 / np.sqrt(x.size)
        assert abs((x == y).mean() - 0.5) < 5 * deviation
