"""Keras's own attention layers on the kernel."""

import functools

import keras

from hw3tf.acceleration.coverage import Family, Verdict
from hw3tf.layers.attention_calls import (
    OVERRIDABLE,
    call_group_query_attention,
    call_multi_head_attention,
    group_query_product,
    multi_head_product,
)
from hw3tf.layers.fused_attention import attend, overrides
from hw3tf.ops.libraries import logger

_MULTI_HEAD = keras.layers.MultiHeadAttention
_GROUPED = keras.layers.GroupQueryAttention
_PRODUCT = ("_compute_attention", "_masked_softmax")


def verdict_on_keras_layer(layer):
    """A `Verdict`, or None if `layer` is none of Keras's attention layers."""
    if isinstance(layer, keras.layers.AdditiveAttention):
        return Verdict(None, "its scores are no products of query and key")
    for known_class, family in FAMILIES.items():
        if isinstance(layer, known_class):
            return family.verdict(layer, known_class)
    return None


def _multi_head(layer):
    if _is_keras_own(layer, _MULTI_HEAD):
        return {"call": functools.partial(_multi_head_call, layer)}
    return {"_compute_attention": functools.partial(multi_head_product, layer)}


def _multi_head_call(layer, query, value, key=None, query_mask=None, **arguments):
    """In place of `keras.layers.MultiHeadAttention.call`, which looks for the mask of
    the query on the tensor only."""
    query_mask = getattr(query, "_keras_mask", None)
    return call_multi_head_attention(
        layer, query, value, key, query_mask=query_mask, **arguments
    )


def _grouped(layer):
    if _is_keras_own(layer, _GROUPED):
        return {"call": functools.partial(call_group_query_attention, layer)}
    return {
        "_compute_attention": functools.partial(group_query_product, layer),
        "num_repeats": 1,  # the kernel shares key heads without copies of them
    }


def _is_keras_own(layer, known_class):
    """Whether what lies around the product is Keras's as well, masks included."""
    return not overrides(layer, known_class, ("call", *OVERRIDABLE))


def _attention(layer):
    if layer.score_mode != "dot":
        return "its scores are no products of query and key"
    if layer.dropout >= 1:
        return "its dropout leaves no weights"
    return {"call": functools.partial(_attention_call, layer)}


def _attention_call(
    layer,
    inputs,
    mask=None,
    training=False,
    return_attention_scores=False,
    use_causal_mask=False,
):
    """In place of `keras.layers.Attention.call`. What that returns as scores in
    training has been through dropout; then it runs itself."""
    layer._validate_inputs(inputs=inputs, mask=mask)
    query, value = inputs[:2]
    key = inputs[2] if len(inputs) > 2 else value
    query_mask, value_mask = mask[:2] if mask else (None, None)
    drops = bool(training) and layer.dropout > 0
    if len(query.shape) != 3 or (return_attention_scores and drops):
        logger.debug("%s runs as in Keras: it has no heads to fuse", layer.name)
        return type(layer).call(
            layer, inputs, mask, training, return_attention_scores, use_causal_mask
        )
    if layer.scale is not None:  # a weight: as a factor of query it has a gradient
        query = keras.ops.multiply(query, layer.scale)
    output, scores = attend(
        *(keras.ops.expand_dims(x, 2) for x in (query, key, value)),
        mask=None if value_mask is None else value_mask[:, None, :],
        zero_blind_rows=False,
        dropout=_Dropout(layer) if drops else None,
        training=training,
        return_scores=return_attention_scores,
        is_causal=use_causal_mask,
        scale=1.0,
    )
    output = keras.ops.squeeze(output, 2)
    if query_mask is not None:
        output = keras.ops.where(query_mask[..., None], output, 0)
    if return_attention_scores:
        return output, keras.ops.squeeze(scores, 1)
    return output


class _Dropout:
    """The dropout of `keras.layers.Attention`, which has no layer for it."""

    def __init__(self, layer):
        self.rate = layer.dropout
        self.seed_generator = layer.seed_generator


FAMILIES = {
    _MULTI_HEAD: Family(_multi_head, _PRODUCT),
    _GROUPED: Family(_grouped, _PRODUCT),
    keras.layers.Attention: Family(
        _attention,
        ("call", "_calculate_scores", "_apply_scores", "_calculate_score_mask"),
    ),
}
