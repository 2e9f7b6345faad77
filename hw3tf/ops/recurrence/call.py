"""One call of the integer recurrence: arguments checked, path chosen, run."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

import keras
import numpy as np

from hw3tf.ops.exporting import refuse_integers, traced_by_torch
from hw3tf.ops.fronts import front_of
from hw3tf.ops.operations import INTEGER_RNN
from hw3tf.ops.paths import kernel_path, logger
from hw3tf.ops.recurrence.gradients import refuse_gradients
from hw3tf.ops.recurrence.options import RecurrenceOptions
from hw3tf.reference.integer_rnn_arguments import (
    INPUT_DTYPES,
    check_options,
    check_shapes,
)
from hw3tf.reference.integers import check_dense

INTEGERS = "bool, int8, uint8, int16, int32 or int64"


class IntegerRnnCall:
    """The arguments of `integer_rnn`, checked and converted.

    Args:
        tensors: All of its tensors by their names, None for one that is not given.
        options: The others.

    Attributes:
        path: The `CallPath` that the call takes.

    Raises:
        TypeError, ValueError: If an argument is not what it must be.
    """

    def __init__(self, tensors: Mapping[str, Any], options: RecurrenceOptions) -> None:
        inputs = tensors["inputs"]
        is_list = as_array(inputs) is not inputs  # has no dtype to keep
        given, state, weight = checked(tensors, options, any_width=is_list)
        self.options = replace(
            options,
            reverse=bool(options.reverse),
            return_sequences=bool(options.return_sequences),
            fractional_bits=int(options.fractional_bits),
        )
        if is_list and dtype_of(given["inputs"]) == "int64":
            given["inputs"] = _fitted("inputs", given["inputs"], state)
        dtypes = {"T": state, "Weight": weight, "bool": "bool"}
        self.tensors = {
            x.name: _fitted(x.name, given[x.name], dtypes.get(x.type))
            for x in INTEGER_RNN.operands
            if x.name in given
        }
        self.state_dtype = state
        backend = keras.backend.backend()
        if backend == "tensorflow" or (backend == "torch" and traced_by_torch()):
            refuse_integers()
        self.path = kernel_path()

    def run(self) -> Any:
        """The states."""
        logger.debug("integer_rnn takes the path %s", self.path)
        refuse_gradients(self.tensors)
        front = front_of(self.path.path)
        return front.integer_rnn(self.tensors, self.options, self.state_dtype)


def checked(
    tensors: Mapping[str, Any], options: RecurrenceOptions, any_width: bool = False
) -> tuple[dict[str, Any], str, str]:
    """What `IntegerRnnCall` and the node of a functional model have in common.

    Args:
        tensors: All arguments, by name.
        options: As they were given.
        any_width: Whether `inputs` may be wider than the state.

    Returns:
        The arguments that are given, with a dtype and a shape; the dtypes of the
        state and of the weights.
    """
    for operand in INTEGER_RNN.required:
        name = operand.name
        if tensors[name] is None:
            raise TypeError(f"`{name}` must be an array. Received: {name}=None")
    for name, x in tensors.items():
        check_dense(name, x)
    given = {k: as_array(x) for k, x in tensors.items() if x is not None}
    state, weight = check_dtypes(given, any_width)
    check_shapes(**{name: x.shape for name, x in given.items()})
    check_options(
        options.activation,
        options.clip,
        options.overflow,
        options.fractional_bits,
        state,
    )
    return given, state, weight


def as_array(x: Any) -> Any:
    """Tensors, variables and arrays as they are; lists as NumPy arrays."""
    return x if hasattr(x, "dtype") and hasattr(x, "shape") else np.asarray(x)


def dtype_of(x: Any) -> str:
    """The name of the dtype of an array."""
    try:
        return str(keras.backend.standardize_dtype(x.dtype))
    except ValueError:  # one that Keras does not know, as NumPy's objects
        return str(x.dtype)


def check_dtypes(
    tensors: Mapping[str, Any], any_width: bool = False
) -> tuple[str, str]:
    """The dtypes of the state and of the weights.

    Args:
        tensors: Dictionary of what is given, by name.
        any_width: Whether `inputs` may be wider than the state.

    Raises:
        TypeError: Naming the argument, what was expected and what came.
    """
    for name, x in tensors.items():
        if dtype_of(x) not in INPUT_DTYPES:
            _fail_dtype(name, INTEGERS, x)
    recurrent = dtype_of(tensors["recurrent_kernel"])
    if recurrent not in ("int8", "int32", "int64"):
        wanted = "int8, int32 or int64"
        _fail_dtype("recurrent_kernel", wanted, tensors["recurrent_kernel"])
    state = "int64" if recurrent == "int64" else "int32"
    narrow = {dtype_of(tensors[name]) for name in ("kernel", "recurrent_kernel")}
    inputs = tensors["inputs"]
    if state == "int32" and dtype_of(inputs) == "int64" and not any_width:
        _fail_dtype("inputs", "int32 or narrower, as the state is int32", inputs)
    return state, "int8" if narrow == {"int8"} else state


def _fail_dtype(name: str, expected: str, x: Any) -> NoReturn:
    raise TypeError(
        f"`{name}` must have dtype {expected}. Received: {name}.dtype={dtype_of(x)}"
    )


def _fitted(name: str, x: Any, dtype: str | None) -> Any:
    """`x` as a tensor or array of `dtype`, None for its own; ValueError if a value does
    not fit."""
    own = dtype_of(x)
    if dtype in (None, own):
        return x
    if dtype != "bool" and not np.can_cast(own, dtype):
        try:
            values = np.asarray(x)
        except Exception:  # symbolic: what the values will be is not known
            _fail_dtype(name, f"{dtype} or narrower, as the state is {dtype}", x)
        limits = np.iinfo(dtype)
        outside = (values < limits.min) | (values > limits.max)
        if outside.any():
            raise ValueError(
                f"`{name}` must fit {dtype}, that of the state. "
                f"Received: {name} with the value {values[outside][0]}"
            )
        return values.astype(dtype)
    if isinstance(x, np.ndarray):
        return x.astype(dtype)
    return keras.ops.cast(x, dtype)
