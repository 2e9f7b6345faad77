"""The registered gradients of the TensorFlow ops."""

import logging
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from hw3tf.ops.attention_options import TENSORS, AttentionOptions, double_of
from hw3tf.ops.attention_second_order import REMEDY, second_order

logger = logging.getLogger("hw3tf")

ATTRIBUTES = ("is_causal", "window_before", "window_after", "number_bits")
NUMBERS = 3 + len(TENSORS)  # the input that holds scale, soft cap and dropout rate


def _register_once(op: str) -> Callable[[Callable[..., Any]], None]:
    """`tf.RegisterGradient`, which can be undone by nothing: where hw3tf is imported
    again, the gradient of the first import serves."""

    def register(gradient: Callable[..., Any]) -> None:
        try:
            tf.RegisterGradient(op)(gradient)
        except KeyError:
            logger.debug("%s has its gradient from an earlier import of hw3tf", op)

    return register


def register(library: Any) -> None:
    """Registers the gradients of `Hw3tfAttention` and `Hw3tfAttentionGrad`."""

    @_register_once("Hw3tfAttention")
    def _attention_gradient(
        op: Any, grad_output: Any, _grad_statistics: Any, grad_logsumexp: Any
    ) -> list[Any]:
        # The statistics are there for this gradient; hw3tf.ops never returns them.
        output, statistics, _ = op.outputs
        bias = op.inputs[3]
        *grads, grad_bias = library.hw3tf_attention_grad(
            *op.inputs,
            output,
            statistics,
            grad_output,
            grad_logsumexp,
            **{name: op.get_attr(name) for name in ATTRIBUTES},
        )
        # An empty tensor of rank 1 stands for no bias.
        grads.append(grad_bias if bias.shape.rank == 4 else None)
        return grads + [None] * (len(op.inputs) - len(grads))

    @_register_once("Hw3tfAttentionGrad")
    def _gradient_of_gradient(op: Any, *upstream: Any) -> list[Any]:
        options = _options_of(op)
        count = 3 if options.bias is None else 4
        *grads, of_output, of_logsumexp = second_order(
            op.inputs[:count], options, op.inputs[-2:], upstream[:count]
        )
        # Output and statistics count as functions of query, key, value and bias.
        grads += [None] * (len(op.inputs) - len(grads) - 2)
        return [*grads, of_output, of_logsumexp]


def _options_of(op: Any) -> AttentionOptions:
    """The options of an op, from its inputs and attributes."""
    bits = op.get_attr("number_bits")
    before, after = op.get_attr("window_before"), op.get_attr("window_after")
    if not bits or before != after:
        raise NotImplementedError(
            "the derivative of a gradient of hw3tf's fused attention was asked for, in "
            "a call that was saved by hw3tf 0.1 or not made by hw3tf.ops: it has a "
            "first derivative only. " + REMEDY
        )
    scale, soft_cap, dropout_rate = map(double_of, bits)
    given = dict(zip(TENSORS, op.inputs[3:NUMBERS], strict=True))
    seed = given.pop("dropout_seed")
    return AttentionOptions(
        scale=scale,
        is_causal=op.get_attr("is_causal"),
        attn_logits_soft_cap=soft_cap or None,
        sliding_window=None if before < 0 else before + 1,
        dropout_rate=dropout_rate,
        dropout_seed=seed if dropout_rate else None,
        # An empty tensor of rank 1 stands for one not given.
        **{k: None if tuple(x.shape) == (0,) else x for k, x in given.items()},
    )
