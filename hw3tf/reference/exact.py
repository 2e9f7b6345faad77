"""Sums of products of integers in pure Keras, exact whatever their size.

A wide number is an int64 tensor with the axis 1 for its parts, the lowest first: the
value is `sum(part[k] * 2**(16 * k))`. The parts of a sum of products are themselves
exact as long as fewer than `2**29` products are added: each is below `2**32`, and at
most four share a part. `carried` brings them into digits from 0 to 65535.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from keras import backend, ops

from hw3tf._types import DType, Tensor

_BITS = 16
_MASK = 2**_BITS - 1
_NUM_DIGITS = {"int32": 2, "int64": 4}


def int64(value: int | list[int]) -> Tensor:
    """The int64 tensor of Python integers.

    Raises:
        NotImplementedError: If the backend, JAX as it is by default, has none.
    """
    tensor = ops.convert_to_tensor(np.asarray(value, "int64"))
    if backend.standardize_dtype(tensor.dtype) != "int64":
        raise NotImplementedError(
            "exact sums need integers of 64 bits; JAX has them with JAX_ENABLE_X64=1"
        )
    return tensor


def product(a: Tensor, b: Tensor, axes: int) -> Tensor:
    """`tensordot` of integers, modulo `2**bits` of their dtype.

    Not `ops.matmul`, which goes through float32; under PyTorch, neither
    `ops.tensordot`, which does so there.

    Args:
        a: Integer tensor of `axes + 1` axes.
        b: Integer tensor of the same dtype, whose first `axes` axes are the last of
            `a`.
        axes: 1 or 2.
    """
    if backend.backend() != "torch":
        return ops.tensordot(a, b, axes)
    shape = (a.shape[0], *b.shape[axes:])
    a, b = ops.reshape(a, (shape[0], -1)), ops.reshape(b, (-1, math.prod(shape[1:])))
    return ops.reshape(ops.sum(a[:, :, None] * b, axis=1), shape)


def num_digits(dtype: DType) -> int:
    """How many digits the integers of a dtype have."""
    return _NUM_DIGITS.get(backend.standardize_dtype(dtype), 1)


def digits(x: Tensor, axis: int) -> Tensor:
    """The digits of an integer tensor along a new axis: 0 to 65535 each, but the
    highest has the sign."""
    parts, rest = [], ops.cast(x, "int64")
    for _ in range(num_digits(x.dtype) - 1):
        parts.append(ops.bitwise_and(rest, int64(_MASK)))
        rest = ops.right_shift(rest, int64(_BITS))
    return ops.stack([*parts, rest], axis=axis)


def factor(weights: Tensor, num_digits: int, num_parts: int) -> Tensor:
    """The factor with which the digits of a matrix give a wide number.

    A product of two numbers in digits is the convolution of the digits. As a
    matrix, it is the digits of one factor, once for every digit of the other, each
    time one part higher.

    Args:
        weights: Integer tensor of shape `(features, units)`.
        num_digits: The digits that the other factor has.
        num_parts: The parts of the product.

    Returns:
        int64 tensor of shape `(num_digits, features, num_parts, units)`. With it,
        `product(digits(x, axis=1), factor, 2)` is `x @ weights`.
    """
    parts = digits(weights, axis=1)
    above = num_parts - parts.shape[1]  # at least num_digits - 1
    return ops.stack(
        [ops.pad(parts, ((0, 0), (i, above - i), (0, 0))) for i in range(num_digits)]
    )


def half(bits: int, num_parts: int) -> Tensor:
    """The number that is added before a rounding shift by `bits`, `2**(bits - 1)`: a
    wide number of the shape `(num_parts, 1)`, zero for no bits."""
    parts = [0] * num_parts
    if bits:
        parts[(bits - 1) // _BITS] = 1 << (bits - 1) % _BITS
    return int64(parts)[:, None]


def carried(number: Tensor) -> tuple[list[Tensor], Tensor]:
    """The digits of a wide number, each 0 to 65535, as a list, and its sign, 0 or
    -1, which stands for all higher digits."""
    carry, result = int64(0), []
    for k in range(number.shape[1] + 4):  # the last carry has 63 bits: four digits
        carry = carry + number[:, k] if k < number.shape[1] else carry
        result.append(ops.bitwise_and(carry, int64(_MASK)))
        carry = ops.right_shift(carry, int64(_BITS))
    return result, carry


def shifted(digits: Sequence[Tensor], sign: Tensor, bits: int) -> list[Tensor]:
    """The digits of `floor(x / 2**bits)`, for those of `x` and its sign."""
    whole, rest = divmod(bits, _BITS)
    digits = [*digits, ops.bitwise_and(sign, int64(_MASK))][whole:]
    if rest == 0:
        return digits
    return [
        ops.bitwise_or(
            ops.right_shift(low, int64(rest)),
            ops.bitwise_and(ops.left_shift(high, int64(_BITS - rest)), int64(_MASK)),
        )
        for low, high in itertools.pairwise(digits)
    ]


def narrowed(
    digits: Sequence[Tensor], sign: Tensor, dtype: str, saturate: bool = False
) -> tuple[Tensor, Tensor]:
    """A number in the range of `dtype`, and where it was outside.

    Args:
        digits, sign: As `carried` returns them.
        dtype: `"int32"` or `"int64"`.
        saturate: Whether a number outside becomes the nearest of the range;
            otherwise its lowest bits are kept, two's complement.

    Returns:
        Tensor of `dtype`, and a boolean tensor.
    """
    count = num_digits(dtype)
    bits = count * _BITS
    # The highest digit that is kept is read as signed.
    top = ops.bitwise_xor(digits[count - 1], int64(2**15)) - int64(2**15)
    value = top * int64(2 ** (bits - _BITS))
    for k, digit in enumerate(digits[: count - 1]):
        value = value + digit * int64(2 ** (_BITS * k))
    # It fits if all omitted digits repeat its sign.
    expected = ops.right_shift(value, int64(63))
    left_out = ops.stack([*digits[count:], ops.bitwise_and(sign, int64(_MASK))])
    repeated = ops.equal(left_out, ops.bitwise_and(expected, int64(_MASK)))
    outside = ops.logical_not(ops.all(repeated, axis=0))
    if saturate:
        low, high = int64(-(2 ** (bits - 1))), int64(2 ** (bits - 1) - 1)
        value = ops.where(outside, ops.where(sign < int64(0), low, high), value)
    return ops.cast(value, dtype), outside
