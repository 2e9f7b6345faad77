"""`keras.layers.Attention` on the kernel."""

import functools
from typing import Any

import keras

from hw3tf.acceleration.coverage import Family, own_method
from hw3tf.acceleration.subtracted_masks import if_out, masked_keys_are_out
from hw3tf.layers.attention.attend import attend
from hw3tf.layers.attention.stock import Stock
from hw3tf.layers.fallback import Refused
from hw3tf.ops.attention.checks import check_not_ragged

ops = keras.ops


class _Attention(Stock):
    """The checks of `keras.layers.Attention`, which has a weight and no layers
    inside."""

    def changed(self, layer: Any) -> str:
        if layer.score_mode != "dot":
            return "its scores are not products of query and key"
        scale = getattr(layer, "scale", None)
        if scale is not None and len(scale.shape) != 0:
            return f"`scale` is of shape {tuple(scale.shape)}, not ()"
        seeds = getattr(layer, "seed_generator", None)
        if layer.dropout > 0 and not isinstance(seeds, keras.random.SeedGenerator):
            return f"`seed_generator` is of type {type(seeds).__name__}"
        return ""


def _attention(layer: Any) -> dict[str, Any] | str:
    if layer.dropout >= 1:
        return "its dropout drops all weights"
    return {"call": functools.partial(_attention_call, layer)}


def _attention_call(
    layer: Any,
    inputs: Any,
    mask: Any = None,
    training: Any = False,
    return_attention_scores: bool = False,
    use_causal_mask: bool = False,
) -> Any:
    """Replaces `keras.layers.Attention.call`. In training, the scores that Keras
    returns have been through dropout; if they are asked for, Keras's own method
    runs."""
    layer._validate_inputs(inputs=inputs, mask=mask)
    query, value, key, query_mask, value_mask = _tensors(inputs, mask)
    own = functools.partial(
        own_method(layer, "call"),
        inputs,
        mask,
        training=training,
        return_attention_scores=return_attention_scores,
        use_causal_mask=use_causal_mask,
    )
    drops = bool(training) and layer.dropout > 0
    if drops and return_attention_scores:
        raise Refused("the scores that it returns have been through dropout")
    if layer.scale is not None:  # a weight: as a factor of query it has a gradient
        query = ops.multiply(query, layer.scale)

    def fused() -> Any:
        output, scores = attend(
            *(ops.expand_dims(x, 2) for x in (query, key, value)),
            mask=None if value_mask is None else value_mask[:, None, :],
            zeros_without_keys=False,
            dropout=_Dropout(layer) if drops else None,
            training=training,
            return_scores=return_attention_scores,
            is_causal=use_causal_mask,
            scale=1.0,
        )
        output = ops.squeeze(output, 2)
        if query_mask is not None:
            output = ops.where(query_mask[..., None], output, 0)
        if return_attention_scores:
            return output, ops.squeeze(scores, 1)
        return output

    if value_mask is None and not use_causal_mask:
        return fused()
    half = keras.backend.result_type(query.dtype, key.dtype) == "float16"
    out = masked_keys_are_out(
        query, key, value_mask, use_causal_mask, subtracted=65504.0 if half else 1e9
    )
    return if_out(out, fused, own, drops)


def _tensors(inputs: Any, mask: Any) -> tuple[Any, ...]:
    """Query, value, key and the masks of query and value, tensors or None."""
    query, value = inputs[:2]
    key = inputs[2] if len(inputs) > 2 else value
    masks = mask[:2] if mask else (None, None)
    check_not_ragged(query=query, value=value, key=key)
    check_not_ragged(query_mask=masks[0], value_mask=masks[1])
    query_mask, value_mask = (
        None if x is None else ops.convert_to_tensor(x) for x in masks
    )
    if any(len(x.shape) != 3 for x in (query, key, value)):
        raise Refused("query, key and value must have 3 axes to be fused")
    if value_mask is not None and len(value_mask.shape) != 2:
        raise Refused("the mask of the values must have 2 axes to be fused")
    return query, value, key, query_mask, value_mask


class _Dropout:
    """The dropout of `keras.layers.Attention`, which has no layer for it."""

    def __init__(self, layer: Any) -> None:
        self.rate = layer.dropout
        self.seed_generator = layer.seed_generator


ATTENTION = Family(
    _attention,
    (
        "call",
        "_calculate_scores",
        "_apply_scores",
        "_calculate_score_mask",
        "_validate_inputs",
    ),
    _Attention(),
)
