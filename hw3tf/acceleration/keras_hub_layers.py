"""KerasHub's attention layers on the kernel: those with a separate method for the steps
between the projections.

The classes are recognised by their names, so that KerasHub need not be imported.
KerasHub computes `softmax(scale * query key^T + mask) value`, with a float32
`keras.layers.Softmax`, which gives zeros to a query that sees no key, or, on other
backends than TensorFlow, with a function of Keras.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import keras

from hw3tf.acceleration.coverage import Family
from hw3tf.layers.attention.attend import attend, kernel_call
from hw3tf.layers.attention.stock import Stock
from hw3tf.ops.attention.options import AttentionOptions

_PRODUCT = ("_compute_attention",)
_SOFTMAX = (*_PRODUCT, "_masked_softmax")
_WINDOW = (*_PRODUCT, "_mask_sliding_window")


_EQUATIONS = {
    "_dot_product_equation": "bquh,bkuh->buqk",
    "_combine_equation": "buqk,bkuh->bquh",
}


def _decoder(
    groups: str | None = "num_key_value_groups",
    window: Callable[[Any], int | None] | None = None,
    dropout: str | None = None,
    softmax: str = "_softmax",
) -> Family:
    """Families of decoders that repeat key heads, unless told that there is one
    group, and then call `_compute_attention(query, key, value, attention_mask)`.

    Args:
        groups: Name of the attribute with the number of queries to a key head; None
            if there is none.
        window: Function of the layer: its sliding window, or None.
        dropout: Name of the attribute with the dropout of the weights, if any.
        softmax: Name of the attribute with the softmax.
    """
    stock = Stock(
        softmax=softmax,
        dropout=dropout,
        scales=("_inv_norm_factor",),
        values=lambda layer: {k: v for k, v in _EQUATIONS.items() if hasattr(layer, k)},
    )

    def replace(layer: Any) -> dict[str, Any] | str:
        if dropout is not None and getattr(layer, dropout).rate >= 1:
            return "its dropout drops all weights"
        product = functools.partial(
            _decoder_product, layer, window and window(layer), stock
        )
        attributes: dict[str, Any] = {"_compute_attention": product}
        if groups is not None:
            attributes[groups] = 1
        return attributes

    methods = _SOFTMAX if window is None else (*_SOFTMAX, "_mask_sliding_window")
    return Family(replace, methods, stock)


def _decoder_product(
    layer: Any,
    window: int | None,
    stock: Stock,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any = None,
    training: Any = None,
    cache_update_index: Any = None,
) -> Any:
    by_function = _calls_function_of_keras(layer)
    if by_function:
        window = None
    attention_mask, window = _window(layer, window, attention_mask, cache_update_index)
    return attend(
        query,
        key,
        value,
        mask=attention_mask,
        zeros_without_keys=not by_function,
        scale=layer._inv_norm_factor,
        dropout=None if by_function else stock.dropout_of(layer),
        training=training,
        sliding_window=window,
    )[0]


def _calls_function_of_keras(layer: Any) -> bool:
    """Whether a decoder calls `keras.ops.dot_product_attention`, as KerasHub's do on
    JAX and PyTorch. Then a query that sees no key gets the mean of the values, not
    zeros, and decoders with a window do without it."""
    own = getattr(layer, "_use_fused_attention_op", None)
    if own is not None:
        return bool(own())
    names = type(layer)._compute_attention.__globals__
    available = names.get("fused_attention_op_available")
    if available is None or not available():
        return False
    return getattr(layer, "_attn_dropout_layer", None) is None or layer.dropout == 0


def _window(
    layer: Any, window: int | None, mask: Any, cache_update_index: Any
) -> tuple[Any, int | None]:
    """Mask and sliding window for the kernel. The kernel counts from position 0, so
    with a cache the layer's own mask of the window is used."""
    at_start = cache_update_index is None or (
        isinstance(cache_update_index, int) and cache_update_index == 0
    )
    if window is None or at_start:
        return mask, window
    return layer._mask_sliding_window(mask, cache_update_index=cache_update_index), None


_CAPPED = Stock(softmax="softmax", dropout="dropout_layer", rate="dropout")
_BIASED = Stock(softmax="softmax", dropout="dropout_layer", scales=("scaling",))


