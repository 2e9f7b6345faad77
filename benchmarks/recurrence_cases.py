"""The cases of recurrence.py: shapes, inputs, and what each is to reach."""

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
CASES = {
    "rows-last": Case(*ROWS),
    "rows-last-wrap": Case(*ROWS, overflow="wrap"),
    "line-last": Case(*LINE),
    "line-last-wrap": Case(*LINE, overflow="wrap"),
    "line-all": Case(*LINE, sequences=True),
    "line-all-wrap": Case(*LINE, sequences=True, overflow="wrap"),
    "dense-64": Case(*SMALL, "int32", clip=1000),
    "dense-64-wrap": Case(*SMALL, "int32", clip=1000, overflow="wrap"),
    "dense-256": Case(*LARGE, "int32", clip=127),
    "dense-256-int8": Case(*LARGE, "int32", narrow="int8", clip=127),
    "dense-256-int8-wide": Case(*LARGE, "int32", narrow="int8", clip=2**17),
}


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
    kernel = rng.integers(-9, 10, (case.features, case.units), dtype)
    return inputs, kernel, rng.integers(-9, 10, (case.units, case.units), dtype)
