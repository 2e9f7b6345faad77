"""Attention over any axes of a tensor, as one call of the kernel over one axis.

The projected tensors have the axes `(batch, d1, ..., dk, num_heads, features)`. Those
that attention runs over become the kernel's length, the others its batch. The axes of
masks and scores follow Keras: those that attention does not run over, `num_heads`,
those of the query, those of the key.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from hw3tf.layers.fallback import Refused
from hw3tf.ops.shapes import differ

ops = keras.ops

Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class OverAxes:
    """The tensors of a call with the axes that the kernel takes, and the way back.

    Attributes:
        query, key, value: Tensors of shape `(batch, length, num_heads, features)`.
        mask: Tensor with the axes of the scores, `(batch, num_heads, query_length,
            key_length)`, or None.
        query_mask, key_mask: Tensors `(batch, length)`, or None.
        groups, sizes: The axes of the output that are each of the kernel's four, and
            the sizes of all.
        scores_groups, scores_sizes: The same of the scores.
    """

    query: Any
    key: Any
    value: Any
    mask: Any
    query_mask: Any
    key_mask: Any
    groups: Groups
    sizes: Sequence[Any]
    scores_groups: Groups
    scores_sizes: Sequence[Any]

    def output(self, output: Any) -> Any:
        """The output of the kernel with the axes of query."""
        return _split(output, self.groups, self.sizes)

    def scores(self, scores: Any) -> Any:
        """The scores of the kernel, or None, with the axes of a mask."""
        if scores is None:
            return None
        return _split(scores, self.scores_groups, self.scores_sizes)


def check_axes(
    axes: tuple[int, ...], is_causal: bool, sliding_window: int | None
) -> None:
    """Raises `Refused` if there are no `axes`, or if causality or a window is asked for
    over more than one, where nothing is before or near."""
    if len(axes) != 1 and (not axes or is_causal or sliding_window is not None):
        raise Refused(
            "`attention_axes` must be one axis for a causal mask or a sliding "
            "window, and at least one without. Received: "
            f"attention_axes={tuple(axes)}, use_causal_mask={is_causal}, "
            f"sliding_window={sliding_window}"
        )


def over_axes(
    axes: tuple[int, ...],
    query: Any,
    key: Any,
    value: Any,
    mask: Any = None,
    query_mask: Any = None,
    key_mask: Any = None,
) -> OverAxes:
    """Tensors over `axes` as tensors over one axis.

    Args:
        axes: Axes of `query`, from 0 on, at least one.
        query, key, value: Tensors of shape `(batch, d1, ..., dk, num_heads,
            features)`, equal in the axes that attention does not run over. With one
            axis between batch and heads, a batch of 1 serves a larger one.
        mask: Optional tensor with the axes of the scores; those missing are the
            last before the axes of the query.
        query_mask, key_mask: Optional boolean tensors of shape `(batch, d1, ...,
            dk)`. With fewer axes, they are the first of those that attention does
            not run over, and those that it does.

    Raises:
        Refused: If the shapes do not fit each other.
    """
    mask, query_mask, key_mask = (
        None if x is None else ops.convert_to_tensor(x)
        for x in (mask, query_mask, key_mask)
    )
    last = len(query.shape) - 2  # the axis of the heads
    lead = tuple(i for i in range(last) if i not in axes)
    key, value = _fitted(query, key, value, lead)
    if mask is not None:
        mask = _expanded("attention_mask", mask, len(lead) + 1, 2 * len(axes))
    heads = _heads(query, mask, lead, query_mask is None and key_mask is None)
    batch = tuple(i for i in (*lead, last) if i not in heads)
    groups = (batch, axes, heads, (last + 1,))
    sizes, key_sizes = ops.shape(query), ops.shape(key)
    scores_sizes = [sizes[i] for i in (*lead, last, *axes)]
    scores_sizes += [key_sizes[i] for i in axes]
    scores_groups = _scores_groups(lead, batch, heads, len(axes))
    if mask is not None:
        mask = _merged(_evened(mask, scores_groups, scores_sizes), scores_groups)
    return OverAxes(
        query=_merged(query, groups),
        key=_merged(key, groups),
        value=_merged(value, groups),
        mask=mask,
        query_mask=_positions("query_mask", query_mask, query, lead, axes),
        key_mask=_positions("key_mask", key_mask, key, lead, axes),
        groups=groups,
        sizes=[*sizes[:-1], value.shape[-1]],
        scores_groups=scores_groups,
        scores_sizes=scores_sizes,
    )


def _heads(query: Any, mask: Any, lead: tuple[int, ...], free: bool) -> tuple[int, ...]:
    """The axes that become the kernel's heads: `num_heads`, except if the mask is of
    size 1 in some axes of the batch and not in others. Then those where it is, so that
    it needs no copies; `free`: if no other mask ties the batch to `lead`."""
    heads: tuple[int, ...] = (len(query.shape) - 2,)
    if mask is None or not free:
        return heads
    differs = [i for i in lead if query.shape[i] != 1]
    same = [i for i in differs if mask.shape[lead.index(i)] == 1]
    if len(same) in (0, len(differs)):
        return heads
    if mask.shape[len(lead)] == 1:
        same += heads
    known = all(query.shape[i] is not None for i in same)
    return tuple(same) if known else heads


def _scores_groups(
    lead: tuple[int, ...], batch: tuple[int, ...], heads: tuple[int, ...], number: int
) -> Groups:
    """The axes of the scores that are each of the kernel's four: places in `lead`,
    the heads, and `number` axes of query and of key."""
    before = (*lead, max((*batch, *heads)))
    places = [tuple(before.index(i) for i in group) for group in (batch, heads)]
    first = len(before)
    of_query = tuple(range(first, first + number))
    return (*places, of_query, tuple(i + number for i in of_query))


def _fitted(query: Any, key: Any, value: Any, lead: Sequence[int]) -> tuple[Any, Any]:
    """Key and value, checked against query: as one axis, sizes that differ might be
    the same product. Where no axes become one, the kernel checks them."""
    rank = len(query.shape)
    if rank == len(key.shape) == len(value.shape) == 4:
        return key, value
    pairs = (
        ("key", key, "query", query, lead),
        ("value", value, "key", key, range(rank - 2)),
    )
    fitted = []
    for name, x, other_name, other, axes in pairs:
        sizes = [(x.shape[i], other.shape[i]) for i in axes if i < len(x.shape)]
        if len(x.shape) != rank or any(differ(a, b) for a, b in sizes):
            raise Refused(
                f"`{name}` must have the shape of `{other_name}` in the axes "
                f"{tuple(axes)}, of {rank - 1}. Received, projected to heads: "
                f"{name}.shape={tuple(x.shape)}, "
                f"{other_name}.shape={tuple(other.shape)}"
            )
        if sum(a is None or b is None for a, b in sizes) > 1:
            wanted, shape = ops.shape(other), list(ops.shape(x))
            for i in axes:
                shape[i] = wanted[i]
            x = ops.broadcast_to(x, shape)  # an error if it is of another size
        fitted.append(x)
    key, value = fitted
    return key, value


def _expanded(name: str, mask: Any, lead: int, last: int) -> Any:
    """`mask` with `lead` axes before its `last`: those missing have size 1."""
    rank = len(mask.shape)
    if not last <= rank <= lead + last:
        raise Refused(
            f"`{name}` must have from {last} to {lead + last} axes here. "
            f"Received: {name}.shape={tuple(mask.shape)}"
        )
    index = (..., *(None,) * (lead + last - rank), *(slice(None),) * last)
    return mask if rank == lead + last else mask[index]


def _positions(
    name: str, mask: Any, x: Any, lead: tuple[int, ...], axes: tuple[int, ...]
) -> Any:
    """The mask of the positions of `x`, `(batch, length)` as the kernel sees them."""
    if mask is None:
        return None
    order: Sequence[int] = range(len(x.shape) - 2)
    groups: Groups = (lead, axes)
    if len(mask.shape) != len(order):
        mask = _expanded(name, mask, len(lead), len(axes))
        order = (*lead, *axes)
        groups = tuple(range(len(lead))), tuple(range(len(lead), len(order)))
    sizes = ops.shape(x)
    sizes, known = [sizes[i] for i in order], [x.shape[i] for i in order]
    if any(n == 1 and size != 1 for n, size in zip(mask.shape, known, strict=True)):
        mask = ops.broadcast_to(mask, sizes)
    return _merged(_evened(mask, groups, sizes), groups)


def _evened(mask: Any, groups: Groups, sizes: Sequence[Any]) -> Any:
    """`mask` with the axes of a group all of size 1, or all of `sizes`."""
    wanted, even = list(ops.shape(mask)), True
    for group in groups:
        if len(group) == 1 or all(mask.shape[i] == 1 for i in group):
            continue
        for i in group:
            wanted[i] = sizes[i]
            even = even and isinstance(sizes[i], int) and mask.shape[i] == sizes[i]
    return mask if even else ops.broadcast_to(mask, wanted)


def _merged(x: Any, groups: Groups) -> Any:
    """`x` with every group of axes as one."""
    order = sum(groups, ())
    if order != tuple(range(len(order))):
        x = ops.transpose(x, order)
    if all(len(group) == 1 for group in groups):
        return x
    sizes = iter(ops.shape(x))
    return ops.reshape(x, [math.prod(next(sizes) for _ in g) for g in groups])


def _split(x: Any, groups: Groups, sizes: Sequence[Any]) -> Any:
    """What `_merged` was given, of `sizes`, from what it returns."""
    order = sum(groups, ())
    if any(len(group) != 1 for group in groups):
        x = ops.reshape(x, [sizes[i] for i in order])
    if order == tuple(range(len(order))):
        return x
    return ops.transpose(x, sorted(range(len(order)), key=order.__getitem__))
