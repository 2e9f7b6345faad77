"""Checks that numbers are integers, where Keras would truncate floats silently."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import keras
import numpy as np
from keras import ops

from hw3tf._types import Tensor
from hw3tf.reference.integer_rnn_arguments import INPUT_DTYPES


def check_integers(name: str, x: Tensor, state_dtype: str) -> None:
    """Raises TypeError unless `x` is a tensor of integers or booleans that is not wider
    than the state."""
    check_dense(name, x)
    dtype = keras.backend.standardize_dtype(x.dtype)
    accepted = [d for d in INPUT_DTYPES if d != "int64" or state_dtype == "int64"]
    if dtype in accepted:
        return
    hint = ""
    if isinstance(x, keras.KerasTensor) and "float" in dtype:
        hint = _hint_for_floats(x)
    elif dtype == "int64":
        hint = f". The state is {state_dtype}: pass dtype='int64' to the layer"
    dtypes = f"{', '.join(accepted[:-1])} or {accepted[-1]}"
    raise TypeError(
        f"`{name}` must be integers, {dtypes}: they are never rounded or cut off. "
        f"Received: {name}.dtype={dtype}{hint}"
    )


def _hint_for_floats(x: keras.KerasTensor) -> str:
    """The source of a symbolic tensor of floats, and the remedy, for an error."""
    source = getattr(getattr(x, "_keras_history", None), "operation", None)
    if source is None or isinstance(source, keras.layers.InputLayer):
        return ". The default of `keras.Input` is float32: pass dtype='int32'"
    kind = f"`{type(source).__name__}`"
    if "Dropout" in kind or "Noise" in kind:
        return (
            f". {kind} needs floats in training: move it behind the recurrence, after "
            "keras.ops.cast(states, 'float32')"
        )
    return (
        f". They come from {kind}, whose dtype is that of floats by default: given "
        "integers, dtype='int32' keeps them. Floats that are not integers must be "
        "rounded: keras.ops.cast(keras.ops.round(x), 'int32')"
    )


def check_dense(name: str, x: object) -> None:
    """Raises TypeError if `x` is a ragged or sparse tensor: the recurrence reads rows
    of equal length."""
    kind = type(x).__name__
    if kind == "RaggedTensor" or getattr(x, "ragged", False):
        raise TypeError(
            f"`{name}` must be a dense tensor: pad it by x.to_tensor(), and pass "
            "mask=tf.sequence_mask(x.row_lengths()), which keeps the state in the "
            f"padding. Received: {name}, a ragged tensor"
        )
    if kind == "SparseTensor" or getattr(x, "sparse", False):
        raise TypeError(
            f"`{name}` must be a dense tensor: tf.sparse.to_dense makes one. "
            f"Received: {name}, a sparse tensor"
        )


def integer_initializer(
    name: str, initializer: Callable[..., Tensor]
) -> Callable[[tuple[int, ...], str], Tensor]:
    """`initializer`, which raises ValueError if it does not yield integers.

    When asked for integers, some of Keras's initializers truncate their floats and
    others fail. So they are asked for floats, too.

    Args:
        name: The weight, for the message.
        initializer: Callable of a shape and a dtype.

    Returns:
        Callable of a shape and an integer dtype.
    """

    def integers(shape: tuple[int, ...], dtype: str) -> Tensor:
        # A first build may be in a graph, where numbers are unknown; here they are
        # known.
        with _outside_graphs():
            return values(shape, dtype)

    def values(shape: tuple[int, ...], dtype: str) -> Tensor:
        if isinstance(initializer, keras.initializers.RandomUniform):
            meant = np.array([initializer.minval, initializer.maxval])
        elif isinstance(initializer, keras.initializers.Constant):
            meant = np.asarray(initializer.value)
        else:
            meant = ops.convert_to_numpy(initializer(shape, dtype=_widest_float()))
        check_whole(name, meant, dtype, f"initializer={initializer!r}")
        random = isinstance(initializer, keras.initializers.RandomUniform)
        if random or not isinstance(initializer, keras.initializers.Initializer):
            return initializer(shape, dtype=dtype)
        return ops.convert_to_tensor(np.broadcast_to(meant, shape).astype(dtype))

    return integers


def _widest_float() -> str:
    """`"float64"`, which JAX has only if it is told to."""
    widest = ops.convert_to_tensor(np.zeros((), "float64"))
    return str(keras.backend.standardize_dtype(widest.dtype))


def _outside_graphs() -> AbstractContextManager:
    if keras.backend.backend() != "tensorflow":
        return nullcontext()
    import tensorflow as tf

    return tf.init_scope()


def check_whole(name: str, values: np.ndarray, dtype: str, received: str) -> None:
    """Raises ValueError unless all values of an array are integers of `dtype`.

    Args:
        name, received: What the message names, and what it says was received.
        values: NumPy array.
        dtype: `"int32"` or `"int64"`.
    """
    bits = int(dtype[3:])
    limits = np.iinfo(dtype)
    if np.issubdtype(values.dtype, np.floating):
        # The limits as floats: the upper one is rounded up, and is out of range.
        fits = (values >= -(2.0 ** (bits - 1))) & (values < 2.0 ** (bits - 1))
        good = fits & (values == np.rint(values))
    else:
        good = (values >= limits.min) & (values <= limits.max)
    if not np.all(good):
        raise ValueError(f"`{name}` must be integers of {dtype}. Received: {received}")
