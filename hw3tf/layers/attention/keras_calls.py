"""Keras's attention layers as functions of the layer: ours, or Keras's own.

Keras computes these layers in two ways. Without dropout, scores and further axes it
calls `keras.ops.dot_product_attention`, where a query that sees no key gets the mean of
the values; otherwise `keras.layers.Softmax`, where it gets zeros. Here the kernel does
both, and what such a query gets is as in Keras. Masks of positions, causality and
windows reach the kernel as what they are: no mask of length x length is built of them.
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras

from hw3tf.layers.attention.attend import attend
from hw3tf.layers.attention.axes import check_axes, over_axes
from hw3tf.layers.attention.inputs import check_inputs
from hw3tf.layers.attention.stock import Stock
from hw3tf.layers.call_context import training_under_way
from hw3tf.ops.attention.checks import check_not_ragged

try:
    from keras.src.backend.common import masking
except ImportError:  # older Keras has an attribute of the tensor
    masking = None

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


@dataclass(frozen=True)
class KerasAttention(Stock):
    """What tells one of Keras's two layers from the other, beside their methods.

    Attributes:
        heads, gate, window: Names of the attributes with the number of heads of the
            query, whether there is a gate, and the sliding window.
        attention_axes: Function of the layer: the axes that attention runs over.
        boolean_mask: Whether every attention mask is cast to booleans, nonzero = True,
            not only one that others are combined with.
        passes_mask: Whether `call` itself gives the mask of the query to the output.
        remembers_scores: Whether `_compute_attention` looks at the layer for whether
            scores are asked for.
    """

    heads: str = ""
    gate: str = ""
    window: str = ""
    attention_axes: Callable[[Any], tuple[int, ...]] = lambda layer: (1,)
    boolean_mask: bool = False
    passes_mask: bool = False
    remembers_scores: bool = False


MULTI_HEAD = KerasAttention(
    softmax="_softmax",
    softmax_dtype=None,
    axes=_softmax_axes,
    dropout="_dropout_layer",
    rate="_dropout",
    scales=("_inverse_sqrt_key_dim",),
    values=_equations,
    heads="_num_heads",
    gate="_use_gate",
    window="_sliding_window",
    attention_axes=lambda layer: tuple(layer._attention_axes),
    boolean_mask=True,
    passes_mask=True,
)
GROUPED = KerasAttention(
    softmax="_softmax",
    softmax_dtype=None,
    dropout="_dropout_layer",
    rate="dropout",
    scales=("_inverse_sqrt_head_dim",),
    values=lambda layer: {
        "_dot_product_equation": "bquh,bkuh->buqk",
        "_combine_equation": "buqk,bkuh->bquh",
    },
    heads="num_query_heads",
    gate="use_gate",
    window="sliding_window",
    remembers_scores=True,
)


def call_attention(
    traits: KerasAttention,
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
    keep_masks: bool = True,
    product: Callable[..., tuple[Any, Any]] | None = None,
) -> Any:
    """The `call` of one of Keras's two attention layers, on the kernel, which shares
    the heads of key and value without copies of them.

    Args:
        traits: `MULTI_HEAD` or `GROUPED`.
        layer: Built layer of that class, or of a subclass that has the methods of it.
        query, ...: As there; the masks are those given, `query_mask` too.
        keep_masks: Whether the tensors keep their Keras masks; `MultiHeadAttention`
            takes them off.
        product: Computes what lies between the projections, with the arguments of
            `attention_product` but for the first, which is the default.

    Raises:
        Refused: If the shapes do not fit each other.
    """
    masks = _tensors(query_mask, value_mask, key_mask, attention_mask)
    heads = getattr(layer, traits.heads)
    check_inputs(traits.attention_axes(layer), heads, query, value, key, **masks)
    if traits.remembers_scores:
        layer._return_attention_scores = return_attention_scores
    key = value if key is None else key
    # Projections know no masks, and would warn.
    with masks_taken_off(query, value, key, put_back=keep_masks):
        gate = layer._gate_dense(query) if getattr(layer, traits.gate, False) else None
        projected = (
            layer._query_dense(query),
            layer._key_dense(key),
            layer._value_dense(value),
        )
    positions = {
        "query_mask": _boolean(masks["query_mask"]),
        "key_mask": _both(masks["value_mask"], masks["key_mask"]),
        "sliding_window": getattr(layer, traits.window, None),
    }
    combined = use_causal_mask or any(x is not None for x in positions.values())
    mask = masks["attention_mask"]
    output, scores = (product or functools.partial(attention_product, traits))(
        layer,
        *projected,
        # As Keras, to combine them.
        _boolean(mask) if traits.boolean_mask or combined else mask,
        training,
        return_attention_scores,
        use_causal_mask,
        **positions,
    )
    output = layer._output_dense(output if gate is None else output * gate)
    if traits.passes_mask:
        set_mask(output, masks["query_mask"])
    return (output, scores) if return_attention_scores else output


def attention_product(
    traits: KerasAttention,
    layer: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any = None,
    training: Any = None,
    return_attention_scores: bool = False,
    use_causal_mask: bool = False,
    *,
    query_mask: Any = None,
    key_mask: Any = None,
    sliding_window: int | None = None,
    instead: Callable[[], tuple[Any, Any]] | None = None,
) -> tuple[Any, Any]:
    """The `_compute_attention` of one of Keras's two attention layers, on the kernel.

    Args:
        traits: `MULTI_HEAD` or `GROUPED`.
        layer, query, ...: As there; key and value may have fewer heads than query.
        query_mask, key_mask: As for `over_axes`.
        sliding_window: As for `hw3tf.ops.dot_product_attention`.
        instead: Computes the same where `attention_mask` proves to be larger than the
            scores when a graph runs. Only Keras's function takes such a mask, its
            Softmax does not.
    """
    if getattr(layer, "_flash_attention", None) and return_attention_scores:
        raise ValueError(
            "Returning attention scores is not supported when flash attention is "
            "enabled. Please disable flash attention to access attention scores. "
            "Received: flash_attention=True, return_attention_scores=True"
        )
    larger = None if instead is None else functools.partial(_output_of, instead)
    axes, dropout = traits.attention_axes(layer), traits.dropout_of(layer)
    check_axes(axes, use_causal_mask, sliding_window)
    by_softmax = dropout is not None or return_attention_scores or len(query.shape) != 4
    over = over_axes(axes, query, key, value, attention_mask, query_mask, key_mask)
    output, scores = attend(
        over.query,
        over.key,
        over.value,
        mask=over.mask,
        query_mask=over.query_mask,
        key_mask=over.key_mask,
        is_causal=use_causal_mask,
        sliding_window=sliding_window,
        scale=getattr(layer, traits.scales[0]),
        zeros_without_keys=by_softmax,
        dropout=dropout,
        training=training_under_way() if training is None else training,
        return_scores=return_attention_scores,
        instead=None if by_softmax else larger,
    )
    return over.output(output), over.scores(scores)


def _output_of(function: Callable[[], tuple[Any, Any]]) -> Any:
    return function()[0]


@contextlib.contextmanager
def masks_taken_off(*tensors: Any, put_back: bool = True) -> Iterator[None]:
    """Meanwhile the tensors have no Keras masks; afterwards, if `put_back`, those that
    they have now."""
    with masks_put_back(*tensors) if put_back else contextlib.nullcontext():
        for tensor in tensors:
            set_mask(tensor, None)
        yield


@contextlib.contextmanager
def masks_put_back(*tensors: Any) -> Iterator[None]:
    """Afterwards the tensors have the Keras masks that they have now."""
    masks = [(x, mask) for x in tensors if (mask := mask_of(x)) is not None]
    try:
        yield
    finally:
        for tensor, mask in masks:
            set_mask(tensor, mask)


def mask_of(tensor: Any) -> Any:
    """The Keras mask of a tensor, or None. Arrays of JAX have no attributes: Keras
    keeps their masks in a dictionary."""
    if masking is not None:
        return masking.get_keras_mask(tensor)
    return getattr(tensor, "_keras_mask", None)


def set_mask(tensor: Any, mask: Any) -> None:
    """Gives a tensor a Keras mask; None takes it away."""
    if mask is None and mask_of(tensor) is None:
        return
    if masking is not None:
        masking.set_keras_mask(tensor, mask)
    else:
        with contextlib.suppress(AttributeError):
            tensor._keras_mask = mask


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


def _both(value_mask: Any, key_mask: Any) -> Any:
    """A key takes part if both masks allow it."""
    if value_mask is not None and key_mask is not None:
        return ops.logical_and(value_mask, key_mask)
    return _boolean(key_mask if value_mask is None else value_mask)


def _boolean(mask: Any) -> Any:
    return None if mask is None else ops.cast(mask, "bool")
