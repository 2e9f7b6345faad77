"""How much the kernels of recurrent layers keep for their gradients."""

import functools
from typing import Any

import numpy as np

from hw3tf import _core
from hw3tf.ops.rnn.options import RnnOptions
from hw3tf.reference.rnn import GATES


def kept_words(cell: str, dtype: str, units: Any, options: RnnOptions) -> int:
    """The words of 64 bits that the kernel keeps of a timestep, for its gradient: what
    a call with an empty batch says.

    Args:
        cell: `"lstm"`, `"gru"` or `"simple_rnn"`.
        dtype: That of the inputs.
        units: Their number, known.
        options: Those of the call.
    """
    if not isinstance(units, int):  # the call would have taken another path
        raise TypeError(f"`units` must be known. Received: units={units!r}")
    return _of_empty_batch(cell, dtype, units, tuple(options.attributes(cell).items()))


@functools.cache
def _of_empty_batch(
    cell: str, dtype: str, units: int, attributes: tuple[tuple[str, Any], ...]
) -> int:
    columns = GATES[cell] * units
    shapes = (0, 1, 1), (1, columns), (units, columns)
    run = getattr(_core, f"{cell}_forward")
    arrays = [np.empty(shape, dtype) for shape in shapes]
    *_, kept = run(*arrays, **dict(attributes), keep=True)
    return int(kept.shape[-1])
