"""What can be said of the arguments of attention before it runs.

Static shapes only: an axis of unknown size passes here and is checked again by
the kernel, with the same rules (csrc/checks/attention_checks.cc).
"""

import numbers
from typing import Any

import keras


def _fail(name, expected, shape):
    raise ValueError(
        f"`{name}` must have {expected}. Received: {name}.shape={tuple(shape)}"
    )


def _differ(a, b):
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


def check_tensors(query, key, value, packed=False):
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
    if not packed and _differ(k[0], q[0]):
        _fail("key", f"the batch size of `query`, {q[0]}", k)
    if 0 in q[-2:]:
        _fail("query", "at least one head of at least one feature", q)
    if not packed and k[1] == 0:
        _fail("key", "at least one position: attention over no keys is not defined", k)
    heads, kv_heads = q[-2], k[-2]
    if None not in (heads, kv_heads) and (kv_heads == 0 or heads % kv_heads != 0):
        _fail("key", f"a number of heads that divides the {heads} heads of `query`", k)
    if _differ(k[-1], q[-1]):
        _fail("key", f"the head size of `query`, {q[-1]}", k)
    if any(_differ(a, b) for a, b in zip(v[:-1], k[:-1], strict=True)):
        what = "rows and heads" if packed else "batch size, length and heads"
        _fail("value", f"the {what} of `key`, {k}", v)
    if v[-1] == 0:
        _fail("value", "at least one feature", v)


def check_positions(query, key, query_mask, key_mask, query_lengths, key_lengths):
    """Raises ValueError if masks are not (batch, length), lengths not integers of
    shape (batch,). None stands for what is not given."""
    batch = query.shape[0]
    for name, mask, length in (
        ("query_mask", query_mask, query.shape[1]),
        ("key_mask", key_mask, key.shape[1]),
    ):
        if mask is None:
            continue
        if len(mask.shape) != 2:
            _fail(name, "2 axes: (batch, length)", mask.shape)
        if _differ(mask.shape[0], batch) or _differ(mask.shape[1], length):
            _fail(name, f"shape {(batch, length)}", mask.shape)
    for name, lengths in (
        ("query_lengths", query_lengths),
        ("key_lengths", key_lengths),
    ):
        if lengths is None:
            continue
        check_integers(name, lengths)
        if len(lengths.shape) != 1 or _differ(lengths.shape[0], batch):
            _fail(name, f"shape {(batch,)}", lengths.shape)


def check_integers(name, tensor):
    """Raises ValueError if `tensor` is not of an integer dtype."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if not keras.backend.is_int_dtype(dtype):
        raise ValueError(
            f"`{name}` must be of an integer dtype. Received: {name}.dtype={dtype}"
        )


def check_broadcasts(name, shape, query, key, packed=False):
    """Raises ValueError if `shape` does not broadcast to the scores' shape,
    `(batch, num_heads, query_length, key_length)`."""
    if packed:
        scores = (None, query.shape[1], None, None)
    else:
        scores = (query.shape[0], query.shape[2], query.shape[1], key.shape[1])
    fits = len(shape) <= 4 and all(
        size == 1 or not _differ(size, score)
        for size, score in zip(reversed(shape), reversed(scores), strict=False)
    )
    if not fits:
        raise ValueError(
            f"`{name}` must broadcast to (batch, num_heads, query_length, "
            f"key_length) = {scores}. Received: {name}.shape={tuple(shape)}"
        )


def check_numbers(soft_cap, sliding_window, dropout_rate, dropout_seed):
    """Raises ValueError if an option that is a number is not what it must be."""

    def fail(name, expected, value):
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")

    def is_number(x, kind):
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
    elif not (
        is_number(dropout_seed, numbers.Integral) and -(2**63) <= dropout_seed < 2**64
    ):
        fail("dropout_seed", "an integer of 64 bits", dropout_seed)
