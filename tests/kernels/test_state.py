"""Independence of results from the state around a call: rounding modes, arrays that
change while a kernel runs, sizes without elements."""

import contextlib
import platform
import threading

import numpy as np
import pytest
import tensorflow as tf
from checks import run_python

from hw3tf import _core, ops

ROUNDING = {"nearest": 0, "down": 0x400, "up": 0x800, "zero": 0xC00}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of its modes")
@pytest.mark.parametrize("first", ["up", "down", "zero"])
def test_rounding_modes_of_the_caller_change_nothing(first):
    """Workers inherit the mode of the thread that makes them: the first call runs under
    another one. The caller has its mode back afterwards."""
    code = f"""
import ctypes
import numpy as np
from hw3tf import _core

modes, libm = {ROUNDING}, ctypes.CDLL("libm.so.6")
rng = np.random.default_rng(0)
x = rng.standard_normal((1, 300, 4, 32), "float32")
whole = rng.integers(-9, 9, (40, 300, 8)).astype("int32")
weights = rng.integers(-2, 3, (8, 8)).astype("int32")

def results(mode, threads):
    assert libm.fesetround(modes[mode]) == 0
    _core.set_num_threads(threads)
    arrays = []
    for dtype in ("float32", "float64"):
        y = x.astype(dtype)
        forward = _core.attention_forward(y, y, y, scale=0.2)
        arrays += forward
        arrays += _core.attention_backward(y, y, y, *forward[:2], y, scale=0.2)[:3]
    arrays.append(_core.integer_rnn(whole, weights, weights, overflow="saturate"))
    assert libm.fegetround() == modes[mode]
    libm.fesetround(0)
    return [a.tobytes() for a in arrays]

first = results({first!r}, 2)
for mode in modes:
    for threads in (1, 2):
        assert results(mode, threads) == first, (mode, threads)
"""
    run_python(code, HW3TF_NUM_THREADS=None)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_splits_that_change_while_a_kernel_runs(dtype, rng):
    """A call works on the splits that it has checked: its result is that of the one or
    of the other, never of a mixture."""
    x = rng.standard_normal((600, 2, 16)).astype(dtype)
    own, other = (np.array([0, middle, 600]) for middle in (200, 400))

    def attend(splits):
        return _core.attention_forward(
            x, x, x, scale=0.25, query_splits=splits, key_splits=splits
        )[0]

    wanted = {attend(own).tobytes(), attend(other).tobytes()}
    splits, done = own.copy(), threading.Event()

    def change():
        while not done.is_set():
            splits[1] = 600 - splits[1]

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(30):
            output = None
            with contextlib.suppress(ValueError):  # its two splits were read apart
                output = attend(splits)
            assert output is None or output.tobytes() in wanted
    finally:
        done.set()
        changing.join()


HEADS = [2**20, 2**34, 2**53]


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_work_without_a_query(heads, dtype):
    """(1, 0, 2**53, 1) has no elements: a gradient must not count its heads."""
    query, key = np.zeros((1, 0, heads, 1), dtype), np.ones((1, 3, 1, 1), dtype)
    bias = np.ones((1, 1, 1, 3), dtype)
    results = _core.attention_forward(query, key, key, scale=1.0, bias=bias)
    assert results[0].shape == query.shape
    *grads, grad_bias = _core.attention_backward(
        query, key, key, *results[:2], query, scale=1.0, bias=bias
    )
    assert grads[0].shape == query.shape
    for grad in (*grads[1:], grad_bias):
        assert not grad.any()


@pytest.mark.parametrize("batch", HEADS)
def test_no_work_without_a_query_in_a_large_batch(batch):
    query, key = np.zeros((batch, 0, 1, 1), "float32"), np.ones((1, 3, 1, 1), "float32")
    output, statistics, _ = _core.attention_forward(query, key, key, scale=1.0)
    grads = _core.attention_backward(
        query, key, key, output, statistics, output, scale=1.0
    )
    assert not grads[1].any()
    assert not grads[2].any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_work_for_sequences_without_rows(dtype):
    """2**25 key heads of no rows, and 1,000 sequences of which one has rows."""
    heads = 2**25
    none = tf.RaggedTensor.from_row_lengths(tf.zeros((0, heads, 1), dtype), [0, 0])
    with tf.GradientTape() as tape:
        tape.watch(none.values)
        output = ops.ragged_dot_product_attention(none, none, none).values
    assert tape.gradient(output, none.values).shape == (0, heads, 1)
    few = tf.RaggedTensor.from_row_lengths(
        tf.ones((1, 2**16, 1), dtype), [1] + [0] * 1000
    )
    with tf.GradientTape() as tape:
        tape.watch(few.values)
        values = few.values
        few = few.with_values(values)
        output = ops.ragged_dot_product_attention(few, few, few).values
    np.testing.assert_array_equal(output, values)
    assert not np.any(tape.gradient(output, values) - 1)
