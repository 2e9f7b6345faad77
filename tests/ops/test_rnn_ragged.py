"""Recurrent layers over ragged batches: each sequence as if it were alone."""

import re

import numpy as np
import pytest
import tensorflow as tf
from rnn_checks import CELLS, make_arrays

from hw3tf import ops

LENGTHS = [4, 0, 7, 1]


def make_batch(rng, dtype="int64"):
    values = tf.constant(rng.standard_normal((sum(LENGTHS), 5)), "float64")
    return tf.RaggedTensor.from_row_lengths(values, tf.constant(LENGTHS, dtype))


@pytest.fixture
def batch(rng):
    return make_batch(rng)


def weights(rng, cell):
    arrays = make_arrays(rng, cell, batch=len(LENGTHS))
    return [tf.constant(arrays[name]) for name in ("kernel", "recurrent_kernel")]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    ("zeroed", "dtype", "mode"),
    [(False, "int64", "eager"), (True, "int32", "eager"), (True, "int64", "graph")],
)
def test_sequences_are_computed_one_by_one(
    cell, backwards, zeroed, dtype, mode, path, rng
):
    """Outputs begin at the first place backwards, too, and there is no masked step."""
    batch = make_batch(rng, dtype)
    k, r = weights(rng, cell)
    options = {
        "go_backwards": backwards,
        "zero_output_for_mask": zeroed,
        "return_state": True,
    }
    run = getattr(ops, cell)

    def both(x):
        return (
            run(x, k, r, return_sequences=True, **options),
            run(x, k, r, **options),
        )

    both = both if mode == "eager" else tf.function(both)
    sequences, last = both(batch)
    assert isinstance(sequences[0], tf.RaggedTensor)
    assert sequences[0].shape.as_list() == [len(LENGTHS), None, 4]
    assert sequences[0].row_splits.dtype == batch.row_splits.dtype
    np.testing.assert_array_equal(sequences[0].row_lengths(), LENGTHS)
    for i, length in enumerate(LENGTHS):
        if length == 0:
            assert not np.any(last[0][i])
            continue
        want = run(batch[i][None], k, r, return_sequences=True, **options)
        np.testing.assert_allclose(sequences[0][i], want[0][0], rtol=0, atol=2**-48)
        np.testing.assert_allclose(last[0][i], want[0][0, -1], rtol=0, atol=2**-48)
        for x, y, z in zip(sequences[1:], last[1:], want[1:], strict=True):
            np.testing.assert_allclose(x[i], z[0], rtol=0, atol=2**-48)
            np.testing.assert_allclose(y[i], z[0], rtol=0, atol=2**-48)


@pytest.mark.parametrize("backwards", [False, True])
def test_gradients_are_those_of_the_sequences(backwards, path, batch, rng):
    k, r = weights(rng, "gru")
    options = {"go_backwards": backwards, "return_sequences": True}
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([batch.values, k])
        ragged = ops.gru(batch.with_values(batch.values), k, r, **options)
        loss = tf.reduce_sum(ragged.values**3)
        alone = sum(
            tf.reduce_sum(ops.gru(batch[i][None], k, r, **options) ** 3)
            for i, length in enumerate(LENGTHS)
            if length
        )
    for x in (batch.values, k):
        got, want = (tf.convert_to_tensor(tape.gradient(of, x)) for of in (loss, alone))
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def test_a_batch_of_empty_sequences(path, rng):
    k, r = weights(rng, "lstm")
    empty = tf.RaggedTensor.from_row_lengths(tf.zeros((0, 5), "float64"), [0, 0, 0])
    outputs, h, c = ops.lstm(empty, k, r, return_sequences=True, return_state=True)
    assert outputs.row_lengths().numpy().tolist() == [0, 0, 0]
    assert h.shape == c.shape == (3, 4)
    assert not np.any(ops.lstm(empty, k, r))
    none = tf.RaggedTensor.from_row_lengths(tf.zeros((0, 5), "float64"), [])
    assert ops.lstm(none, k, r, return_sequences=True).nrows() == 0


def test_path_is_told(batch, rng, monkeypatch):
    monkeypatch.delenv("HW3TF_PATH", raising=False)
    k, r = weights(rng, "lstm")
    assert ops.lstm_path(batch, k, r, go_backwards=True).path == "op"


def test_what_cannot_be_ragged_is_refused(batch, rng):
    k, r = weights(rng, "lstm")
    for name, x in (("mask", np.ones((4, 7), "bool")), ("lengths", LENGTHS)):
        with pytest.raises(
            ValueError, match=f"`{name}` must be None beside ragged `in"
        ):
            ops.lstm(batch, k, r, **{name: x})
    nested = tf.RaggedTensor.from_row_lengths(batch, [2, 2])
    for wrong in (nested, tf.ragged.constant([[1.0], [2.0, 3.0]])):
        message = re.escape("`inputs` must have one ragged axis, that of the timesteps")
        with pytest.raises(ValueError, match=message):
            ops.lstm(wrong, k, r)