def _gemma(layer: Any) -> dict[str, Any] | str:
    product = functools.partial(_gemma_product, layer)
    return _unless_all_drops(layer, {"_compute_attention": product})


def _unless_all_drops(layer: Any, attributes: dict[str, Any]) -> dict[str, Any] | str:
    return "its dropout drops all weights" if layer.dropout >= 1 else attributes


def _gemma_product(
    layer: Any,
    q: Any,
    k: Any,
    v: Any,
    attention_mask: Any,
    training: Any = False,
    cache_update_index: Any = 0,
) -> Any:
    head_dim = layer.head_dim
    if not layer.query_head_dim_normalize:
        head_dim = layer.hidden_dim // layer.num_query_heads
    window = None
    if layer.use_sliding_window_attention and attention_mask is not None:
        window = layer.sliding_window_size
        if getattr(layer, "use_bidirectional_attention", False):  # not centred
            attention_mask = layer._mask_sliding_window(attention_mask)
            window = None
    attention_mask, window = _window(layer, window, attention_mask, cache_update_index)
    return attend(
        q,
        k,
        v,
        mask=attention_mask,
        scale=1 / math.sqrt(head_dim),
        attn_logits_soft_cap=layer.logit_soft_cap,
        sliding_window=window,
        dropout=_CAPPED.dropout_of(layer),
        training=training,
    )[0]


def _gemma4_text(layer: Any) -> dict[str, Any] | str:
    def product(
        q: Any,
        k: Any,
        v: Any,
        attention_mask: Any,
        training: Any = False,
        cache_update_index: Any = 0,
    ) -> Any:
        return attend(
            q,
            k,
            v,
            mask=attention_mask,
            scale=1.0,  # query and key are normalized instead
            attn_logits_soft_cap=layer.logit_soft_cap,
            dropout=_CAPPED.dropout_of(layer),
            training=training,
        )[0]

    return _unless_all_drops(layer, {"_compute_attention": product})


def _gemma4_vision(layer: Any) -> dict[str, Any] | str:
    def product(
        q: Any, k: Any, v: Any, attention_mask: Any, training: Any = False
    ) -> Any:
        return attend(
            q,
            k,
            v,
            mask=None if attention_mask is None else attention_mask[:, None, :],
            scale=1.0,
            attn_logits_soft_cap=layer.logit_soft_cap,
            dropout=_CAPPED.dropout_of(layer),
            training=training,
        )[0]

    return _unless_all_drops(layer, {"_compute_attention": product})


def _t5_gemma(layer: Any) -> dict[str, Any] | str:
    """Their mask is a bias."""

    def product(
        query_states: Any,
        key_states: Any,
        value_states: Any,
        attention_mask: Any,
        training: Any,
    ) -> Any:
        return attend(
            query_states,
            key_states,
            value_states,
            bias=attention_mask,
            scale=layer.scaling,
            attn_logits_soft_cap=layer.logit_soft_cap,
            dropout=layer.dropout_layer,
            training=training,
        )[0]

    attributes = {"_compute_attention": product, "num_key_value_groups": 1}
    return _unless_all_drops(layer, attributes)


def _gpt_oss(layer: Any) -> dict[str, Any]:
    """Each head has a sink, one more logit for every query, which takes weight and adds
    no value: the output shrinks by the factor `sigmoid(logsumexp - sink)`."""
    ops = keras.ops

    def product(
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any = None,
        start_index: Any = 0,
    ) -> Any:
        window = layer.sliding_window
        if window is not None and window > 0:
            at = ops.arange(ops.shape(query)[1])[:, None] + start_index
            near = ops.arange(ops.shape(key)[1])[None] >= at - window
            mask = near[None]
            if attention_mask is not None:
                mask = ops.logical_and(mask, ops.cast(attention_mask, "bool"))
        else:
            mask = attention_mask
        return _with_sink(query, key, value, mask, layer)

    return {"_compute_attention": product, "num_key_value_groups": 1}


