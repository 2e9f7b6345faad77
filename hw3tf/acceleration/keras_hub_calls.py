"""KerasHub's attention layers that do everything in `call`, on the kernel: `call` is
rewritten here, with the layer's own projections around one call of the kernel."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from hw3tf.acceleration.coverage import Family, own_method
from hw3tf.acceleration.enabling import fused_scope
from hw3tf.acceleration.subtracted_masks import if_out, masked_keys_are_out
from hw3tf.layers.attention.attend import attend
from hw3tf.layers.attention.stock import NOTHING, Stock
from hw3tf.layers.call_context import training_under_way

ops = keras.ops


def _cached(
    layer: Any, key: Any, value: Any, cache: Any, cache_update_index: Any
) -> tuple[Any, Any, Any]:
    """Keys and values with what the cache holds, and the cache, as in KerasHub."""
    if cache is None:
        if cache_update_index is not None:
            raise ValueError(
                "`cache_update_index` must be None where `cache` is. Received: "
                f"cache=None, cache_update_index={cache_update_index}, in the layer "
                f"{layer.name!r}"
            )
        return key, value, None
    if cache_update_index is None:
        return cache[:, 0, ...], cache[:, 1, ...], cache
    start = [0, cache_update_index, 0, 0]
    key = ops.slice_update(cache[:, 0, ...], start, key)
    value = ops.slice_update(cache[:, 1, ...], start, value)
    return key, value, ops.stack((key, value), axis=1)


def _joined(output: Any) -> Any:
    """The output with the heads of a position side by side."""
    shape = ops.shape(output)
    return ops.reshape(output, (shape[0], shape[1], shape[2] * shape[3]))


def _bloom_call(
    layer: Any,
    hidden_states: Any,
    attention_mask: Any = None,
    cache: Any = None,
    cache_update_index: Any = None,
) -> Any:
    key, value, cache = _cached(
        layer,
        layer._key_dense(hidden_states),
        layer._value_dense(hidden_states),
        cache,
        cache_update_index,
    )
    bias = layer._alibi_layer._get_alibi_bias(layer.num_heads, ops.shape(key)[1])
    output, _ = attend(
        layer._query_dense(hidden_states),
        key,
        value,
        mask=attention_mask,
        bias=bias,
        scale=layer.inv_norm_factor,
        dropout=layer._dropout_layer,
        training=training_under_way(),
    )
    output = layer._dropout_layer(layer._output_dense(_joined(output)))
    return output if cache is None else (output, cache)


def _falcon_call(
    layer: Any,
    inputs: Any,
    alibi: Any,
    attention_mask: Any = None,
    cache: Any = None,
    cache_update_index: Any = None,
) -> Any:
    key, value, cache = _cached(
        layer, layer.key_dense(inputs), layer.value_dense(inputs), cache,
        cache_update_index,
    )  # fmt: skip
    output, _ = attend(
        layer.query_dense(inputs),
        key,
        value,
        mask=attention_mask,
        bias=alibi * layer.inv_norm_factor,
        scale=layer.inv_norm_factor,
        dropout=layer.attention_dropout,
        training=training_under_way(),
    )
    output = layer.output_dense(_joined(output))
    return output if cache is None else (output, cache)


def _t5_call(
    layer: Any,
    hidden_states: Any,
    mask: Any = None,
    key_value_states: Any = None,
    position_bias: Any = None,
    cache: Any = None,
    cache_update_index: Any = None,
    training: Any = False,
) -> Any:
    """The bias includes the mask: later layers get it instead of a mask."""
    states = hidden_states if key_value_states is None else key_value_states
    batch = ops.shape(hidden_states)[0]

    def heads(x: Any) -> Any:
        return ops.reshape(x, (batch, -1, layer.num_heads, layer.key_value_dim))

    key = value = None
    if cache is None or cache_update_index is not None:
        key = heads(layer.key_projector(states))
        value = heads(layer.value_projector(states))
    key, value, cache = _cached(layer, key, value, cache, cache_update_index)
    if position_bias is None:
        position_bias = _t5_bias(
            layer, ops.shape(hidden_states)[1], ops.shape(key)[1], cache_update_index
        )
        if mask is not None:
            mask = ops.cast(mask[:, None], position_bias.dtype)
            position_bias = position_bias + (1.0 - mask) * -1e9
    output, _ = attend(
        heads(layer.query_projector(hidden_states)),
        key,
        value,
        bias=position_bias,
        scale=1.0,
        dropout=layer.dropout_layer,
        training=training,
    )
    return layer.output_projector(_joined(output)), position_bias, cache


def _t5_bias(
    layer: Any, query_length: Any, key_length: Any, cache_update_index: Any
) -> Any:
    if layer.use_relative_attention_bias:
        start = 0 if cache_update_index is None else cache_update_index
        return layer.compute_bias(query_length, key_length, query_start_index=start)
    shape = (1, layer.num_heads, query_length, key_length)
    return ops.zeros(shape, layer.compute_dtype)


def _vision_call(
    layer: Any,
    x: Any,
    attention_mask: Any = None,
    return_attention_scores: Any = None,
    training: Any = False,
) -> Any:
    """The vision towers of PaliGemma and Gemma 3. Their mask is a bias. The second
    result is for callers that need the weights; KerasHub's models do not."""
    if return_attention_scores:
        return type(layer).call(
            layer, x, attention_mask, return_attention_scores, training
        )
    shape = ops.shape(x)
    query, key, value = (
        ops.reshape(project(x), (*shape[:2], layer.num_heads, layer.head_dim))
        for project in (layer.query_proj, layer.key_proj, layer.value_proj)
    )
    output, _ = attend(
        query,
        key,
        value,
        bias=attention_mask,
        dropout=layer.dropout_layer,
        training=training,
    )
    return layer.out_proj(_joined(output)), None


