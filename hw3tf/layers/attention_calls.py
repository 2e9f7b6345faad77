"""Keras's attention layers as functions of the layer: ours, or Keras's own.

Keras computes these layers in two ways. Without dropout, scores and further axes it
calls `keras.ops.dot_product_attention`, where a query that sees no key gets the mean of
the values; otherwise `keras.layers.Softmax`, where it gets zeros. Here the kernel does
both, and what such a query gets is as in Keras. Masks of positions, causality and
windows reach the kernel as what they are: no mask of length x length is built of them.
"""

import contextlib

import keras

from hw3tf.layers.attention_axes import attend_over
from hw3tf.layers.fused_attention import training_of

ops = keras.ops

# What the functions here stand for. A subclass with another of them is left to Keras.
OVERRIDABLE = (
    "_compute_attention",
    "_masked_softmax",
    "_compute_attention_mask",
    "_compute_causal_mask",
    "_compute_sliding_window_mask",
)


def call_multi_head_attention(
    layer,
    query,
    value,
    key=None,
    query_mask=None,
    value_mask=None,
    key_mask=None,
    attention_mask=None,
    return_attention_scores=False,
    training=None,
    use_causal_mask=False,
):
    """`keras.layers.MultiHeadAttention.call` on the kernel.

    Args:
        layer: Built `keras.layers.MultiHeadAttention`, or of a subclass that has the
            methods of it.
        query, ...: As there. The masks are those given, `query_mask` too. As there,
            the Keras masks are taken off the tensors.

    Returns:
        As there.
    """
    key = value if key is None else key
    for tensor in (query, value, key):
        set_mask(tensor, None)
    gate = layer._gate_dense(query) if getattr(layer, "_use_gate", False) else None
    if attention_mask is not None:
        attention_mask = ops.cast(attention_mask, "bool")
    output, scores = multi_head_product(
        layer,
        layer._query_dense(query),
        layer._key_dense(key),
        layer._value_dense(value),
        attention_mask,
        training,
        return_attention_scores,
        use_causal_mask,
        query_mask=_boolean(query_mask),
        key_mask=_both(value_mask, key_mask),
        sliding_window=getattr(layer, "_sliding_window", None),
    )
    output = layer._output_dense(output if gate is None else output * gate)
    if query_mask is not None:
        set_mask(output, query_mask)
    return (output, scores) if return_attention_scores else output


def multi_head_product(
    layer,
    query,
    key,
    value,
    attention_mask=None,
    training=None,
    return_attention_scores=False,
    use_causal_mask=False,
    **masks,
):
    """`keras.layers.MultiHeadAttention._compute_attention` on the kernel.

    Args:
        layer, query, ...: As there.
        masks: `query_mask`, `key_mask`, `sliding_window` of `attend_over`.
    """
    _check_flash_attention(layer, return_attention_scores)
    return attend_over(
        layer._attention_axes,
        query,
        key,
        value,
        mask=attention_mask,
        zero_blind_rows=(
            layer._dropout > 0 or return_attention_scores or len(query.shape) != 4
        ),
        dropout=layer._dropout_layer,
        training=training_of(layer) if training is None else training,
        return_scores=return_attention_scores,
        is_causal=use_causal_mask,
        scale=layer._inverse_sqrt_key_dim,
        **masks,
    )


def call_group_query_attention(
    layer,
    query,
    value,
    key=None,
    query_mask=None,
    value_mask=None,
    key_mask=None,
    attention_mask=None,
    return_attention_scores=False,
    training=None,
    use_causal_mask=False,
):
    """`keras.layers.GroupQueryAttention.call` on the kernel, which shares the heads of
    key and value without copies of them.

    Args:
        layer: Built `keras.layers.GroupQueryAttention`, or of a subclass that has the
            methods of it.
        query, ...: As there.

    Returns:
        As there.
    """
    key = value if key is None else key
    gated = getattr(layer, "use_gate", False)
    with masks_put_back(query, value, key):
        for tensor in (query, value, key):
            set_mask(tensor, None)  # projections know no masks, and would warn
        gate = layer._gate_dense(query) if gated else None
        projected = (
            layer._query_dense(query),
            layer._key_dense(key),
            layer._value_dense(value),
        )
    key_mask = _both(value_mask, key_mask)
    window = getattr(layer, "sliding_window", None)
    others = (query_mask, key_mask, window, use_causal_mask or None)
    if attention_mask is not None and any(x is not None for x in others):
        attention_mask = ops.cast(attention_mask, "bool")  # as Keras, to combine them
    output, scores = group_query_product(
        layer,
        *projected,
        attention_mask,
        training,
        use_causal_mask,
        return_attention_scores=return_attention_scores,
        query_mask=_boolean(query_mask),
        key_mask=key_mask,
        sliding_window=window,
    )
    output = layer._output_dense(output if gate is None else output * gate)
    return (output, scores) if return_attention_scores else output


def group_query_product(
    layer,
    query,
    key,
    value,
    attention_mask=None,
    training=None,
    use_causal_mask=False,
    *,
    return_attention_scores=None,
    **masks,
):
    """`keras.layers.GroupQueryAttention._compute_attention` on the kernel.

    Args:
        layer, query, ...: As there; key and value may have fewer heads than query.
        return_attention_scores: Whether to return the scores. Defaults to what the
            layer's last `call` was asked for.
        masks: `query_mask`, `key_mask`, `sliding_window` of `attend_over`.
    """
    if return_attention_scores is None:
        return_attention_scores = layer._return_attention_scores
    _check_flash_attention(layer, return_attention_scores)
    return attend_over(
        (1,),
        query,
        key,
        value,
        mask=attention_mask,
        zero_blind_rows=layer.dropout > 0 or return_attention_scores,
        dropout=layer._dropout_layer,
        training=training_of(layer) if training is None else training,
        return_scores=return_attention_scores,
        is_causal=use_causal_mask,
        scale=layer._inverse_sqrt_head_dim,
        **masks,
    )


@contextlib.contextmanager
def masks_put_back(*tensors):
    """Afterwards the tensors have the Keras masks that they have now."""
    masks = [(x, x._keras_mask) for x in tensors if hasattr(x, "_keras_mask")]
    try:
        yield
    finally:
        for tensor, mask in masks:
            set_mask(tensor, mask)


def set_mask(tensor, mask):
    """Gives a tensor a Keras mask; None takes it away."""
    if mask is not None or getattr(tensor, "_keras_mask", None) is not None:
        with contextlib.suppress(AttributeError):  # arrays of JAX refuse attributes
            tensor._keras_mask = mask


def _check_flash_attention(layer, return_attention_scores):
    if getattr(layer, "_flash_attention", None) and return_attention_scores:
        raise ValueError(
            "Returning attention scores is not supported when flash attention is "
            "enabled. Please disable flash attention to access attention scores. "
            "Received: flash_attention=True, return_attention_scores=True"
        )


def _boolean(mask):
    return None if mask is None else ops.cast(mask, "bool")


def _both(value_mask, key_mask):
    """A key takes part if both masks allow it."""
    if value_mask is None or key_mask is None:
        return _boolean(key_mask if value_mask is None else value_mask)
    return ops.logical_and(value_mask, key_mask)
