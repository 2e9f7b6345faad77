"""What can be said of the arguments of attention before it runs.

Static shapes only: an axis of unknown size passes here and is checked again by
the kernel, with the same rules (csrc/operations/attention.cc).
"""

import numbers
from typing import Any, NoReturn

import keras
import numpy as np


def _fail(name: str, expected: str, shape: Any) -> NoReturn:
    raise ValueError(
        f"`{name}` must have {expected}. Received: {name}.shape={tuple(shape)}"
    )


def _differ(a: int | None, b: int | None) -> bool:
    return a is not None and b is not None and a != b


def is_ragged(x: Any) -> bool:
    """Whether `x` is a `tf.RaggedTensor`."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return isinstance(x, tf.RaggedTensor)


def check_not_ragged(**tensors: Any) -> None:
    """Raises ValueError, naming the argument, if one is a `tf.RaggedTensor`."""
    for name, x in tensors.items():
        if is_ragged(x):
            raise ValueError(
                f"`{name}` must be a dense tensor. Received: a tf.RaggedTensor of "
                f"shape {x.shape}. For sequences of different lengths without padding "
                "there is `hw3tf.ops.ragged_dot_product_attention`"
            )


def batch_of(*tensors: Any) -> int | None:
    """The batch size of a call: sizes are equal or 1, as in NumPy's rules. None if it
    is not known before the graph runs."""
    sizes = [x.shape[0] for x in tensors]
    larger = [size for size in sizes if size not in (1, None)]
    if larger:
        return larger[0]
    return None if None in sizes else 1


def check_tensors(query: Any, key: Any, value: Any, packed: bool = False) -> None:
    """Raises ValueError, naming the argument, what was expected and what came.

    Args:
        query, key, value: Tensors or `KerasTensor`s.
        packed: Whether they are packed sequences: without the axis of the batch,
            and of independent lengths.
    """
    begin = "(total_" if packed else "(batch, "
    axes = {
        "query": (query, "query_length, num_heads, head_dim)"),
        "key": (key, "key_length, num_kv_heads, head_dim)"),
        "value": (value, "key_length, num_kv_heads, value_dim)"),
    }
    rank = 3 if packed else 4
    for name, (tensor, wanted) in axes.items():
        if len(tensor.shape) != rank:
            _fail(name, f"{rank} axes: {begin}{wanted}", tensor.shape)
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if not keras.backend.is_float_dtype(dtype):
            raise ValueError(
                f"`{name}` must be of a floating-point dtype. "
                f"Received: {name}.dtype={dtype}"
            )
    q, k, v = (tuple(x.shape) for x in (query, key, value))
    if not packed:
        _check_batch(q, k, v)
    if 0 in q[-2:]:
        _fail("query", "at least one head of at least one feature", q)
    heads, kv_heads = q[-2], k[-2]
    if None not in (heads, kv_heads) and (kv_heads == 0 or heads % kv_heads != 0):
        _fail("key", f"a number of heads that divides the {heads} heads of `query`", k)
    if _differ(k[-1], q[-1]):
        _fail("key", f"the head size of `query`, {q[-1]}", k)
    if any(_differ(a, b) for a, b in zip(v[-3:-1], k[-3:-1], strict=True)):
        what = "rows and heads" if packed else "length and heads"
        _fail("value", f"the {what} of `key`, {k}", v)
    if v[-1] == 0:
        _fail("value", "at least one feature", v)


def _check_batch(*shapes: tuple) -> None:
    first, batch = "query", None
    for name, shape in zip(("query", "key", "value"), shapes, strict=True):
        if shape[0] in (1, None):
            continue
        if _differ(shape[0], batch):
            _fail(name, f"the batch size of `{first}`, {batch}, or 1", shape)
        if batch is None:
            first, batch = name, shape[0]


def check_positions(
    query: Any,
    key: Any,
    value: Any,
    query_mask: Any,
    key_mask: Any,
    query_lengths: Any,
    key_lengths: Any,
) -> None:
    """Raises ValueError if masks are not (batch, length), lengths not integers of
    shape (batch,); their batch may be 1. None stands for what is not given."""
    batch = batch_of(query, key, value)
    for name, mask, length in (
        ("query_mask", query_mask, query.shape[1]),
        ("key_mask", key_mask, key.shape[1]),
    ):
        if mask is None:
            continue
        if len(mask.shape) != 2:
            _fail(name, "2 axes: (batch, length)", mask.shape)
        if not _shares(mask.shape[0], batch) or _differ(mask.shape[1], length):
            _fail(name, f"shape {(batch, length)}", mask.shape)
    for name, lengths in (
        ("query_lengths", query_lengths),
        ("key_lengths", key_lengths),
    ):
        if lengths is None:
            continue
        check_integers(name, lengths)
        if len(lengths.shape) != 1 or not _shares(lengths.shape[0], batch):
            _fail(name, f"shape {(batch,)}", lengths.shape)


def check_lengths(name: str, lengths: Any, of: str, limit: int | None) -> None:
    """Raises ValueError if a length is not from 0 to `limit`, as far as values are
    known. Those of 64 bits would not survive the kernels' 32.

    Args:
        name, lengths: The argument; None if it is not given.
        of, limit: The argument whose lengths they are, and its length.
    """
    try:
        values = np.asarray([] if lengths is None else lengths).ravel()
    except Exception:  # symbolic
        return
    if values.dtype.kind not in "iu" or np.can_cast(values.dtype, "int32"):
        return  # the kernels check these, in graphs, too
    limit = 2**31 - 1 if limit is None else limit
    wrong = (values < 0) | (values > limit)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(
            f"`{name}` must be between 0 and the length of `{of}`, {limit}. "
            f"Received: {name}[{at}]={values[at]}"
        )


def _shares(size: int | None, batch: int | None) -> bool:
    return size == 1 or not _differ(size, batch)


def check_integers(name: str, tensor: Any) -> None:
    """Raises ValueError if `tensor` is not of an integer dtype."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if not keras.backend.is_int_dtype(dtype):
        raise ValueError(
            f"`{name}` must be of an integer dtype. Received: {name}.dtype={dtype}"
        )


