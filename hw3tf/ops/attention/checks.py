"""Checks of the arguments of attention before it runs.

Static shapes only: an axis of unknown size passes here and is checked again by
the kernel, with the same rules (csrc/operations/attention.cc).
"""

import numbers
from collections.abc import Mapping
from typing import Any, NoReturn

import keras

from hw3tf.ops.arguments import check_integers, check_lengths, is_ragged
from hw3tf.ops.attention.options import AttentionOptions
from hw3tf.ops.operations import ATTENTION, TensorDescription
from hw3tf.ops.shapes import (
    Shape,
    Size,
    broadcast_size,
    broadcasts,
    differ,
    disagreeing_axis,
)

BATCH = "B"
WORDS = {
    BATCH: "batch",
    "T": "query_length",
    "S": "key_length",
    "N": "num_heads",
    "K": "num_kv_heads",
    "H": "head_dim",
    "V": "value_dim",
}
SCORES = next(x.axes for x in ATTENTION.operands if x.name == "mask")

# What lengths are the lengths of.
LENGTHS = {"query_lengths": ("query", "T"), "key_lengths": ("key", "S")}

Sizes = dict[str, Size]


def _fail(name: str, expected: str, shape: Any) -> NoReturn:
    raise ValueError(
        f"`{name}` must have {expected}. Received: {name}.shape={tuple(shape)}"
    )


def check_not_ragged(**tensors: Any) -> None:
    """Raises ValueError, naming the argument, if one is a `tf.RaggedTensor`."""
    for name, x in tensors.items():
        if is_ragged(x):
            raise ValueError(
                f"`{name}` must be a dense tensor. Received: a tf.RaggedTensor of "
                f"shape {x.shape}. For sequences of different lengths without padding "
                "there is `hw3tf.ops.ragged_dot_product_attention`"
            )


def check_call(
    query: Any,
    key: Any,
    value: Any,
    tensors: Mapping[str, Any],
    options: AttentionOptions,
    packed: bool = False,
) -> Sizes:
    """Raises ValueError, naming the argument, what was expected and what came.

    Args:
        query, key, value: Tensors or `KerasTensor`s.
        tensors: The tensors among the options by their names, likewise.
        options: As they were given, for their numbers and the values of lengths.
        packed: Whether the sequences are packed: without the axis of the batch, and
            of independent lengths.

    Returns:
        The sizes of the axes by their letters, None for one that is not known.
    """
    inputs = {"query": query, "key": key, "value": value}
    shapes = {
        operand.name: _checked_input(operand, inputs[operand.name], packed)
        for operand in ATTENTION.required
    }
    sizes = _checked_sizes(shapes, packed)
    given = [operand for operand in ATTENTION.optional if operand.name in tensors]
    for name, (of, axis) in LENGTHS.items():
        if name in tensors:
            check_lengths(name, getattr(options, name), of, sizes[axis])
    for operand in given:
        if not operand.broadcasts and not packed:
            _check_positions(operand, tensors[operand.name], sizes)
    check_numbers(options)
    scores = tuple(sizes[axis] for axis in SCORES)
    for operand in given:
        shape = tensors[operand.name].shape
        if operand.broadcasts and not broadcasts(shape, scores):
            words = ", ".join(WORDS[axis] for axis in SCORES)
            raise ValueError(
                f"`{operand.name}` must broadcast to ({words}) = {scores}. "
                f"Received: {operand.name}.shape={tuple(shape)}"
            )
    return sizes


