"""Sizes of axes that have to agree, as far as they are known.

A size is an integer, or None where only a running graph knows it. What is not known
passes here and is checked by the kernels (csrc/operations).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Size = int | None
Shape = tuple[Size, ...]


def differ(a: Size, b: Size) -> bool:
    """Whether two sizes are known and not equal."""
    return a is not None and b is not None and a != b


def fits(size: Size, wanted: Size) -> bool:
    """Whether an axis of `size` serves as one of `wanted`: it is equal or 1."""
    return size == 1 or not differ(size, wanted)


def broadcasts(shape: Sequence[Size], wanted: Sequence[Size]) -> bool:
    """Whether `shape` broadcasts to `wanted`, by NumPy's rules."""
    return len(shape) <= len(wanted) and all(
        map(fits, reversed(shape), reversed(wanted))
    )


def broadcast_size(sizes: Iterable[Size]) -> Size:
    """What sizes broadcast to that are equal or 1; None if it is not known."""
    unknown = False
    for size in sizes:
        if size is None:
            unknown = True
        elif size != 1:
            return size
    return None if unknown else 1


def batch_of(*tensors: Any) -> Size:
    """The batch size of a call: the sizes of the first axes are equal or 1."""
    return broadcast_size(x.shape[0] for x in tensors)


def disagreeing_axis(
    axes: Sequence[str],
    shape: Sequence[Size],
    sizes: Mapping[str, Size],
    shared: str = "",
) -> str:
    """The name of the first axis that is not of the size that it has elsewhere.

    Args:
        axes: The names of the axes of `shape`.
        shape: As many sizes.
        sizes: The sizes by names, as far as there are any.
        shared: The name of the axis that may be 1 as well.

    Returns:
        Empty if all agree.
    """
    for axis, size in zip(axes, shape, strict=True):
        wanted = sizes.get(axis)
        if differ(size, wanted) and not (axis == shared and size == 1):
            return axis
    return ""
