"""Scaled dot-product attention in pure Keras."""

from keras import backend, ops

# The score of a masked key: finite, so that a query that sees no key gets equal
# weights, the mean of all values, instead of NaN. Keras's own number.
_MASKED = -0.7 * 3.38953e38


def dot_product_attention(
    query,
    key,
    value,
    bias=None,
    mask=None,
    scale=None,
    is_causal=False,
    attn_logits_soft_cap=None,
):
    """Computes `softmax(scale * query @ key + bias) @ value` as written.

    The semantics are those of `keras.ops.dot_product_attention`, extended by
    what Keras documents but refuses on TensorFlow (one key/value head for many
    query heads, soft cap). The `(batch, num_heads, query_length, key_length)`
    scores are built. The softmax runs in float32 or wider.

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
        is_causal: Whether query `t` sees keys `0..t` only.
        attn_logits_soft_cap: Optional number `c`: scores become
            `c * tanh(scores / c)`, before bias and mask.

    Returns:
        Tensor of shape `(batch, query_length, num_heads, value_dim)` in the
        dtype that the inputs promote to.

    Example:

    >>> q = keras.random.normal((2, 5, 4, 8))
    >>> kv = keras.random.normal((2, 7, 2, 8))
    >>> dot_product_attention(q, kv, kv).shape
    TensorShape([2, 5, 4, 8])

    Reference:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.2.1
    """
    query, key, value = map(ops.convert_to_tensor, (query, key, value))
    dtype = backend.result_type(query.dtype, key.dtype, value.dtype)
    query, key, value = (ops.cast(x, dtype) for x in (query, key, value))

    groups = query.shape[2] // key.shape[2]
    if groups > 1:
        key = ops.repeat(key, groups, axis=2)
        value = ops.repeat(value, groups, axis=2)
    if scale is None:
        scale = query.shape[-1] ** -0.5

    scores = ops.einsum("btnh,bsnh->bnts", query, key)
    scores = ops.cast(scores, backend.result_type(dtype, "float32"))
    scores = scores * ops.cast(scale, scores.dtype)
    if attn_logits_soft_cap is not None:
        cap = ops.cast(attn_logits_soft_cap, scores.dtype)
        scores = cap * ops.tanh(scores / cap)
    if bias is not None:
        scores = scores + ops.cast(bias, scores.dtype)
    visible = None if mask is None else ops.cast(mask, "bool")
    if is_causal:
        query_length, key_length = ops.shape(scores)[2:]
        causal = ops.arange(query_length)[:, None] >= ops.arange(key_length)
        visible = causal if visible is None else ops.logical_and(visible, causal)
    if visible is not None:
        scores = ops.where(visible, scores, ops.cast(_MASKED, scores.dtype))
    # Not `ops.softmax`, which warns of an axis of size 1: one key is no mistake.
    # `initial` lets the maximum of an empty batch pass.
    top = ops.max(scores, axis=-1, keepdims=True, initial=float("-inf"))
    top = ops.stop_gradient(top)
    weights = ops.exp(scores - top)
    probabilities = weights / ops.sum(weights, axis=-1, keepdims=True)
    return ops.einsum("bnts,bsnh->btnh", ops.cast(probabilities, dtype), value)
