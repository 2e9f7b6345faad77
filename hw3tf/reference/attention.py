"""Scaled dot-product attention in pure Keras, with every option."""

from collections.abc import Sequence

import numpy as np
from keras import backend, ops

from hw3tf._types import DType, Tensor
from hw3tf.reference.dropout import attention_dropout_mask

# The score of a masked key: finite, so that a query that sees no key gets equal
# weights, the mean of all values, instead of NaN. Keras's own number.
_MASKED = -0.7 * 3.38953e38


def lowest(dtype: DType) -> np.ndarray:
    """The lowest finite number of float32, or of float64 for float64, as an array.

    It replaces the logsumexp `-inf` of a query that sees no key unless the caller asked
    for the logsumexp: TensorFlow's `enable_check_numerics` lets no infinity pass.
    """
    wide = backend.standardize_dtype(dtype) == "float64"
    return np.array(np.finfo("float64" if wide else "float32").min)


def lengths_as_int32(lengths: Tensor) -> Tensor:
    """Lengths as the kernels take them, None for None. Lengths of 64 bits are clipped,
    not truncated: a length that is too large stays too large."""
    if lengths is None:
        return None
    if not hasattr(lengths, "dtype") or isinstance(lengths, np.ndarray):
        # In NumPy: JAX would truncate them at once.
        limited = np.clip(np.asarray(lengths), -1, 2**31 - 1)
        return ops.convert_to_tensor(limited.astype("int32"))
    dtype = backend.standardize_dtype(lengths.dtype)
    if dtype in ("int64", "uint32", "uint64"):
        # Keras computes with uint64 as if it were uint32.
        lengths = ops.cast(lengths, "int64")
        lengths = ops.clip(lengths, -1, 2**31 - 1)
    return ops.cast(lengths, "int32")


def dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    scale: float | Tensor | None = None,
    is_causal: bool = False,
    attn_logits_soft_cap: float | None = None,
    *,
    query_mask: Tensor | None = None,
    key_mask: Tensor | None = None,
    query_lengths: Tensor | None = None,
    key_lengths: Tensor | None = None,
    sliding_window: int | None = None,
    dropout_rate: float = 0.0,
    dropout_seed: int | Tensor | None = None,
    return_logsumexp: bool = False,
    return_attention_scores: bool = False,
    finite_logsumexp: bool = False,
) -> Tensor | tuple[Tensor, ...]:
    """Computes `dropout(softmax(scale * query @ key + bias)) @ value` as written.

    The semantics are those of `keras.ops.dot_product_attention`, extended by
    what Keras documents but refuses on TensorFlow (one key/value head for many
    query heads, soft cap), by what its layers add (sliding window, dropout) and
    by masks in their cheap forms. The `(batch, num_heads, query_length,
    key_length)` scores are built. The softmax runs in float32 or wider.

    Args:
        query: Float tensor of shape `(batch, query_length, num_heads, head_dim)`.
        key: Float tensor of shape `(batch, key_length, num_kv_heads, head_dim)`,
            where `num_kv_heads` divides `num_heads`.
        value: Float tensor of shape
            `(batch, key_length, num_kv_heads, value_dim)`.
        bias: Optional float tensor, broadcast to the scores and added to them.
        mask: Optional boolean tensor, broadcast to the scores; `True` = takes
            part.
        scale: Number or scalar tensor. Defaults to `1 / sqrt(head_dim)`.
        is_causal: Whether query `t` sees keys `0..t` only. Defaults to `False`.
        attn_logits_soft_cap: Optional positive number `c`: scores become
            `c * tanh(scores / c)`, before bias and mask.
        query_mask: Optional boolean tensor of shape `(batch, query_length)`.
        key_mask: Optional boolean tensor of shape `(batch, key_length)`.
        query_lengths: Optional integer tensor of shape `(batch,)`: queries from
            this position on see no key.
        key_lengths: Optional integer tensor of shape `(batch,)`: keys from this
            position on are not seen.
        sliding_window: Optional positive integer `w`: query `t` sees the keys
            `s` with `abs(t - s) < w` only.
        dropout_rate: Number from 0 to 1, exclusive. The share of the weights
            that is dropped; the others are divided by `1 - dropout_rate`.
            Defaults to 0.
        dropout_seed: Integer or scalar integer tensor; needed for dropout.
        return_logsumexp: Whether to return the logarithm of the sum of the
            exponentials of the scores of each query, `-inf` if it sees no key.
            Defaults to `False`.
        return_attention_scores: Whether to return the weights before dropout.
            Defaults to `False`.
        finite_logsumexp: Whether the logsumexp of a query that sees no key is the
            lowest finite number instead of `-inf`. Defaults to `False`.

    Returns:
        Tensor of shape `(batch, query_length, num_heads, value_dim)` in the
        dtype that the inputs promote to. With `return_logsumexp` or
        `return_attention_scores` a tuple: the output, then the logsumexp, of
        shape `(batch, num_heads, query_length)`, in float32 or wider, then the
        attention scores, of shape `(batch, num_heads, query_length, key_length)`.
        A query that sees no key gets the mean of all values, without dropout.

    Example:

    >>> q = keras.random.normal((2, 5, 4, 8))
    >>> kv = keras.random.normal((2, 7, 2, 8))
    >>> dot_product_attention(q, kv, kv, sliding_window=2).shape
    TensorShape([2, 5, 4, 8])

    Reference:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.2.1
    """
    query, key, value = promoted(query, key, value)
    logits = attention_logits(query, key, bias, scale, attn_logits_soft_cap)
    visible = visible_keys(
        logits,
        mask,
        is_causal,
        query_mask=query_mask,
        key_mask=key_mask,
        query_lengths=query_lengths,
        key_lengths=key_lengths,
        sliding_window=sliding_window,
    )
    output, logsumexp, scores = weighted_mean(
        logits, visible, value, dropout_rate=dropout_rate, dropout_seed=dropout_seed
    )
    results = [output]
    if return_logsumexp and not finite_logsumexp:
        nothing = ops.equal(logsumexp, lowest(logsumexp.dtype))
        infinity = ops.cast(float("-inf"), logsumexp.dtype)
        logsumexp = ops.where(nothing, infinity, logsumexp)
    if return_logsumexp:
        results.append(logsumexp)
    if return_attention_scores:
        results.append(ops.cast(scores, output.dtype))
    return tuple(results) if len(results) > 1 else output


