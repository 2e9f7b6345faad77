"""The registered gradients of the TensorFlow ops."""

import logging
from collections.abc import Callable
from typing import Any

import tensorflow as tf

logger = logging.getLogger("hw3tf")

SECOND_ORDER = (
    "hw3tf's fused attention has a first derivative only: it was asked for the "
    "derivative of its gradient (a second-order gradient, a Hessian, or forward "
    "mode). Set the environment variable HW3TF_PATH=reference to compute the "
    "attention in pure Keras, which has all of them."
)
ATTRIBUTES = ("is_causal", "window_before", "window_after")


def _register_once(op: str) -> Callable[[Callable[..., Any]], None]:
    """`tf.RegisterGradient`, which can be undone by nothing: where hw3tf is imported
    again, the gradient of the first import serves."""

    def register(gradient: Callable[..., Any]) -> None:
        try:
            tf.RegisterGradient(op)(gradient)
        except KeyError:
            logger.debug("%s has its gradient from an earlier import of hw3tf", op)

    return register


def register(library):
    """Registers the gradients of `Hw3tfAttention` and `Hw3tfAttentionGrad`."""

    @_register_once("Hw3tfAttention")
    def _attention_gradient(op, grad_output, _grad_statistics, grad_logsumexp):
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
    def _second_order(op, *grads):
        raise NotImplementedError(SECOND_ORDER)
