"""The gradients of the TensorFlow ops, as TensorFlow registers them."""

import logging
from collections.abc import Callable
from typing import Any

from hw3tf.ops.attention.options import (
    NUMBERS,
    TENSORS,
    AttentionOptions,
    double_of,
)
from hw3tf.ops.fronts.derivatives import remedy
from hw3tf.ops.fronts.second_order import (
    attention_in_keras,
    rnn_in_keras,
    second_order,
)
from hw3tf.ops.operations import (
    ATTENTION,
    ATTENTION_GRAD,
    RNN,
    RNN_GRAD,
    Operation,
)
from hw3tf.ops.rnn.options import RnnOptions

logger = logging.getLogger("hw3tf")

_DEFAULTS = {x["name"]: x["default"] for x in ATTENTION.attributes}
_BIAS = [x.name for x in ATTENTION.operands].index("bias")


def register_gradients(library: Any) -> None:
    """Registers the gradients of all ops that have one.

    Args:
        library: As `tf.load_op_library` returns it.
    """
    _register_attention(library)
    for cell in RNN:
        _register_rnn(library, cell)


def _register_attention(library: Any) -> None:
    """Of `Hw3tfAttention` and `Hw3tfAttentionGrad`."""

    @_register_once("Hw3tfAttention")
    def _attention_gradient(
        op: Any, grad_output: Any, _grad_statistics: Any, grad_logsumexp: Any
    ) -> list[Any]:
        # The statistics are there for this gradient; hw3tf.ops never returns them.
        output, statistics, _ = op.outputs
        skip_bias = _BIAS in _skipped(op)
        grads = library.hw3tf_attention_grad(
            *op.inputs,
            output,
            statistics,
            grad_output,
            grad_logsumexp,
            **_attributes_of(op),
            number_bits=op.get_attr("number_bits"),
            skip_grad_bias=skip_bias,
        )
        given = _given(ATTENTION, op)
        grads[-1].set_shape((0,) if skip_bias else op.inputs[_BIAS].shape)
        if skip_bias:
            given.pop("bias", None)
        named = zip(ATTENTION.with_gradient, grads, strict=True)
        grads = [grad if name in given else None for name, grad in named]
        return grads + [None] * (len(op.inputs) - len(grads))

    @_register_once("Hw3tfAttentionGrad")
    def _gradient_of_gradient(op: Any, *upstream: Any) -> list[Any]:
        given = _given(ATTENTION, op)
        names = [name for name in ATTENTION.with_gradient if name in given]
        inputs = [given[name] for name in names]
        named = dict(zip(ATTENTION.with_gradient, upstream, strict=True))
        if op.get_attr("skip_grad_bias"):
            named["bias"] = None
        *grads, of_output, of_logsumexp = second_order(
            attention_in_keras(_options_of(op)),
            inputs,
            op.inputs[-2:],
            [named[name] for name in names],
            "attention",
        )
        # Output and statistics count as functions of query, key, value and bias.
        grads += [None] * (len(op.inputs) - len(grads) - 2)
        return [*grads, of_output, of_logsumexp]