def promoted(*tensors: Tensor) -> list[Tensor]:
    """The tensors in the dtype that all of them promote to."""
    converted = [ops.convert_to_tensor(x) for x in tensors]
    dtype = backend.result_type(*(x.dtype for x in converted))
    return [ops.cast(x, dtype) for x in converted]


def attention_logits(
    query: Tensor,
    key: Tensor,
    bias: Tensor | None = None,
    scale: float | Tensor | None = None,
    attn_logits_soft_cap: float | None = None,
) -> Tensor:
    """The scores of all keys, before masks and softmax: scale, cap, bias.

    Args:
        As `dot_product_attention`.

    Returns:
        Tensor of shape `(batch, num_heads, query_length, key_length)`, in
        float32, or float64 if the inputs are.
    """
    groups = query.shape[2] // key.shape[2]
    if groups > 1:
        key = ops.repeat(key, groups, axis=2)
    query, key = _of_one_batch(query, key)
    if scale is None:
        scale = query.shape[-1] ** -0.5
    logits = ops.einsum("btnh,bsnh->bnts", query, key)
    logits = ops.cast(logits, backend.result_type(query.dtype, "float32"))
    # Not `ops.cast`, which rounds a Python number to float32 on the way.
    logits = logits * ops.convert_to_tensor(scale, logits.dtype)
    if attn_logits_soft_cap is not None:
        cap = ops.convert_to_tensor(attn_logits_soft_cap, logits.dtype)
        logits = cap * ops.tanh(logits / cap)
    if bias is not None:
        # Through the dtype of query and key, as Keras does.
        logits = logits + ops.cast(ops.cast(bias, query.dtype), logits.dtype)
    return logits


def _of_one_batch(a: Tensor, b: Tensor) -> Sequence[Tensor]:
    """Two tensors whose batch sizes are equal or 1, the smaller one repeated."""
    if a.shape[0] == b.shape[0] and a.shape[0] is not None:
        return a, b
    batch, other = ops.shape(a)[0], ops.shape(b)[0]
    if isinstance(batch, int):
        batch = other if batch == 1 else batch
    else:
        batch = ops.where(ops.equal(batch, 1), other, batch)
    return [
        x if x.shape[0] == batch else ops.broadcast_to(x, (batch, *ops.shape(x)[1:]))
        for x in (a, b)
    ]


def visible_keys(
    logits: Tensor,
    mask: Tensor | None = None,
    is_causal: bool = False,
    *,
    query_mask: Tensor | None = None,
    key_mask: Tensor | None = None,
    query_lengths: Tensor | None = None,
    key_lengths: Tensor | None = None,
    sliding_window: int | None = None,
) -> Tensor | None:
    """Which keys a query sees: those that every mask allows.

    Args:
        logits: Tensor of shape `(batch, num_heads, query_length, key_length)`.
        mask, ...: As `dot_product_attention`.

    Returns:
        Boolean tensor that broadcasts to `logits`, or None if all are visible.
    """
    query_length, key_length = ops.shape(logits)[2:]
    queries = ops.arange(query_length, dtype="int32")[:, None]
    keys = ops.arange(key_length, dtype="int32")
    masks = []
    if mask is not None:
        masks.append(ops.cast(mask, "bool"))
    if query_mask is not None:
        masks.append(ops.cast(query_mask, "bool")[:, None, :, None])
    if key_mask is not None:
        masks.append(ops.cast(key_mask, "bool")[:, None, None, :])
    if query_lengths is not None:
        masks.append(queries < lengths_as_int32(query_lengths)[:, None, None, None])
    if key_lengths is not None:
        masks.append(keys < lengths_as_int32(key_lengths)[:, None, None, None])
    if is_causal:
        masks.append(keys <= queries)
    if sliding_window is not None:
        # A window beyond int32 hides nothing.
        masks.append(ops.abs(queries - keys) < min(sliding_window, 2**31 - 1))
    if not masks:
        return None
    visible = masks[0]
    for other in masks[1:]:
        visible = ops.logical_and(visible, other)
    return visible


