"""Long sequences: blocks of a line, chunks of time, threads that hand states on.

`run_rowwise` is the judge of most, NumPy over all batch entries at once in int64,
with sums that cannot overflow: Python integers would take minutes."""

import functools
import itertools

import numpy as np
import pytest
from integer_rnn_cases import assert_exact, integers

from hw3tf import _core

BLOCK = 32768  # inputs of a block of a line, csrc/kernels/recurrence/lines.cc


@pytest.fixture(params=[1, 2, 5], ids=lambda n: f"{n}-threads")
def _threads(request):
    _core.set_num_threads(request.param)
    yield
    _core.set_num_threads(0)


def run_rowwise(inputs, kernel, recurrent_kernel):
    """All states of small numbers, or of numbers modulo 2^64."""
    state = np.zeros((len(inputs), kernel.shape[1]), "int64")
    states = []
    for t in range(inputs.shape[1]):
        state = inputs[:, t].astype("int64") @ kernel + state @ recurrent_kernel
        states.append(state)
    return np.stack(states, 1)


@functools.cache
def line(timesteps, recurrent):
    """Inputs, and all states with a kernel of 5, by Python's integers modulo 2^64."""
    inputs = integers(np.random.default_rng(0), (2, timesteps, 1), "int16", 100)

    def step(state, x):
        return (5 * x + recurrent * state) % 2**64

    states = [
        list(itertools.accumulate(row, step, initial=0))[1:]
        for row in inputs[..., 0].tolist()
    ]
    return inputs, np.array(states, "uint64").view("int64")[..., None]


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("recurrent", [0, 1, -1, 3])
@pytest.mark.parametrize("timesteps", [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 77])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_lines_of_many_blocks(dtype, timesteps, recurrent):
    inputs, want = line(timesteps, recurrent)
    want = want.astype(dtype)
    weights = np.array([[5]], dtype), np.array([[recurrent]], dtype)
    for policy in ("wrap", "raise", "saturate"):
        if policy != "wrap" and abs(recurrent) > 1:
            continue
        states = _core.integer_rnn(
            inputs, *weights, overflow=policy, return_sequences=True
        )
        np.testing.assert_array_equal(states, want)
        last = _core.integer_rnn(inputs, *weights, overflow=policy)
        np.testing.assert_array_equal(last, want[:, -1])
    states = _core.integer_rnn(
        inputs[:, ::-1], *weights, overflow="wrap", return_sequences=True, reverse=True
    )
    np.testing.assert_array_equal(states, want)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("at", [0, 5, BLOCK - 1, BLOCK, 2 * BLOCK + 513])
def test_overflow_within_a_long_line_is_found(at):
    """By the sum of all blocks before it; and saturated, it stays in range."""
    inputs = np.zeros((2, 3 * BLOCK, 1), "int32")
    start = np.full((2, 1), 2**31 - 1, "int32")
    ones = np.ones((1, 1), "int32")
    inputs[1, at] = 1
    with pytest.raises(OverflowError, match=f"entry 1 at timestep {at}\\b"):
        _core.integer_rnn(inputs, ones, ones, initial_state=start)
    inputs[1, at + 1] = -1
    last = _core.integer_rnn(
        inputs, ones, ones, initial_state=start, overflow="saturate"
    )
    assert last[:, 0].tolist() == [2**31 - 1, 2**31 - 2]


def test_small_inputs_that_overflow_together_are_found():
    inputs, one = np.full((1, 3 * BLOCK, 1), 2**16, "int32"), np.ones((1, 1), "int32")
    with pytest.raises(OverflowError, match=r"entry 0 at timestep 32767\b"):
        _core.integer_rnn(inputs, one, one)


@pytest.mark.parametrize("recurrent", [[[1, 0], [2, -1]], [[1, 2], [0, -1]]])
def test_triangles_are_not_diagonals(recurrent, rng):
    inputs = integers(rng, (3, 40, 2), "int32", 9)
    kernel, recurrent = np.eye(2, dtype="int32"), np.array(recurrent, "int32")
    states = _core.integer_rnn(inputs, kernel, recurrent, return_sequences=True)
    np.testing.assert_array_equal(states, run_rowwise(inputs, kernel, recurrent))


