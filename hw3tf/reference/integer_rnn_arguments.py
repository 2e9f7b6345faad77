"""Checks of the arguments of the integer recurrence: dtypes, shapes and options."""

import numbers
from collections.abc import Sequence
from typing import Any, NoReturn, TypeAlias

from keras import backend

from hw3tf._types import Tensor

INPUT_DTYPES = ("bool", "int8", "uint8", "int16", "int32", "int64")
WEIGHT_DTYPES = ("int8", "int32", "int64")
ACTIVATIONS = (None, "relu", "sign", "clip")
OVERFLOWS = ("raise", "wrap", "saturate")

Shape: TypeAlias = Sequence[int | None]


def state_dtype(recurrent_kernel: Tensor) -> str:
    """The dtype of the state: that of the recurrent kernel, but int32 for int8."""
    dtype = backend.standardize_dtype(recurrent_kernel.dtype)
    return "int32" if dtype == "int8" else dtype


def check_tensors(
    inputs: Tensor,
    kernel: Tensor,
    recurrent_kernel: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    mask: Tensor | None,
) -> None:
    """Raises TypeError unless the dtypes fit, and ValueError unless the shapes do, as
    far as they are known."""
    _check_dtype("inputs", inputs, INPUT_DTYPES)
    _check_dtype("recurrent_kernel", recurrent_kernel, WEIGHT_DTYPES)
    _check_dtype("kernel", kernel, ("int8", state_dtype(recurrent_kernel)))
    dtype = state_dtype(recurrent_kernel)
    for name, x, expected in (
        ("bias", bias, (dtype,)),
        ("initial_state", initial_state, (dtype,)),
        ("mask", mask, ("bool",)),
    ):
        if x is not None:
            _check_dtype(name, x, expected)
    given = (inputs, kernel, recurrent_kernel, bias, initial_state, mask)
    shapes: list[Any] = [None if x is None else x.shape for x in given]
    check_shapes(*shapes)


def _check_dtype(name: str, x: Tensor, expected: Sequence[str]) -> None:
    dtype = backend.standardize_dtype(x.dtype)
    expected = [backend.standardize_dtype(d) for d in expected]
    if dtype not in expected:
        raise TypeError(
            f"`{name}` must have dtype {' or '.join(expected)}. "
            f"Received: {name}.dtype={dtype}"
        )


def check_shapes(
    inputs: Shape,
    kernel: Shape,
    recurrent_kernel: Shape,
    bias: Shape | None = None,
    initial_state: Shape | None = None,
    mask: Shape | None = None,
) -> None:
    """Raises ValueError if shapes do not fit each other; an axis of unknown size
    passes here and is checked by the kernel (csrc/operations/integer_rnn.cc)."""
    inputs, kernel = _axes(inputs, 3), _axes(kernel, 2)
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
        shape = _axes(shape, len(wanted))
        if len(shape) != len(wanted) or any(
            None not in pair and pair[0] != pair[1]
            for pair in zip(shape, wanted, strict=True)
        ):
            _fail_shape(name, f"shape {wanted}", shape)


def _fail_shape(name: str, expected: str, shape: Shape) -> NoReturn:
    raise ValueError(
        f"`{name}` must have {expected}. Received: {name}.shape={tuple(shape)}"
    )


def _axes(shape: Shape, rank: int) -> tuple[int | None, ...]:
    """The shape as a tuple; all sizes unknown if the rank is unknown."""
    unknown = getattr(shape, "rank", 0) is None
    return (None,) * rank if unknown else tuple(shape)


def check_options(
    activation: str | None,
    clip: Sequence[int] | None,
    overflow: str,
    fractional_bits: int,
    dtype: str,
) -> None:
    """Raises ValueError if an option has an invalid value."""

    def fail(name: str, expected: str, value: object) -> NoReturn:
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")

    if activation not in ACTIVATIONS:
        fail("activation", f"one of {ACTIVATIONS}", activation)
    if overflow not in OVERFLOWS:
        fail("overflow", f"one of {OVERFLOWS}", overflow)
    bits = int(dtype[3:])
    if not _is_integer(fractional_bits) or not 0 <= fractional_bits < bits:
        fail("fractional_bits", f"an integer from 0 to {bits - 1}", fractional_bits)
    if activation != "clip":
        if clip is not None:
            fail("clip", "None unless activation='clip'", clip)
        return
    if not isinstance(clip, (tuple, list)) or len(clip) != 2:
        fail("clip", "a pair of integers (low, high)", clip)
    if not all(map(_is_integer, clip)):
        fail("clip", "a pair of integers (low, high)", clip)
    if not -(2 ** (bits - 1)) <= clip[0] <= clip[1] < 2 ** (bits - 1):
        fail("clip", f"an ascending pair within the range of {dtype}", clip)


def _is_integer(x: object) -> bool:
    return isinstance(x, numbers.Integral) and not isinstance(x, bool)