def _checked_input(operand: TensorDescription, x: Any, packed: bool) -> Shape:
    """The shape of query, key or value, which has the axes and a float dtype."""
    words = [WORDS[axis] for axis in operand.axes]
    if packed:
        words = ["total_" + words[1], *words[2:]]
    if len(x.shape) != len(words):
        _fail(operand.name, f"{len(words)} axes: ({', '.join(words)})", x.shape)
    dtype = keras.backend.standardize_dtype(x.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(
            f"`{operand.name}` must be of a floating-point dtype. "
            f"Received: {operand.name}.dtype={dtype}"
        )
    return tuple(x.shape)


def _checked_sizes(shapes: dict[str, Shape], packed: bool) -> Sizes:
    """The sizes of the axes of query, key and value, which agree. In a packed call the
    batch size and the lengths of its sequences are not known."""
    axes = {x.name: x.axes[1:] if packed else x.axes for x in ATTENTION.required}
    named = {n: dict(zip(axes[n], shapes[n], strict=True)) for n in shapes}
    q, k, v = (shapes[name] for name in ("query", "key", "value"))
    if not packed:
        _check_batch(shapes)
    if 0 in q[-2:]:
        _fail("query", "at least one head of at least one feature", q)
    heads, kv_heads = q[-2], k[-2]
    if not (heads is None or kv_heads is None or (kv_heads and heads % kv_heads == 0)):
        _fail("key", f"a number of heads that divides the {heads} heads of `query`", k)
    if disagreeing_axis(axes["key"], k, {"H": q[-1]}):
        _fail("key", f"the head size of `query`, {q[-1]}", k)
    of_key = {axis: named["key"][axis] for axis in ("S", "K")}
    if disagreeing_axis(axes["value"], v, of_key):
        what = "rows and heads" if packed else "length and heads"
        _fail("value", f"the {what} of `key`, {k}", v)
    if v[-1] == 0:
        _fail("value", "at least one feature", v)
    # Without `|`, which torch.compile does not follow before PyTorch 2.9.
    sizes = {**named["value"], **named["key"], **named["query"]}
    if packed:
        return {**sizes, BATCH: None, "T": None, "S": None}
    return {**sizes, BATCH: broadcast_size(shape[0] for shape in shapes.values())}


def _check_batch(shapes: dict[str, Shape]) -> None:
    """Batch sizes are equal or 1."""
    first, batch = "query", None
    for name, shape in shapes.items():
        if shape[0] in (1, None):
            continue
        if differ(shape[0], batch):
            _fail(name, f"the batch size of `{first}`, {batch}, or 1", shape)
        if batch is None:
            first, batch = name, shape[0]


def _check_positions(operand: TensorDescription, x: Any, sizes: Sizes) -> None:
    """Masks are (batch, length), lengths integers of shape (batch,); their batch may be
    1."""
    if operand.type != "bool":
        check_integers(operand.name, x)
    right_rank = len(x.shape) == len(operand.axes)
    if not right_rank and operand.type == "bool":
        _fail(operand.name, f"{len(operand.axes)} axes: (batch, length)", x.shape)
    if not right_rank or disagreeing_axis(operand.axes, x.shape, sizes, BATCH):
        wanted = tuple(sizes[axis] for axis in operand.axes)
        _fail(operand.name, f"shape {wanted}", x.shape)


def check_seed(name: str, seed: Any) -> None:
    """Raises ValueError unless `seed` is an integer of 64 bits, signed or not."""
    is_integer = isinstance(seed, numbers.Integral) and not isinstance(seed, bool)
    if not (is_integer and -(2**63) <= seed < 2**64):
        raise ValueError(
            f"`{name}` must be an integer of 64 bits. Received: {name}={seed!r}"
        )


def check_numbers(options: AttentionOptions) -> None:
    """Raises ValueError if an option that is a number is not what it must be."""

    def fail(name: str, expected: str) -> NoReturn:
        value = getattr(options, name)
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")

    def is_number(x: Any, kind: type) -> bool:
        return isinstance(x, kind) and not isinstance(x, bool)

    soft_cap, window = options.attn_logits_soft_cap, options.sliding_window
    if soft_cap is not None and not (
        is_number(soft_cap, numbers.Real) and 0 < soft_cap < float("inf")
    ):
        fail("attn_logits_soft_cap", "None or a positive number")
    if window is not None and not (is_number(window, numbers.Integral) and window > 0):
        fail("sliding_window", "None or a positive integer")
    rate, seed = options.dropout_rate, options.dropout_seed
    if not (is_number(rate, numbers.Real) and 0 <= rate < 1):
        fail("dropout_rate", "a number from 0 to 1, exclusive")
    if rate == 0:
        return  # the seed decides nothing
    if seed is None:
        raise ValueError(
            "`dropout_seed` must be given where `dropout_rate` is not 0. "
            f"Received: dropout_rate={rate}, dropout_seed=None"
        )
    if hasattr(seed, "dtype"):  # a tensor, an array or a NumPy number
        check_integers("dropout_seed", seed)
        if len(seed.shape) != 0:
            _fail("dropout_seed", "no axes", seed.shape)
    else:
        check_seed("dropout_seed", seed)
