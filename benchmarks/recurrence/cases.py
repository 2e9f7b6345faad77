"""The cases of recurrence/run.py: their shapes and inputs."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Case:
    """One recurrence.

    Attributes:
        batch, timesteps, features, units: Sizes.
        dtype: Of the state.
        narrow: Of inputs and weights; "" = that of the state.
        sequences: Whether all states are wanted or the last.
        clip: c > 0: states are clipped to -c .. c; 0: no activation, and the
            weights are 1 for the input and -1 for the state.
        overflow: The policy of hw3tf.
        weight: The weights are from -weight to weight, where they are not 1 and -1.
    """

    batch: int
    timesteps: int
    features: int
    units: int
    dtype: str
    narrow: str = ""
    sequences: bool = False
    clip: int = 0
    overflow: str = "raise"
    weight: int = 9

    @property
    def is_line(self):
        return self.units == self.features == 1

    @property
    def bytes_of_inputs(self):
        size = np.dtype(self.narrow or self.dtype).itemsize
        return self.batch * self.timesteps * self.features * size

    @property
    def products(self):
        steps = self.batch * self.timesteps
        return steps * self.units * (self.features + self.units)


ROWS, LINE = (256, 10_000, 1, 1, "int64"), (1, 10**8, 1, 1, "int64")
SMALL, LARGE = (64, 1000, 32, 64), (64, 1000, 64, 256)
# Beyond 16 bits, and so small that sums with states of 8 bits fit 32.
LONG_WEIGHT = 40_000
TABLE = {
    "rows-last": Case(*ROWS),
    "rows-last-wrap": Case(*ROWS, overflow="wrap"),
    "line-last": Case(*LINE),
    "line-last-wrap": Case(*LINE, overflow="wrap"),
    "line-all": Case(*LINE, sequences=True),
    "line-all-wrap": Case(*LINE, sequences=True, overflow="wrap"),
    "dense-64": Case(*SMALL, "int32", clip=1000),
    "dense-64-wrap": Case(*SMALL, "int32", clip=1000, overflow="wrap"),
    "dense-256": Case(*LARGE, "int32", clip=127, weight=LONG_WEIGHT),
    "dense-256-short": Case(*LARGE, "int32", clip=127),
    "dense-256-int8": Case(*LARGE, "int32", narrow="int8", clip=127),
    "dense-256-int8-wide": Case(*LARGE, "int32", narrow="int8", clip=2**17),
}
# The lines of the picture; the longest are in the table.
CURVE = {
    f"curve-{'all' if sequences else 'last'}-{timesteps}": Case(
        1, timesteps, 1, 1, "int64", sequences=sequences
    )
    for sequences in (False, True)
    for timesteps in (10**3, 10**4, 10**6)
}
CASES = TABLE | CURVE


def shrunk(case):
    """The case in a size that takes no time, for a test of the program."""
    return Case(**{**vars(case), "timesteps": min(case.timesteps, 50)})


def make_arrays(case):
    """inputs, kernel, recurrent_kernel: small integers, the same in every process."""
    rng = np.random.default_rng(0)
    dtype = case.narrow or case.dtype
    shape = (case.batch, case.timesteps, case.features)
    inputs = rng.integers(-100, 101, shape, dtype)
    if case.is_line:
        one = np.ones((1, 1), dtype)
        return inputs, one, -one
    low, high = -case.weight, case.weight + 1
    kernel = rng.integers(low, high, (case.features, case.units), dtype)
    return inputs, kernel, rng.integers(low, high, (case.units, case.units), dtype)


def kernel_options(case):
    """The keywords of `hw3tf._core.integer_rnn`."""
    options = {"return_sequences": case.sequences, "overflow": case.overflow}
    if case.clip:
        options |= {"activation": "clip", "clip_low": -case.clip}
        options |= {"clip_high": case.clip}
    return options


def function_options(case):
    """The keywords of `hw3tf.ops.integer_rnn`."""
    options = {"return_sequences": case.sequences, "overflow": case.overflow}
    if case.clip:
        options |= {"activation": "clip", "clip": (-case.clip, case.clip)}
    return options
