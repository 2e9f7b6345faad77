"""The TensorFlow ops: loading and calling them. Their gradients are in
`tensorflow_gradients`.

TensorFlow is imported when it is needed, for the other backends of Keras.
"""

import functools
from collections.abc import Mapping
from typing import Any

from hw3tf.ops.attention.options import (
    NUMBERS,
    AttentionOptions,
    bits_of,
    real_dtype,
)
from hw3tf.ops.library import ask, op_library_path, register_targets
from hw3tf.ops.operations import ATTENTION, INTEGER_RNN, RNN
from hw3tf.ops.recurrence.options import RecurrenceOptions
from hw3tf.ops.rnn.options import RnnOptions
from hw3tf.ops.tapes import may_need_gradient

OVERFLOW = "the recurrence overflows"  # as csrc/operations/integer_rnn.cc


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

    from hw3tf.ops.fronts.tensorflow_gradients import register_gradients

    library = tf.load_op_library(op_library_path())
    if error := ask(op_library_path(), "Hw3tfLoadError"):
        raise ImportError(error)
    register_gradients(library)
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


def rnn(
    cell: str, tensors: Mapping[str, Any], options: RnnOptions
) -> tuple[Any, Any, Any]:
    """Outputs, the last `h`, and the last `c` or None, by the op `Hw3tfLstm`,
    `Hw3tfGru` or `Hw3tfSimpleRnn`."""
    import tensorflow as tf

    operation, inputs = RNN[cell], tensors["inputs"]
    dtypes = {"T": inputs.dtype.name}
    given = []
    for operand in operation.operands:
        x = tensors.get(operand.name)
        dtype = dtypes.get(operand.type, operand.type)
        given.append(_constant((), dtype) if x is None else x)
    keep = may_need_gradient(given[: len(operation.with_gradient)])
    run = getattr(load_op_library(), f"hw3tf_{cell}")
    outputs, last_h, *last_c, _ = run(*given, **options.attributes(cell), keep=keep)
    if not tf.executing_eagerly():
        # The shape function of the op reads no attributes.
        timesteps = inputs.shape[1] if options.return_sequences else 1
        outputs.set_shape([None, timesteps, None])
    return outputs, last_h, last_c[0] if last_c else None


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