def weighted_mean(
    logits: Tensor,
    visible: Tensor | None,
    value: Tensor,
    *,
    dropout_rate: float = 0.0,
    dropout_seed: int | Tensor | None = None,
    exists: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Softmax of the visible logits, dropout, and the weighted mean of values.

    Args:
        logits: As `attention_logits` returns them.
        visible: As `visible_keys` returns it.
        value: Tensor of shape `(batch, key_length, num_kv_heads, value_dim)`.
        dropout_rate, dropout_seed: As `dot_product_attention`.
        exists: Optional boolean tensor of shape `(batch, 1, 1, key_length)`,
            with at least one `True` per batch entry: the keys over which a query
            that sees none takes the mean. Defaults to all.

    Returns:
        The output, the logsumexp, `lowest` for a query that sees no key, and the
        weights before dropout, in the dtype of `logits`.
    """
    sees_any = None
    if visible is not None:
        logits = ops.where(visible, logits, ops.cast(_MASKED, logits.dtype))
        sees_any = ops.any(visible, axis=-1, keepdims=True)
    if exists is not None:
        # Lower than a masked score: no weight even if all other keys are masked.
        logits = ops.where(exists, logits, ops.cast(-3.4e38, logits.dtype))
    # Not `ops.softmax`, which warns of an axis of size 1: one key is not a mistake.
    # `initial` lets the maximum of an empty batch, or of no keys, pass.
    nothing = lowest(logits.dtype)
    top = ops.max(logits, axis=-1, keepdims=True, initial=float(nothing))
    top = ops.stop_gradient(top)
    weights = ops.exp(logits - top)
    total = ops.sum(weights, axis=-1, keepdims=True)
    probabilities = scores = weights / total
    # NaN if all scores are -inf, as the output.
    logsumexp = ops.where(total == 0, total / total, top + ops.log(total))
    no_keys = ops.shape(logits)[3] == 0
    if no_keys is not False:
        logsumexp = ops.where(no_keys, nothing, logsumexp)
    if sees_any is not None:
        logsumexp = ops.where(sees_any, logsumexp, nothing)
    if dropout_rate > 0:
        batch, heads, queries, keys = ops.shape(logits)
        keep = attention_dropout_mask(
            batch, heads, queries, keys, dropout_rate, dropout_seed
        )
        dropped = ops.where(keep, scores / (1 - dropout_rate), ops.zeros_like(scores))
        probabilities = (
            dropped if sees_any is None else ops.where(sees_any, dropped, scores)
        )
    groups = logits.shape[1] // value.shape[2]
    if groups > 1:
        value = ops.repeat(value, groups, axis=2)
    probabilities, value = _of_one_batch(ops.cast(probabilities, value.dtype), value)
    output = ops.einsum("bnts,bsnh->btnh", probabilities, value)
    return output, logsumexp[..., 0], scores


def attention_scores(
    logits: Tensor, visible: Tensor | None, logsumexp: Tensor
) -> Tensor:
    """The weights of the softmax, if its logsumexp is computed elsewhere.

    `exp(logits - logsumexp)`, divided by its sum, which is 1 up to the rounding
    of the logsumexp: with logits of size 1000 that is 5e-4 in float32.

    Args:
        logits: As `attention_logits` returns them.
        visible: As `visible_keys` returns it.
        logsumexp: Tensor of shape `(batch, num_heads, query_length)`.

    Returns:
        Tensor of the shape and dtype of `logits`: 0 where a key is masked, and
        `1 / key_length` for a query that sees no key.
    """
    logsumexp = ops.stop_gradient(logsumexp)[..., None]
    if visible is None:
        weights = ops.exp(logits - logsumexp)
        return weights / ops.sum(weights, axis=-1, keepdims=True)
    # No masked score may give an infinity: its gradient would be 0 * inf.
    sees_any = ops.any(visible, axis=-1, keepdims=True)
    logsumexp = ops.where(sees_any, logsumexp, 0.0)
    weights = ops.exp(ops.where(visible, logits, logsumexp) - logsumexp)
    weights = ops.where(visible, weights, 0.0)
    total = ops.sum(weights, axis=-1, keepdims=True)
    mean = ops.ones_like(weights) / ops.cast(ops.shape(weights)[3], weights.dtype)
    return ops.where(sees_any, weights / ops.where(sees_any, total, 1.0), mean)
