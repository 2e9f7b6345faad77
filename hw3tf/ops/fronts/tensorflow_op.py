"""The TensorFlow ops: loading them, calling them, and their gradients.

TensorFlow is imported when it is needed, for the other backends of Keras.
"""

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from hw3tf.ops.attention.options import (
    NUMBERS,
    TENSORS,
    AttentionOptions,
    bits_of,
    double_of,
    real_dtype,
)
from hw3tf.ops.library import ask, op_library_path, register_targets
from hw3tf.ops.operations import ATTENTION, ATTENTION_GRAD, INTEGER_RNN
from hw3tf.ops.recurrence.options import RecurrenceOptions

logger = logging.getLogger("hw3tf")

OVERFLOW = "the recurrence overflows"  # as csrc/operations/integer_rnn.cc
_DEFAULTS = {x["name"]: x["default"] for x in ATTENTION.attributes}


@functools.cache
def load_op_library() -> Any:
    """Loads the TensorFlow ops, once; registers their gradients, and XLA's calls.

    `import hw3tf` does this on the TensorFlow backend, so that saved models
    that contain the ops can be loaded.

    Returns:
        The module of generated functions, as `tf.load_op_library`.

    Raises:
        FileNotFoundError: If the library is not installed.
        tensorflow.errors.NotFoundError: If TensorFlow cannot load it.
        ImportError: If the process has loaded another copy of it, from another
            folder, or the kernels of another build.

    Example:

    >>> ops = hw3tf.load_op_library()
    >>> ops is hw3tf.load_op_library()
    True
    """
    import tensorflow as tf

    library = tf.load_op_library(op_library_path())
    if error := ask(op_library_path(), "Hw3tfLoadError"):
        raise ImportError(error)
    _register_gradients(library)
    register_targets(op_library_path())
    return library


@functools.cache
def op_library_error() -> str:
    """Empty if the op library is loaded, otherwise why it could not be.

    Raises:
        ImportError: As `load_op_library`: what is loaded does not belong together, and
            no other path would be right.
    """
    try:
        load_op_library()
    except ImportError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def attention(query: Any, key: Any, value: Any, options: AttentionOptions) -> Any:
    """Output and logsumexp by the op `Hw3tfAttention`."""
    dtypes = {"Real": real_dtype(query.dtype)}
    tensors = []
    for operand in ATTENTION.optional:
        x = getattr(options, operand.name)
        dtype = dtypes.get(operand.type, operand.type)
        tensors.append(_constant((), dtype) if x is None else x)
    seed, attributes = options.dropout_seed, options.attributes
    numbers = tuple(attributes.pop(name) for name in NUMBERS)
    output, _, logsumexp = load_op_library().hw3tf_attention(
        query,
        key,
        value,
        *tensors,
        _constant(0, "int64") if seed is None else seed,
        _constant(numbers, "float64"),
        **attributes,
        finite_logsumexp=True,
        number_bits=[bits_of(number) for number in numbers],
    )
    return output, logsumexp


def integer_rnn(
    tensors: Mapping[str, Any], options: RecurrenceOptions, state_dtype: str
) -> Any:
    """The states by the op `Hw3tfIntegerRnn`, or `Hw3tfIntegerRnnSequence`."""
    import tensorflow as tf

    library = load_op_library()
    run = library.hw3tf_integer_rnn
    if options.return_sequences:
        run = library.hw3tf_integer_rnn_sequence
    given = []
    for operand in INTEGER_RNN.operands:
        x = tensors.get(operand.name)
        dtype = state_dtype if operand.type == "T" else operand.type
        given.append(_constant((), dtype) if x is None else tf.convert_to_tensor(x))
    try:
        return run(*given, **options.kernel_attributes)
    except tf.errors.InvalidArgumentError as error:  # eagerly only
        message = error.message
        begin, end = message.find(OVERFLOW), message.rfind(" [Op:")
        if begin < 0:  # a shape that does not fit
            raise
        raise OverflowError(message[begin : end if end > 0 else None]) from None


