"""One call of the integer recurrence: arguments checked, path chosen, run."""

import keras
import numpy as np

from hw3tf.ops.exporting import refuse_integers
from hw3tf.ops.integer_gradient import refuse_gradients
from hw3tf.ops.integer_rnn_paths import PATHS
from hw3tf.ops.libraries import kernel_path, logger
from hw3tf.reference.integer_rnn_arguments import (
    INPUT_DTYPES,
    check_options,
    check_shapes,
)
from hw3tf.reference.integers import check_dense

INTEGERS = "bool, int8, uint8, int16, int32 or int64"


class IntegerRnnCall:
    """The arguments of `integer_rnn`, brought to common terms.

    Attributes:
        path: The `AttentionPath` that the call takes.

    Raises:
        TypeError, ValueError: If an argument is not what it must be.
    """

    def __init__(
        self,
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
        tensors = {
            "inputs": inputs,
            "kernel": kernel,
            "recurrent_kernel": recurrent_kernel,
            "bias": bias,
            "initial_state": initial_state,
            "mask": mask,
        }
        is_list = as_array(inputs) is not inputs  # has no dtype to keep
        settings = (activation, clip, overflow, fractional_bits)
        tensors, state, weight = checked(tensors, settings, any_width=is_list)
        self.options = {
            "activation": activation,
            "clip": clip,
            "reverse": bool(reverse),
            "return_sequences": bool(return_sequences),
            "overflow": overflow,
            "fractional_bits": int(fractional_bits),
        }
        dtypes = dict.fromkeys(("bias", "initial_state"), state)
        dtypes |= dict.fromkeys(("kernel", "recurrent_kernel"), weight)
        self.tensors = {}
        for name, x in tensors.items():
            dtype = dtypes.get(name, dtype_of(x))
            if name == "mask":
                dtype = "bool"
            elif name == "inputs" and is_list and dtype == "int64":
                dtype = state
            self.tensors[name] = _fitted(name, x, dtype)
        self.state_dtype = state
        if keras.backend.backend() == "tensorflow":
            refuse_integers()
        self.path = kernel_path()

    def run(self):
        logger.debug("integer_rnn takes the path %s", self.path)
        refuse_gradients(self.tensors)
        run = PATHS[self.path.path]
        return run(self.tensors, self.options, self.state_dtype)


def checked(tensors, settings, any_width=False):
    """What `IntegerRnnCall` and the node of a functional model have in common.

    Args:
        tensors: Dictionary of all arguments, by name.
        settings: `activation`, `clip`, `overflow` and `fractional_bits`.
        any_width: Whether `inputs` may be wider than the state.

    Returns:
        The arguments that are given, with a dtype and a shape; the dtypes of the
        state and of the weights.
    """
    for name in ("inputs", "kernel", "recurrent_kernel"):
        if tensors[name] is None:
            raise TypeError(f"`{name}` must be an array. Received: {name}=None")
    for name, x in tensors.items():
        check_dense(name, x)
    tensors = {k: as_array(x) for k, x in tensors.items() if x is not None}
    state, weight = check_dtypes(tensors, any_width)
    check_shapes(**{name: x.shape for name, x in tensors.items()})
    check_options(*settings, state)
    return tensors, state, weight


def as_array(x):
    """Tensors, variables and arrays as they are; lists as NumPy arrays."""
    return x if hasattr(x, "dtype") and hasattr(x, "shape") else np.asarray(x)


def dtype_of(x):
    try:
        return keras.backend.standardize_dtype(x.dtype)
    except ValueError:  # one that Keras does not know, as NumPy's objects
        return str(x.dtype)


def check_dtypes(tensors, any_width=False):
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


def _fail_dtype(name, expected, x):
    raise TypeError(
        f"`{name}` must have dtype {expected}. Received: {name}.dtype={dtype_of(x)}"
    )


def _fitted(name, x, dtype):
    """`x` as a tensor or array of `dtype`; ValueError if a value does not fit."""
    own = dtype_of(x)
    if own == dtype:
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
