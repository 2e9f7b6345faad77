"""Keras's attention layers as functions of the layer: ours, or Keras's own.

Keras computes these layers in two ways. Without dropout, scores and further axes it
calls `keras.ops.dot_product_attention`, where a query that sees no key gets the mean of
the values; otherwise `keras.layers.Softmax`, where it gets zeros. Here the kernel does
both, and what such a query gets is as in Keras. Masks of positions, causality and
windows reach the kernel as what they are: no mask of length x length is built of them.
"""

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import keras

from hw3tf.layers.attention_axes import attend_over
from hw3tf.layers.attention_inputs import check_inputs
from hw3tf.layers.call_context import training_under_way
from hw3tf.layers.stock import Stock
from hw3tf.ops.attention_checks import check_not_ragged

ops = keras.ops

# What the functions here stand for. A subclass with another of them is left to Keras.
OVERRIDABLE = (
    "_compute_attention",
    "_masked_softmax",
    "_compute_attention_mask",
    "_compute_causal_mask",
    "_compute_sliding_window_mask",
)


def _softmax_axes(layer: Any) -> tuple[tuple[int, ...], ...]:
    """The last axes of the scores, one for each that attention runs over."""
    rank, number = _rank_of_scores(layer), len(layer._attention_axes)
    return tuple(range(rank - number, rank)), tuple(range(-number, 0))


def _rank_of_scores(layer: Any) -> int:
    return len(str(getattr(layer, "_dot_product_equation", "")).rpartition(">")[2])


def _equations(layer: Any) -> dict[str, Any]:
    """What `keras.layers.MultiHeadAttention` multiplies over its axes."""
    if not hasattr(layer, "_dot_product_equation"):
        return {}  # not built
    axes = layer._attention_axes
    rank = _rank_of_scores(layer) - len(axes) + 1
    if any(not 0 <= axis < rank - 2 for axis in axes):
        return {"_attention_axes": tuple(range(1, rank - 2))}
    build = sys.modules[keras.layers.MultiHeadAttention.__module__]
    product, combination, _ = build._build_attention_equation(rank, attn_axes=axes)
    return {"_dot_product_equation": product, "_combine_equation": combination}


MULTI_HEAD = Stock(
    softmax="_softmax",
    softmax_dtype=None,
    axes=_softmax_axes,
    dropout="_dropout_layer",
    rate="_dropout",
    scales=("_inverse_sqrt_key_dim",),
    values=_equations,
)
GROUPED = Stock(
    softmax="_softmax",
    softmax_dtype=None,
    dropout="_dropout_layer",
    rate="dropout",
    scales=("_inverse_sqrt_head_dim",),
    values=lambda layer: {
        "_dot_product_equation": "bquh,bkuh->buqk",
        "_combine_equation": "buqk,bkuh->bquh",
    },
)


def call_multi_head_attention(
    layer: Any,
    query: Any,
    value: Any,
    key: Any = None,
    query_mask: Any = None,
    value_mask: Any = None,
    key_mask: Any = None,
    attention_mask: Any = None,
    return_attention_scores: bool = False,
    training: Any = None,
    use_causal_mask: bool = False,
    *,
    product: Callable[..., tuple[Any, Any]] | None = None,
) -> Any:
    """`keras.layers.MultiHeadAttention.call` on the kernel.

    Args:
        layer: Built `keras.layers.MultiHeadAttention`, or of a subclass that has the
            methods of it.
        query, ...: As there. The masks are those given, `query_mask` too. As there,
            the Keras masks are taken off the tensors.
        product: Computes what lies between the projections, with the arguments of
            `multi_head_product`, which is the default.

    Returns:
        As there.

    Raises:
        Refused: If the shapes do not fit each other.
    """
    masks = _tensors(query_mask, value_mask, key_mask, attention_mask)
    check_inputs(layer._attention_axes, layer._num_heads, query, value, key, **masks)
    query_mask, value_mask, key_mask, attention_mask = masks.values()
    key = value if key is None else key
    for tensor in (query, value, key):
        set_mask(tensor, None)
    gate = layer._gate_dense(query) if getattr(layer, "_use_gate", False) else None
    if attention_mask is not None:
        attention_mask = ops.cast(attention_mask, "bool")
    output, scores = (product or multi_head_product)(
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
    layer: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any = None,
    training: Any = None,
    return_attention_scores: bool = False,
    use_causal_mask: bool = False,
    *,
    instead: Callable[[], tuple[Any, Any]] | None = None,
    **masks: Any,
) -> tuple[Any, Any]:
    """`keras.layers.MultiHeadAttention._compute_attention` on the kernel.

    Args:
        layer, query, ...: As there.
        instead: As for `attend`. Only Keras's function takes a larger mask, its
            Softmax does not.
        masks: `query_mask`, `key_mask`, `sliding_window` of `attend_over`.
    """
    _check_flash_attention(layer, return_attention_scores)
    by_softmax = layer._dropout > 0 or return_attention_scores or len(query.shape) != 4
    return attend_over(
        layer._attention_axes,
        query,
        key,
        value,
        mask=attention_mask,
        zeros_without_keys=by_softmax,
        dropout=MULTI_HEAD.dropout_of(layer),
        training=training_under_way() if training is None else training,
        return_scores=return_attention_scores,
        is_causal=use_causal_mask,
        scale=layer._inverse_sqrt_key_dim,
        instead=None if by_softmax else instead,
        **masks,
    )


