"""What can be said of the arguments of attention before it runs.

Static shapes only: an axis of unknown size passes here and is checked again by
the kernel, with the same rules (csrc/checks/attention_checks.cc).
"""

import keras


def _fail(name, expected, shape):
    raise ValueError(
        f"`{name}` must have {expected}. Received: {name}.shape={tuple(shape)}"
    )


def _differ(a, b):
    return a is not None and b is not None and a != b


def check_arguments(query, key, value, query_mask=None, key_mask=None):
    """Raises ValueError, naming the argument, what was expected and what came.

    Args:
        query, key, value: Tensors or `KerasTensor`s.
        query_mask, key_mask: The same, or None.
    """
    axes = {
        "query": (query, "(batch, query_length, num_heads, head_dim)"),
        "key": (key, "(batch, key_length, num_kv_heads, head_dim)"),
        "value": (value, "(batch, key_length, num_kv_heads, value_dim)"),
    }
    for name, (tensor, wanted) in axes.items():
        if len(tensor.shape) != 4:
            _fail(name, f"4 axes: {wanted}", tensor.shape)
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if not keras.backend.is_float_dtype(dtype):
            raise ValueError(
                f"`{name}` must be of a floating-point dtype. "
                f"Received: {name}.dtype={dtype}"
            )
    q, k, v = query.shape, key.shape, value.shape
    if _differ(k[0], q[0]):
        _fail("key", f"the batch size of `query`, {q[0]}", k)
    if 0 in (q[2], q[3]):
        _fail("query", "at least one head of at least one feature", q)
    if k[1] == 0:
        _fail("key", "at least one position: attention over no keys is not defined", k)
    if None not in (q[2], k[2]) and (k[2] == 0 or q[2] % k[2] != 0):
        _fail("key", f"a number of heads that divides the {q[2]} heads of `query`", k)
    if _differ(k[3], q[3]):
        _fail("key", f"the head size of `query`, {q[3]}", k)
    if any(_differ(a, b) for a, b in zip(v[:3], k[:3], strict=True)):
        _fail("value", f"the batch size, length and heads of `key`, {tuple(k)}", v)
    if v[3] == 0:
        _fail("value", "at least one feature", v)
    for name, mask, length in (
        ("query_mask", query_mask, q[1]),
        ("key_mask", key_mask, k[1]),
    ):
        if mask is None:
            continue
        if len(mask.shape) != 2:
            _fail(name, "2 axes: (batch, length)", mask.shape)
        if _differ(mask.shape[0], q[0]) or _differ(mask.shape[1], length):
            _fail(name, f"shape {(q[0], length)}", mask.shape)


def check_broadcasts(name, shape, query, key):
    """Raises ValueError if `shape` does not broadcast to the scores' shape,
    `(batch, num_heads, query_length, key_length)`."""
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