def _register_rnn(library: Any, cell: str) -> None:
    """Of `Hw3tfLstm` and `Hw3tfLstmGrad`, or those of another cell."""
    operation, of_gradient = RNN[cell], RNN_GRAD[cell]
    forward = getattr(library, f"hw3tf_{cell}")
    backward = getattr(library, f"hw3tf_{cell}_grad")
    names = [x["name"] for x in operation.attributes if x["name"] != "keep"]

    @_register_once(operation.op)
    def _gradient(op: Any, *upstream: Any) -> list[Any]:
        attributes = {name: op.get_attr(name) for name in names}
        outputs, kept = op.outputs[0], op.outputs[-1]
        if not op.get_attr("keep"):  # no tape was there when it was called
            kept = forward(*op.inputs, **attributes, keep=True)[-1]
        skip_inputs = 0 in _skipped(op)
        grads = backward(
            *op.inputs,
            outputs,
            kept,
            *upstream[:-1],
            **attributes,
            skip_grad_inputs=skip_inputs,
        )
        given = _given(operation, op)
        if skip_inputs:
            del given["inputs"]
        else:
            grads[0].set_shape(op.inputs[0].shape)
        named = zip(operation.with_gradient, grads, strict=True)
        grads = [grad if name in given else None for name, grad in named]
        return grads + [None] * (len(op.inputs) - len(grads))

    @_register_once(of_gradient.op)
    def _gradient_of_gradient(op: Any, *upstream: Any) -> list[Any]:
        given = _given(of_gradient, op)
        wanted = [name for name in operation.with_gradient if name in given]
        of_results = ["grad_" + name for name in operation.results if name != "kept"]
        places = [i for i, name in enumerate(of_results) if name in given]
        constants = {
            x.name: given[x.name]
            for x in operation.operands
            if x.name in given and x.name not in wanted
        }
        words = {name: _plain(op.get_attr(name)) for name in names}
        function = rnn_in_keras(cell, wanted, constants, RnnOptions(**words), places)
        named = dict(zip(operation.with_gradient, upstream, strict=True))
        if op.get_attr("skip_grad_inputs"):
            named["inputs"] = None
        of_results = [of_results[i] for i in places]
        grads = second_order(
            function,
            [given[name] for name in wanted],
            [given[name] for name in of_results],
            [named[name] for name in wanted],
            "a recurrent layer",
        )
        # `outputs` and `kept` count as functions of the operands.
        found = dict(zip([*wanted, *of_results], grads, strict=True))
        return [found.get(x.name) for x in of_gradient.operands]


def _plain(value: Any) -> Any:
    """The value of an attribute; a word is read as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _register_once(op: str) -> Callable[[Callable[..., Any]], None]:
    """`tf.RegisterGradient`, which can be undone by nothing: where hw3tf is imported
    again, the gradient of the first import serves."""
    import tensorflow as tf

    def register(gradient: Callable[..., Any]) -> None:
        try:
            tf.RegisterGradient(op)(gradient)
        except KeyError:
            logger.debug("%s has its gradient from an earlier import of hw3tf", op)

    return register


def _skipped(op: Any) -> tuple[int, ...]:
    """The inputs whose gradient nobody wants. Only tapes tell; TensorFlow's own
    gradients read it, too."""
    return tuple(getattr(op, "skip_input_indices", None) or ())


def _given(operation: Operation, op: Any) -> dict[str, Any]:
    """The operands of an op by their names. An empty tensor of rank 1 stands for an
    optional one that is not given."""
    return {
        operand.name: x
        for operand, x in zip(operation.operands, op.inputs, strict=False)
        if not operand.optional or x.shape.rank is None or tuple(x.shape) != (0,)
    }


def _attributes_of(op: Any) -> dict[str, Any]:
    """The attributes of attention that an op and its gradient share."""
    return {
        x["name"]: op.get_attr(x["name"])
        for x in ATTENTION_GRAD.attributes
        if x["carrier"] == "attribute" and x["name"] in _DEFAULTS
    }


def _options_of(op: Any) -> AttentionOptions:
    """The options of an op, from its inputs and attributes."""
    bits, attributes = op.get_attr("number_bits"), _attributes_of(op)
    if not bits or attributes["window_before"] != attributes["window_after"]:
        raise NotImplementedError(
            "the derivative of a gradient of hw3tf's fused attention was asked for, in "
            "a call that was saved by hw3tf 0.1 or not made by hw3tf.ops: it has a "
            "first derivative only. " + remedy("attention")
        )
    # A graph that was saved before there was a number has the default of it.
    attributes |= {name: _DEFAULTS[name] for name in NUMBERS}
    attributes |= dict(zip(NUMBERS, map(double_of, bits), strict=False))
    given = _given(ATTENTION, op)
    seed = op.inputs[len(ATTENTION.operands)] if attributes["dropout_rate"] else None
    return AttentionOptions.of_attributes(
        attributes,
        dropout_seed=seed,
        **{name: given[name] for name in TENSORS if name in given},
    )
