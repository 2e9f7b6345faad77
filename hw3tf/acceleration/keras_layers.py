"""Keras's own attention layers on the kernel."""

import functools
from typing import Any

import keras

from hw3tf.acceleration.attention_layer import ATTENTION
from hw3tf.acceleration.coverage import Family, Verdict, guard, own_method
from hw3tf.layers.attention.keras_calls import (
    GROUPED,
    MULTI_HEAD,
    OVERRIDABLE,
    KerasAttention,
    attention_product,
    call_attention,
    mask_of,
)
from hw3tf.layers.fallback import Refused, overrides

_MULTI_HEAD = keras.layers.MultiHeadAttention
_GROUPED = keras.layers.GroupQueryAttention
_PRODUCT = ("_compute_attention", "_masked_softmax")


def verdict_on_keras_layer(layer: Any) -> Verdict | None:
    """A `Verdict`, or None if `layer` is not one of Keras's attention layers."""
    if isinstance(layer, keras.layers.AdditiveAttention):
        return Verdict(None, "its scores are not products of query and key")
    for known_class, family in FAMILIES.items():
        if isinstance(layer, known_class):
            return family.verdict(layer, known_class)
    return None


def _multi_head(layer: Any) -> dict[str, Any]:
    if _is_keras_own(layer, _MULTI_HEAD):
        return {"call": functools.partial(_multi_head_call, layer)}
    return {"_compute_attention": functools.partial(_multi_head_product, layer)}


def _multi_head_call(
    layer: Any,
    query: Any,
    value: Any,
    key: Any = None,
    query_mask: Any = None,
    *masks: Any,
    **more: Any,
) -> Any:
    """Replaces `keras.layers.MultiHeadAttention.call`, which looks for the query mask
    on the tensor only."""
    query_mask = mask_of(query)
    product = functools.partial(_guarded_product, MULTI_HEAD)
    more |= {"keep_masks": False, "product": product}
    return call_attention(
        MULTI_HEAD, layer, query, value, key, query_mask, *masks, **more
    )


def _multi_head_product(layer: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    _check_causality(layer, _MULTI_HEAD, **kwargs)
    own = own_method(layer, "_compute_attention")
    instead = functools.partial(own, *args, **kwargs)
    return attention_product(MULTI_HEAD, layer, *args, instead=instead, **kwargs)


def _grouped(layer: Any) -> dict[str, Any]:
    if _is_keras_own(layer, _GROUPED):
        return {"call": functools.partial(_grouped_call, layer)}
    return {
        "_compute_attention": functools.partial(_grouped_product, layer),
        "num_repeats": 1,  # the kernel shares key heads without copies of them
    }


def _grouped_call(layer: Any, *args: Any, **kwargs: Any) -> Any:
    product = functools.partial(_guarded_product, GROUPED)
    return call_attention(GROUPED, layer, *args, product=product, **kwargs)


def _grouped_product(
    layer: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any = None,
    training: Any = None,
    use_causal_mask: bool = False,
) -> tuple[Any, Any]:
    """In place of the method, which is not told whether scores are asked for."""
    causality = {"use_causal_mask": True} if use_causal_mask else {}
    _check_causality(layer, _GROUPED, **causality)
    own = own_method(layer, "_compute_attention", shared=True)
    arguments = query, key, value, attention_mask, training
    return attention_product(
        GROUPED,
        layer,
        *arguments,
        layer._return_attention_scores,
        instead=functools.partial(own, *arguments, **causality),
        **causality,
    )


def _check_causality(
    layer: Any, known_class: type, use_causal_mask: bool = False, **_: Any
) -> None:
    """Raises `Refused` if `layer` has a causal mask of its own that the product would
    have to compute. If its `call` computes it, as in Moonshine, the product gets it."""
    changed = use_causal_mask and overrides(
        layer, known_class, ("_compute_causal_mask",)
    )
    if changed:
        raise Refused(changed)


def _guarded_product(
    traits: KerasAttention,
    layer: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    training: Any,
    return_attention_scores: bool,
    use_causal_mask: bool,
    **positions: Any,
) -> tuple[Any, Any]:
    """`function`, or Keras's `_compute_attention` if it refuses: with the tensors that
    are projected already, and all masks combined."""

    def own() -> tuple[Any, Any]:
        mask = layer._compute_attention_mask(
            query,
            value,
            query_mask=positions["query_mask"],
            key_mask=positions["key_mask"],
            attention_mask=attention_mask,
            use_causal_mask=use_causal_mask,
        )
        shared = traits is GROUPED
        method = own_method(layer, "_compute_attention", shared=shared)
        if shared or not return_attention_scores:
            # Older versions of Keras have no argument for the scores.
            return method(query, key, value, mask, training)
        return method(query, key, value, mask, training, return_attention_scores)

    run = functools.partial(
        attention_product,
        traits,
        layer,
        query,
        key,
        value,
        attention_mask,
        training,
        return_attention_scores,
        use_causal_mask,
        instead=own,
        **positions,
    )
    return guard(layer, run, own)()


def _is_keras_own(layer: Any, known_class: type) -> bool:
    """Whether the code around the product is Keras's as well, masks included."""
    return not overrides(layer, known_class, ("call", *OVERRIDABLE))


FAMILIES = {
    _MULTI_HEAD: Family(_multi_head, _PRODUCT, MULTI_HEAD),
    _GROUPED: Family(_grouped, _PRODUCT, GROUPED),
    keras.layers.Attention: ATTENTION,
}