def _constant(value: Any, dtype: str) -> Any:
    """A constant, made only once where calls are eager: making one takes longer
    than a small call of the kernel. `()` is an empty tensor of rank 1, which stands for
    an operand that is not given."""
    import tensorflow as tf

    make = _eager_constant if tf.executing_eagerly() else tf.constant
    return make(value, dtype)


@functools.lru_cache(maxsize=256)
def _eager_constant(value: Any, dtype: str) -> Any:
    import tensorflow as tf

    return tf.constant(value, dtype)


def _register_gradients(library: Any) -> None:
    """Registers the gradients of `Hw3tfAttention` and `Hw3tfAttentionGrad`."""
    from hw3tf.ops.fronts.second_order import second_order

    @_register_once("Hw3tfAttention")
    def _attention_gradient(
        op: Any, grad_output: Any, _grad_statistics: Any, grad_logsumexp: Any
    ) -> list[Any]:
        # The statistics are there for this gradient; hw3tf.ops never returns them.
        output, statistics, _ = op.outputs
        grads = library.hw3tf_attention_grad(
            *op.inputs,
            output,
            statistics,
            grad_output,
            grad_logsumexp,
            **_attributes_of(op),
            number_bits=op.get_attr("number_bits"),
        )
        given = _given(op)
        named = zip(ATTENTION.with_gradient, grads, strict=True)
        grads = [grad if name in given else None for name, grad in named]
        return grads + [None] * (len(op.inputs) - len(grads))

    @_register_once("Hw3tfAttentionGrad")
    def _gradient_of_gradient(op: Any, *upstream: Any) -> list[Any]:
        given = _given(op)
        inputs = [given[name] for name in ATTENTION.with_gradient if name in given]
        *grads, of_output, of_logsumexp = second_order(
            inputs, _options_of(op), op.inputs[-2:], upstream[: len(inputs)]
        )
        # Output and statistics count as functions of query, key, value and bias.
        grads += [None] * (len(op.inputs) - len(grads) - 2)
        return [*grads, of_output, of_logsumexp]


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


def _given(op: Any) -> dict[str, Any]:
    """The operands of an op by their names. An empty tensor of rank 1 stands for an
    optional one that is not given."""
    return {
        operand.name: x
        for operand, x in zip(ATTENTION.operands, op.inputs, strict=False)
        if not operand.optional or (x.shape.rank and tuple(x.shape) != (0,))
    }


def _attributes_of(op: Any) -> dict[str, Any]:
    """The attributes of attention that an op and its gradient share."""
    return {
        x["name"]: op.get_attr(x["name"])
        for x in ATTENTION_GRAD.attributes
        if x["carrier"] == "attribute"
    }


def _options_of(op: Any) -> AttentionOptions:
    """The options of an op, from its inputs and attributes."""
    from hw3tf.ops.fronts.second_order import REMEDY

    bits, attributes = op.get_attr("number_bits"), _attributes_of(op)
    if not bits or attributes["window_before"] != attributes["window_after"]:
        raise NotImplementedError(
            "the derivative of a gradient of hw3tf's fused attention was asked for, in "
            "a call that was saved by hw3tf 0.1 or not made by hw3tf.ops: it has a "
            "first derivative only. " + REMEDY
        )
    # A graph that was saved before there was a number has the default of it.
    attributes |= {name: _DEFAULTS[name] for name in NUMBERS}
    attributes |= dict(zip(NUMBERS, map(double_of, bits), strict=False))
    given = _given(op)
    seed = op.inputs[len(ATTENTION.operands)] if attributes["dropout_rate"] else None
    return AttentionOptions.of_attributes(
        attributes,
        dropout_seed=seed,
        **{name: given[name] for name in TENSORS if name in given},
    )
