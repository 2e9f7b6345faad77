"""Shapes of what an attention layer is called with, in the words of the caller.

The kernel checks again what it is given. By then keys are projected and masks are
joined, and no message could name the argument that is wrong.
"""

from collections.abc import Sequence
from typing import Any

from hw3tf.layers.fallback import Refused
from hw3tf.ops.attention.checks import check_not_ragged
from hw3tf.ops.shapes import Shape, batch_of, broadcasts, differ


def check_inputs(
    axes: Sequence[int],
    heads: int,
    query: Any,
    value: Any,
    key: Any = None,
    *,
    query_mask: Any = None,
    value_mask: Any = None,
    key_mask: Any = None,
    attention_mask: Any = None,
) -> None:
    """Raises an error if shapes do not fit each other. Unknown sizes pass.

    Args:
        axes: The axes that attention runs over.
        heads: How many heads the query has.
        query, ...: As for `keras.layers.MultiHeadAttention.call`; tensors or None. The
            masks are not ragged.

    Raises:
        Refused: If a shape is wrong.
        ValueError: If a tensor is ragged.
    """
    key_name, key = ("value", value) if key is None else ("key", key)
    tensors = {"query": query, "value": value, key_name: key}
    masks = {"query_mask": query_mask, "value_mask": value_mask, "key_mask": key_mask}
    check_not_ragged(**tensors)
    sizes = {name: tuple(x.shape)[:-1] for name, x in tensors.items()}
    rank = len(sizes["query"])
    lead = [i for i in range(rank) if i not in axes]
    _check_axes(key_name, sizes, "value", range(rank))
    _check_axes(key_name, sizes, "query", lead)
    batch = batch_of(query, value, key)
    sizes["key"] = sizes[key_name]
    for name, mask in masks.items():
        if mask is None:
            continue
        own = (batch, *sizes[name.removesuffix("_mask")][1:])
        if len(mask.shape) < rank:  # the first of `lead`, and the axes of attention
            more = max(0, len(mask.shape) - len(axes))
            own = (*(own[i] for i in lead[:more]), *(own[i] for i in axes))
        _check_broadcasts(name, mask.shape, own)
    if attention_mask is not None:
        before = [(batch, *sizes["query"][1:])[i] for i in lead] + [heads]
        ends = [sizes[name][i] for name in ("query", "key") for i in axes]
        missing = len(before) + len(ends) - len(attention_mask.shape)
        if len(attention_mask.shape) < len(ends) or missing < 0:
            raise Refused(
                f"`attention_mask` must have from {len(ends)} to "
                f"{len(before) + len(ends)} axes here. Received: "
                f"attention_mask.shape={tuple(attention_mask.shape)}"
            )
        wanted = (*before[: len(before) - missing], *ends)
        _check_broadcasts("attention_mask", attention_mask.shape, wanted)


def _check_axes(name: str, sizes: dict[str, Shape], other: str, axes: Any) -> None:
    """Raises `Refused` if `name` and `other` differ in `axes`. A batch of 1 serves a
    larger one, if attention is all that there is between batch and features."""
    ours, theirs = sizes[name], sizes[other]
    if len(ours) == len(theirs) and all(
        not differ(ours[i], theirs[i])
        or (i == 0 and len(ours) == 2 and 1 in (ours[0], theirs[0]))
        for i in axes
    ):
        return
    raise Refused(
        f"`{name}` must have the shape of `{other}` in the axes {tuple(axes)}, of "
        f"{len(theirs) + 1}. Received, without features: {name}={ours}, "
        f"{other}={theirs}"
    )


def _check_broadcasts(name: str, shape: Any, wanted: Shape) -> None:
    """Raises `Refused` if `shape` does not broadcast to `wanted`."""
    if len(shape) == len(wanted) and broadcasts(shape, wanted):
        return
    raise Refused(
        f"`{name}` must have the shape {wanted}, or 1 in some axes. "
        f"Received: {name}.shape={tuple(shape)}"
    )