def call_group_query_attention(
    layer: Any,
    query: Any,
    value: Any,
    key: Any = None,
    query_mask: Any = None,
    value_mask: Any = None,
    key_mask: Any = None,
    attention_mask: Any = None,
    return_attention_scores: bool = False,
    training: Any = None,
    use_causal_mask: bool = False,
    *,
    product: Callable[..., tuple[Any, Any]] | None = None,
) -> Any:
    """`keras.layers.GroupQueryAttention.call` on the kernel, which shares the heads of
    key and value without copies of them.

    Args:
        layer: Built `keras.layers.GroupQueryAttention`, or of a subclass that has the
            methods of it.
        query, ...: As there.
        product: Computes what lies between the projections, with the arguments of
            `group_query_product`, which is the default.

    Returns:
        As there.

    Raises:
        Refused: If the shapes do not fit each other.
    """
    masks = _tensors(query_mask, value_mask, key_mask, attention_mask)
    check_inputs((1,), layer.num_query_heads, query, value, key, **masks)
    query_mask, value_mask, key_mask, attention_mask = masks.values()
    layer._return_attention_scores = return_attention_scores
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
    output, scores = (product or group_query_product)(
        layer,
        *projected,
        attention_mask,
        training,
        use_causal_mask,
        query_mask=_boolean(query_mask),
        key_mask=key_mask,
        sliding_window=window,
    )
    output = layer._output_dense(output if gate is None else output * gate)
    return (output, scores) if return_attention_scores else output


def group_query_product(
    layer: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any = None,
    training: Any = None,
    use_causal_mask: bool = False,
    *,
    instead: Callable[[], tuple[Any, Any]] | None = None,
    **masks: Any,
) -> tuple[Any, Any]:
    """`keras.layers.GroupQueryAttention._compute_attention` on the kernel, with the
    scores if the layer's last `call` was asked for them.

    Args:
        layer, query, ...: As there; key and value may have fewer heads than query.
        instead, masks: As for `multi_head_product`.
    """
    return_scores = layer._return_attention_scores
    _check_flash_attention(layer, return_scores)
    by_softmax = layer.dropout > 0 or return_scores
    return attend_over(
        (1,),
        query,
        key,
        value,
        mask=attention_mask,
        zeros_without_keys=by_softmax,
        dropout=GROUPED.dropout_of(layer),
        training=training_under_way() if training is None else training,
        return_scores=return_scores,
        is_causal=use_causal_mask,
        scale=layer._inverse_sqrt_head_dim,
        instead=None if by_softmax else instead,
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


def _tensors(
    query_mask: Any, value_mask: Any, key_mask: Any, attention_mask: Any
) -> dict[str, Any]:
    """The masks by their names, as tensors or None: they may be given as lists."""
    masks = {
        "query_mask": query_mask,
        "value_mask": value_mask,
        "key_mask": key_mask,
        "attention_mask": attention_mask,
    }
    check_not_ragged(**masks)
    return {
        name: None if x is None else ops.convert_to_tensor(x)
        for name, x in masks.items()
    }


def _boolean(mask):
    return None if mask is None else ops.cast(mask, "bool")


def _both(value_mask, key_mask):
    """A key takes part if both masks allow it."""
    if value_mask is None or key_mask is None:
        return _boolean(key_mask if value_mask is None else value_mask)
    return ops.logical_and(value_mask, key_mask)