def check_broadcasts(name: str, shape: tuple, scores: tuple) -> None:
    """Raises ValueError if `shape` does not broadcast to that of the scores.

    Args:
        name: The argument.
        shape: Its shape.
        scores: `(batch, num_heads, query_length, key_length)`, None where not known.
    """
    fits = len(shape) <= 4 and all(
        _shares(size, score)
        for size, score in zip(reversed(shape), reversed(scores), strict=False)
    )
    if not fits:
        raise ValueError(
            f"`{name}` must broadcast to (batch, num_heads, query_length, "
            f"key_length) = {scores}. Received: {name}.shape={tuple(shape)}"
        )


def check_seed(name: str, seed: Any) -> None:
    """Raises ValueError unless `seed` is an integer of 64 bits, signed or not."""
    is_integer = isinstance(seed, numbers.Integral) and not isinstance(seed, bool)
    if not (is_integer and -(2**63) <= seed < 2**64):
        raise ValueError(
            f"`{name}` must be an integer of 64 bits. Received: {name}={seed!r}"
        )


def check_numbers(
    soft_cap: Any, sliding_window: Any, dropout_rate: Any, dropout_seed: Any
) -> None:
    """Raises ValueError if an option that is a number is not what it must be."""

    def fail(name: str, expected: str, value: Any) -> NoReturn:
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")

    def is_number(x: Any, kind: type) -> bool:
        return isinstance(x, kind) and not isinstance(x, bool)

    if soft_cap is not None and not (
        is_number(soft_cap, numbers.Real) and 0 < soft_cap < float("inf")
    ):
        fail("attn_logits_soft_cap", "None or a positive number", soft_cap)
    if sliding_window is not None and not (
        is_number(sliding_window, numbers.Integral) and sliding_window > 0
    ):
        fail("sliding_window", "None or a positive integer", sliding_window)
    if not (is_number(dropout_rate, numbers.Real) and 0 <= dropout_rate < 1):
        fail("dropout_rate", "a number from 0 to 1, exclusive", dropout_rate)
    if dropout_rate == 0:
        return  # the seed decides nothing
    if dropout_seed is None:
        raise ValueError(
            "`dropout_seed` must be given where `dropout_rate` is not 0. "
            f"Received: dropout_rate={dropout_rate}, dropout_seed=None"
        )
    if hasattr(dropout_seed, "dtype"):  # a tensor, an array or a NumPy number
        check_integers("dropout_seed", dropout_seed)
        if len(dropout_seed.shape) != 0:
            _fail("dropout_seed", "no axes", dropout_seed.shape)
    else:
        check_seed("dropout_seed", dropout_seed)