@pytest.mark.parametrize("reverse", [False, True])
def test_masked_time_in_chunks(reverse, rng):
    """Of a chunk, the steps that the mask leaves out do not count."""
    length = 20_000  # shorter calls get one thread, which runs them in order
    inputs = integers(rng, (1, length, 2), "int32", 9)
    kernel = integers(rng, (2, 2), "int32", 3)
    recurrent = np.array([[0, 1], [-1, 1]], "int32")
    mask = rng.random((1, length)) < np.linspace(0.2, 1, length)  # none is its mirror
    want = np.zeros(2, "int64")
    for t in range(length)[:: -1 if reverse else 1]:
        if mask[0, t]:
            want = inputs[0, t].astype("int64") @ kernel + want @ recurrent
    for sequences in (False, True):
        states = _core.integer_rnn(
            inputs, kernel, recurrent, mask=mask, reverse=reverse,
            overflow="wrap", return_sequences=sequences,
        )  # fmt: skip
        last = states[0, -1] if sequences else states[0]
        np.testing.assert_array_equal(last, want.astype("int32"))


def test_a_sum_beyond_the_bound_of_a_block_is_proven_in_pieces():
    """The bound of a whole block, 2^15 * 2^17, fails; the states fit."""
    inputs = np.full((1, 4 * BLOCK, 1), 2**17, "int32")
    inputs[:, 1::2] *= -1
    ones = np.ones((1, 1), "int32")
    states = _core.integer_rnn(inputs, ones, ones, return_sequences=True)
    assert states[0, :, 0].reshape(-1, 2).tolist() == [[2**17, 0]] * (2 * BLOCK)


def test_blocks_at_the_end_of_memory_are_written_past_the_caches(rng):
    """A result of 40 MB, at every alignment that NumPy gives."""
    inputs = integers(rng, (1, 5 * 2**20 + 3, 1), "int64", 10**6)
    ones = np.ones((1, 1), "int64")
    want = np.cumsum(inputs, 1)
    for first in range(3):
        states = _core.integer_rnn(inputs[:, first:], ones, ones, return_sequences=True)
        before = want[:, first - 1] if first else 0
        np.testing.assert_array_equal(states, want[:, first:] - before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("diagonal", [False, True], ids=["dense", "diagonal"])
@pytest.mark.parametrize(
    ("batch", "timesteps", "features", "units"),
    [(1, 20_001, 2, 3), (1, 10_000, 1, 16), (1, 20_000, 5, 1), (1, 10_000, 3, 20)],
)
@pytest.mark.parametrize("masked", [False, True], ids=["all-steps", "masked"])
def test_time_in_chunks(batch, timesteps, features, units, diagonal, masked, rng):
    """Few sequences without activation: chunks of time run side by side."""
    inputs = integers(rng, (batch, timesteps, features), "int64")
    kernel, bias = (
        integers(rng, (features, units), "int64"),
        integers(rng, units, "int64"),
    )
    recurrent = integers(rng, (units, units), "int64")
    if diagonal:
        recurrent *= np.eye(units, dtype="int64")
    initial = integers(rng, (batch, units), "int64")
    mask = rng.random((batch, timesteps)) < 0.8 if masked else None
    state, want = initial, []
    for t in range(timesteps):
        with np.errstate(over="ignore"):
            new = inputs[:, t] @ kernel + state @ recurrent + bias
        state = new if mask is None else np.where(mask[:, t, None], new, state)
        want.append(state)
    want = np.stack(want, 1)
    optional = (bias, initial, mask)
    for sequences in (False, True):
        got = _core.integer_rnn(
            inputs, kernel, recurrent, *optional,
            overflow="wrap", return_sequences=sequences,
        )  # fmt: skip
        np.testing.assert_array_equal(got, want if sequences else want[:, -1])


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("at", [0, 5000, 19_999])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_overflow_within_chunks_is_found(at, reverse):
    inputs = np.zeros((1, 20_000, 2), "int32")
    inputs[0, at] = 2**31 - 1, 1
    for recurrent in (np.eye(2), np.array([[0, 1], [1, 0]])):
        given = {
            "inputs": inputs,
            "kernel": np.array([[1, 0], [1, 0]], "int32"),
            "recurrent_kernel": recurrent.astype("int32"),
        }
        with pytest.raises(OverflowError, match=f"entry 0 at timestep {at}\\b"):
            _core.integer_rnn(**given, reverse=reverse)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize(("weights", "units"), [("int8", 70), ("int32", 70)])
def test_states_near_the_bounds_are_summed_again(weights, units, rng):
    """Where bounds fail at some steps of some rows only."""
    given = {
        "inputs": integers(rng, (9, 12, 3), "int32", 2**20),
        "kernel": integers(rng, (3, units), weights, 100),
        "recurrent_kernel": integers(rng, (units, units), weights, 10),
    }
    for policy in ("raise", "saturate"):
        for clip in (2**15 - 1, 2**15, 2**24, 2**30):
            assert_exact(
                given,
                lambda activation, clip, **call: _core.integer_rnn(
                    **call, activation="clip", clip_low=clip[0], clip_high=clip[1]
                ),
                activation="clip",
                clip=(-clip, clip),
                overflow=policy,
                return_sequences=True,
            )