def _sam_call(layer: Any, query: Any, value: Any, key: Any) -> Any:
    def heads(x: Any) -> Any:  # not `_separate_heads`, which transposes
        shape = ops.shape(x)
        size = x.shape[-1] // layer.num_heads
        return ops.reshape(x, (shape[0], shape[1], layer.num_heads, size))

    output, _ = attend(
        heads(layer.query_proj(query)),
        heads(layer.key_proj(key)),
        heads(layer.value_proj(value)),
    )
    return layer.out_proj(_joined(output))


def _seg_former_call(layer: Any, x: Any) -> Any:
    """Keys and values come from an image that is reduced by `sr_ratio`."""
    batch, length = ops.shape(x)[:2]
    channels = x.shape[-1]

    def heads(x: Any) -> Any:
        size = channels // layer.num_heads
        return ops.reshape(x, (batch, -1, layer.num_heads, size))

    query = heads(layer.q(x))
    if layer.sr_ratio > 1:
        side = int(math.sqrt(length))
        x = layer.sr(ops.reshape(x, (batch, side, side, channels)))
        x = layer.norm(ops.reshape(x, (batch, -1, channels)))
    output, _ = attend(
        query,
        heads(layer.k(x)),
        heads(layer.v(x)),
        scale=layer.scale,
        dropout=layer.dropout,
        training=training_under_way(),
    )
    return layer.proj_drop(layer.proj(_joined(output)))


def _video_prism_call(
    layer: Any,
    query: Any,
    value: Any,
    key: Any = None,
    attention_mask: Any = None,
    training: Any = None,
) -> Any:
    own = functools.partial(
        own_method(layer, "call"), query, value, key, attention_mask, training
    )
    key = query if key is None else key
    query, key, scale = layer.query_dense(query), layer.key_dense(key), 1.0
    if layer.use_per_dim_scale:
        query = layer.per_dim_scale_layer(query)
    else:
        scale = layer.key_dim**-0.5
    mask = attention_mask
    if mask is not None and len(mask.shape) == 2:
        mask = mask[:, None]  # of keys

    def fused() -> Any:
        output, _ = attend(
            query,
            key,
            layer.value_dense(value),
            mask=mask,
            zeros_without_keys=False,
            scale=scale,
            attn_logits_soft_cap=layer.attention_logit_soft_cap,
            dropout=layer.dropout_layer,
            training=training,
        )
        return layer.output_dense(output)

    if mask is None:
        return fused()
    drops = bool(training) and layer.dropout_layer.rate > 0
    out = masked_keys_are_out(query, key, mask, scale=scale)
    return if_out(out, fused, own, drops)


def _scoped(layer: Any) -> dict[str, Any]:
    """For layers that call `keras.ops.dot_product_attention` themselves."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with fused_scope():
            return type(layer).call(layer, *args, **kwargs)

    vars(call)["__wrapped__"] = type(layer).call.__get__(layer)  # its signature
    return {"call": call}


def _call(
    function: Callable[..., Any], stock: Stock = NOTHING, methods: Sequence[str] = ()
) -> Family:
    """The family of a class whose `call` and `methods` `function` replaces."""

    def replace(layer: Any) -> dict[str, Any] | str:
        dropout = stock.dropout_of(layer)
        if dropout is not None and dropout.rate >= 1:
            return "its dropout drops all weights"
        return {"call": functools.partial(function, layer)}

    return Family(replace, ("call", *methods), stock)


_VISION = _call(
    _vision_call, Stock(dropout="dropout_layer"), ("_transpose_for_scores",)
)
_SCOPED = Family(_scoped, ("call",))
_MODELS = "keras_hub.src.models."
FAMILIES = {
    _MODELS + name: family
    for name, family in {
        "bloom.bloom_attention.BloomAttention": _call(
            _bloom_call,
            Stock(
                softmax="_softmax",
                dropout="_dropout_layer",
                scales=("inv_norm_factor",),
            ),
        ),
        "dinov3.dinov3_layers.DINOV3Attention": _SCOPED,
        "esm.esm_attention.EsmSelfAttention": _SCOPED,
        "falcon.falcon_attention.FalconAttention": _call(
            _falcon_call,
            Stock(
                softmax="softmax",
                dropout="attention_dropout",
                scales=("inv_norm_factor",),
            ),
        ),
        "gemma3.gemma3_vision_encoder.Gemma3VisionAttention": _VISION,
        "mit.mit_layers.SegFormerMultiheadAttention": _call(
            _seg_former_call, Stock(dropout="dropout", scales=("scale",))
        ),
        "pali_gemma.pali_gemma_vit.PaliGemmaVitAttention": _VISION,
        "roformer_v2.roformer_v2_attention.RoformerAttention": _SCOPED,
        "sam.sam_layers.MultiHeadAttentionWithDownsampling": _call(
            _sam_call, methods=("_separate_heads", "_recombine_heads")
        ),
        "t5.t5_multi_head_attention.T5MultiHeadAttention": _call(
            _t5_call, Stock(dropout="dropout_layer")
        ),
        "video_prism.video_prism_layers.VideoPrismAttention": _call(
            _video_prism_call, Stock(dropout="dropout_layer")
        ),
    }.items()
}