def _with_sink(query: Any, key: Any, value: Any, mask: Any, layer: Any) -> Any:
    ops = keras.ops
    mask = None if mask is None else mask[:, None]
    options = AttentionOptions(mask=mask, scale=layer._inv_norm_factor)
    call = kernel_call(query, key, value, options)
    output, logsumexp = call.run(return_logsumexp=True, finite_logsumexp=True)
    sinks = ops.cast(ops.reshape(layer.sinks, (1, -1, 1)), logsumexp.dtype)
    share = ops.transpose(ops.sigmoid(logsumexp - sinks), (0, 2, 1))[..., None]
    return ops.multiply(output, ops.cast(share, output.dtype))


def _mmdit(layer: Any) -> dict[str, Any]:
    """The two streams of Stable Diffusion 3, joined; no mask."""

    def product(query: Any, key: Any, value: Any) -> Any:
        scale = layer._inverse_sqrt_key_dim
        output = attend(query, key, value, scale=float(scale))[0]
        shape = keras.ops.shape(query)
        return keras.ops.reshape(output, (shape[0], -1, shape[2] * shape[3]))

    return {"_compute_attention": product}


def _qwen_window(layer: Any) -> int | None:
    return layer.sliding_window_size if layer.use_sliding_window_attention else None


def _qwen3_window(layer: Any) -> int | None:
    return layer.sliding_window_size or None


_MODELS = "keras_hub.src.models."
FAMILIES = {
    _MODELS + name: family
    for name, family in {
        "gemma.gemma_attention.CachedGemmaAttention": Family(_gemma, _WINDOW, _CAPPED),
        "gemma3.gemma3_attention.CachedGemma3Attention": Family(
            _gemma, _WINDOW, _CAPPED
        ),
        "gemma4.gemma4_attention.Gemma4TextAttention": Family(
            _gemma4_text, _PRODUCT, _CAPPED
        ),
        "gemma4.gemma4_attention.Gemma4VisionAttention": Family(
            _gemma4_vision, _PRODUCT, _CAPPED
        ),
        "gpt_neo_x.gpt_neo_x_attention.GPTNeoXAttention": _decoder(
            groups=None, dropout="_attn_dropout_layer"
        ),
        "gpt_oss.gpt_oss_attention.GptOssAttention": Family(
            _gpt_oss,
            _PRODUCT,
            Stock(scales=("_inv_norm_factor",), values=lambda layer: _EQUATIONS),
        ),
        "llama.llama_attention.LlamaAttention": _decoder(),
        "mistral.mistral_attention.CachedMistralAttention": _decoder(
            groups="_num_key_value_groups"
        ),
        "mixtral.mixtral_attention.CachedMixtralAttention": _decoder(softmax="softmax"),
        "phi3.phi3_attention.Phi3Attention": _decoder(softmax="softmax"),
        "qwen.qwen_attention.QwenAttention": _decoder(window=_qwen_window),
        "qwen3.qwen3_attention.Qwen3Attention": _decoder(window=_qwen3_window),
        "qwen3_5.qwen3_5_attention.Qwen3_5Attention": _decoder(window=_qwen3_window),
        "qwen3_moe.qwen3_moe_attention.Qwen3MoeAttention": _decoder(
            window=_qwen3_window
        ),
        "qwen_moe.qwen_moe_attention.QwenMoeAttention": _decoder(window=_qwen_window),
        "smollm3.smollm3_layers.SmolLM3Attention": _decoder(),
        "stable_diffusion_3.mmdit.MMDiTBlock": Family(
            _mmdit,
            _PRODUCT,
            Stock(softmax="softmax", scales=("_inverse_sqrt_key_dim",)),
        ),
        "t5gemma.t5gemma_attention.T5GemmaAttention": Family(
            _t5_gemma, (*_PRODUCT, "_compute_attention_without_fused_op"), _BIASED
        ),
        "t5gemma2.t5gemma2_attention.T5Gemma2Attention": Family(
            _t5_gemma, (*_PRODUCT, "_compute_attention_without_fused_op"), _BIASED
        ),
        "t5gemma2.t5gemma2_attention.T5Gemma2MergedAttention": Family(
            _t5_gemma, (*_PRODUCT, "_compute_attention_without_fused_op"), _BIASED
        ),
    }.items()
}
