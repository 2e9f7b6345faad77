"""Keras's own attention layers on the kernel."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from hw3tf.acceleration.attend import attend
from hw3tf.acceleration.coverage import Family, Verdict, overrides
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


@dataclass(frozen=True)
class _Masks:
    """What Keras's `_compute_attention_mask` would join in a matrix of queries and
    keys, as the kernel takes it. Keras's `call` only hands it on."""

    options: dict[str, Any]
    matrix: Callable[[], Any]  # Keras's own


def _masks_apart(
    layer,
    known_class,
    window,
    query,
    value,
    query_mask=None,
    value_mask=None,
    key_mask=None,
    attention_mask=None,
    use_causal_mask=False,
):
    """In place of `_compute_attention_mask` of Keras's layers."""
    arguments = (query, value, query_mask, value_mask, key_mask, attention_mask)

    def matrix():
        return known_class._compute_attention_mask(layer, *arguments, use_causal_mask)

    if attention_mask is not None and len(attention_mask.shape) > 3:
        return matrix()
    batch = keras.ops.shape(query)[0]
    query_mask, value_mask, key_mask = (
        _of_batch(mask, batch) for mask in (query_mask, value_mask, key_mask)
    )
    if key_mask is None:
        key_mask = value_mask
    elif value_mask is not None:
        key_mask = keras.ops.logical_and(key_mask, value_mask)
    if attention_mask is not None:
        attention_mask = keras.ops.cast(attention_mask, "bool")
    options = {
        "mask": attention_mask,
        "query_mask": query_mask,
        "key_mask": key_mask,
        "is_causal": use_causal_mask,
        "sliding_window": window,
    }
    return _Masks(options, matrix)


def _of_batch(mask, batch):
    if mask is None:
        return None
    mask = keras.ops.cast(mask, "bool")
    if mask.shape[0] == 1:
        mask = keras.ops.broadcast_to(mask, (batch, keras.ops.shape(mask)[1]))
    return mask


def _replaced(layer, known_class, product, window):
    """The replaced methods of a layer. Who has a `call` of their own may look at the
    mask, so they keep Keras's."""
    attributes = {"_compute_attention": functools.partial(product, layer)}
    mask = "_compute_attention_mask"
    if type(layer).call is known_class.call and not overrides(
        layer, known_class, (mask, "_compute_causal_mask")
    ):
        attributes[mask] = functools.partial(_masks_apart, layer, known_class, window)
    return attributes


def _multi_head(layer):
    if layer._dropout >= 1:
        return "its dropout leaves no weights"
    window = getattr(layer, "_sliding_window", None)
    return _replaced(layer, _MULTI_HEAD, _multi_head_product, window)


def _multi_head_product(
    layer,
    query,
    key,
    value,
    attention_mask=None,
    training=None,
    return_attention_scores=False,
    use_causal_mask=False,
):
    """In place of `keras.layers.MultiHeadAttention._compute_attention`, which zeroes
    what queries without a key get, if it needs the matrix of scores."""
    refused = getattr(layer, "_flash_attention", None) and return_attention_scores
    if refused or len(query.shape) != 4:
        logger.debug("%s runs as in Keras: more than one attention axis", layer.name)
        if isinstance(attention_mask, _Masks):
            attention_mask = attention_mask.matrix()
        causal = {"use_causal_mask": True} if use_causal_mask else {}
        return type(layer)._compute_attention(
            layer,
            query,
            key,
            value,
            attention_mask,
            training,
            return_attention_scores,
            **causal,
        )
    return attend(
        query,
        key,
        value,
        zero_blind_rows=layer._dropout > 0 or return_attention_scores,
        dropout=layer._dropout_layer,
        training=training,
        return_scores=return_attention_scores,
        scale=layer._key_dim**-0.5,
        **_mask_options(attention_mask, use_causal_mask),
    )


def _mask_options(mask, is_causal):
    if isinstance(mask, _Masks):
        return mask.options
    return {"mask": mask, "is_causal": is_causal}


def _grouped(layer):
    if layer.dropout >= 1:
        return "its dropout leaves no weights"
    window = getattr(layer, "sliding_window", None)
    attributes = _replaced(layer, _GROUPED, _grouped_product, window)
    # The kernel shares key heads, without copies of them.
    return attributes | {"num_repeats": 1}


def _grouped_product(
    layer,
    query,
    key,
    value,
    attention_mask=None,
    training=None,
    use_causal_mask=False,
):
    """In place of `keras.layers.GroupQueryAttention._compute_attention`."""
    return_scores = layer._return_attention_scores
    if getattr(layer, "_flash_attention", None) and return_scores:
        raise ValueError(
            "Returning attention scores is not supported when flash attention is "
            "enabled. Received: flash_attention=True, return_attention_scores=True"
        )
    return attend(
        query,
        key,
        value,
        zero_blind_rows=layer.dropout > 0 or return_scores,
        dropout=layer._dropout_layer,
        training=training,
        return_scores=return_scores,
        scale=layer.head_dim**-0.5,
        **_mask_options(attention_mask, use_causal_mask),
    )


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
