"""Questions about arguments that several operations ask."""

from typing import Any

import keras
import numpy as np

from hw3tf.ops.shapes import Size


def is_ragged(x: Any) -> bool:
    """Whether `x` is a `tf.RaggedTensor`."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return isinstance(x, tf.RaggedTensor)


def check_lengths(name: str, lengths: Any, of: str, limit: Size) -> None:
    """Raises ValueError if a length is not from 0 to `limit`, as far as values are
    known. Those of 64 bits would not survive the kernels' 32.

    Args:
        name, lengths: The argument.
        of, limit: The argument whose lengths they are, and its length.
    """
    try:
        values = np.asarray(lengths).ravel()
    except Exception:  # symbolic
        return
    if values.dtype.kind not in "iu" or np.can_cast(values.dtype, "int32"):
        return  # the kernels check these, in graphs, too
    limit = 2**31 - 1 if limit is None else limit
    wrong = (values < 0) | (values > limit)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(
            f"`{name}` must be between 0 and the length of `{of}`, {limit}. "
            f"Received: {name}[{at}]={values[at]}"
        )


def check_integers(name: str, tensor: Any) -> None:
    """Raises ValueError if `tensor` is not of an integer dtype."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if not keras.backend.is_int_dtype(dtype):
        raise ValueError(
            f"`{name}` must be of an integer dtype. Received: {name}.dtype={dtype}"
        )
