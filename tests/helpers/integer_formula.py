"""The integer recurrence on Python integers, which cannot overflow: loops alone.

It judges `hw3tf.reference` and the kernel, and shares no line with them.
"""

import numpy as np


class OverflowAtError(Exception):
    """Where the formula overflows under `overflow="raise"`."""

    def __init__(self, batch_entry, timestep):
        super().__init__(batch_entry, timestep)
        self.batch_entry, self.timestep = batch_entry, timestep


def limits(dtype):
    """The smallest and the largest integer of a dtype."""
    bits = int(dtype[3:])
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def activated(value, activation, clip):
    if activation == "relu":
        return max(0, value)
    if activation == "sign":
        return (value > 0) - (value < 0)
    if activation == "clip":
        return min(max(value, clip[0]), clip[1])
    assert activation is None
    return value


def into_range(value, dtype, overflow):
    """The value in range, or None if it is to raise."""
    low, high = limits(dtype)
    if low <= value <= high:
        return value
    if overflow == "wrap":
        return (value - low) % (high - low + 1) + low
    if overflow == "saturate":
        return low if value < low else high
    assert overflow == "raise"
    return None


def integer_rnn(
    inputs,
    kernel,
    recurrent_kernel,
    bias=None,
    initial_state=None,
    mask=None,
    *,
    activation=None,
    clip=None,
    reverse=False,
    return_sequences=False,
    overflow="raise",
    fractional_bits=0,
):
    """The states as an array of the state's dtype; arguments are arrays.

    Raises OverflowAtError, with the smallest batch entry that overflows and the
    first step taken at which it does, an index into `inputs`.
    """
    dtype = "int64" if np.asarray(recurrent_kernel).dtype == "int64" else "int32"
    batch_size, timesteps = np.shape(inputs)[:2]
    units = np.shape(kernel)[1]
    x, w, u = (np.asarray(a).tolist() for a in (inputs, kernel, recurrent_kernel))
    b = [0] * units if bias is None else np.asarray(bias).tolist()
    if initial_state is None:
        initial_state = np.zeros((batch_size, units), dtype)
    order = range(timesteps - 1, -1, -1) if reverse else range(timesteps)
    sequences = []
    for entry in range(batch_size):
        state = np.asarray(initial_state)[entry].tolist()
        sequence = []
        for t in order:
            if mask is None or np.asarray(mask)[entry, t]:
                sums = [
                    sum(
                        int(x_f) * w_f[j]
                        for x_f, w_f in zip(x[entry][t], w, strict=True)
                    )
                    + sum(h * u_k[j] for h, u_k in zip(state, u, strict=True))
                    + b[j]
                    for j in range(units)
                ]
                if fractional_bits:  # to the nearest, upwards from the middle
                    half = 2 ** (fractional_bits - 1)
                    sums = [(s + half) // 2**fractional_bits for s in sums]
                sums = [into_range(s, dtype, overflow) for s in sums]
                if None in sums:
                    raise OverflowAtError(entry, t)
                state = [activated(s, activation, clip) for s in sums]
            sequence.append(state)
        sequences.append(sequence if return_sequences else state)
    shape = (batch_size, timesteps, units) if return_sequences else (batch_size, units)
    return np.array(sequences, dtype).reshape(shape)
