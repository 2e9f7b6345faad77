"""One call of the integer recurrence: arguments checked, path chosen, run."""

import numbers

import keras
import numpy as np

from hw3tf.ops.integer_rnn_paths import PATHS
from hw3tf.ops.libraries import kernel_path, logger
from hw3tf.reference.integer_rnn_arguments import ACTIVATIONS, INPUT_DTYPES, OVERFLOWS

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
        tensors = {k: as_array(x) for k, x in tensors.items() if x is not None}
        is_list = tensors["inputs"] is not inputs  # has no dtype to keep
        state, weight = check_dtypes(tensors, any_width=is_list)
        check_shapes(**{name: x.shape for name, x in tensors.items()})
        check_settings(activation, clip, overflow, fractional_bits, state)
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
        self.path = kernel_path()

    def run(self):
        logger.debug("integer_rnn takes the path %s", self.path)
        run = PATHS[self.path.path]
        return run(self.tensors, self.options, self.state_dtype)


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


def _fail_shape(name, expected, shape):
    raise ValueError(
        f"`{name}` must have {expected}. Received: {name}.shape={tuple(shape)}"
    )


def check_shapes(
    inputs, kernel, recurrent_kernel, bias=None, initial_state=None, mask=None
):
    """Raises ValueError if shapes do not fit each other; an axis of unknown size
    passes here and is checked by the kernel (csrc/checks/recurrence_checks.cc)."""
    inputs, kernel = _rank(inputs, 3), _rank(kernel, 2)
    if len(inputs) != 3:
        _fail_shape("inputs", "3 axes: (batch, timesteps, features)", inputs)
    if len(kernel) != 2:
        _fail_shape("kernel", "2 axes: (features, units)", kernel)
    batch, timesteps, features = inputs
    units = kernel[1]
    if features == 0:
        _fail_shape("inputs", "at least one feature", inputs)
    if units == 0:
        _fail_shape("kernel", "at least one unit", kernel)
    for name, shape, wanted in (
        ("kernel", kernel, (features, units)),
        ("recurrent_kernel", recurrent_kernel, (units, units)),
        ("bias", bias, (units,)),
        ("initial_state", initial_state, (batch, units)),
        ("mask", mask, (batch, timesteps)),
    ):
        if shape is None:
            continue
        shape = _rank(shape, len(wanted))
        if len(shape) != len(wanted) or any(
            None not in pair and pair[0] != pair[1]
            for pair in zip(shape, wanted, strict=True)
        ):
            _fail_shape(name, f"shape {wanted}", shape)


def _rank(shape, rank):
    """A tuple; all unknown if the rank is."""
    unknown = getattr(shape, "rank", 0) is None
    return (None,) * rank if unknown else tuple(shape)


def check_settings(activation, clip, overflow, fractional_bits, state):
    """Raises ValueError if an option is not what it must be."""

    def fail(name, expected, value):
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")

    if activation not in ACTIVATIONS:
        fail("activation", f"one of {ACTIVATIONS}", activation)
    if overflow not in OVERFLOWS:
        fail("overflow", f"one of {OVERFLOWS}", overflow)
    limits = np.iinfo(state)
    if not _is_integer(fractional_bits) or not 0 <= fractional_bits < limits.bits:
        fail(
            "fractional_bits",
            f"an integer from 0 to {limits.bits - 1}",
            fractional_bits,
        )
    if activation != "clip":
        if clip is not None:
            fail("clip", "None unless activation='clip'", clip)
        return
    pair = isinstance(clip, (tuple, list)) and len(clip) == 2
    if not pair or not all(map(_is_integer, clip)):
        fail("clip", "a pair of integers (low, high)", clip)
    if not limits.min <= clip[0] <= clip[1] <= limits.max:
        fail("clip", f"an ascending pair within the range of {state}", clip)


def _is_integer(x):
    return isinstance(x, numbers.Integral) and not isinstance(x, bool)


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
