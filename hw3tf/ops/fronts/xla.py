"""The kernels under XLA: custom calls in place of the ops.

The C++ side, csrc/tensorflow/attention_xla.cc and recurrence_xla.cc, reads what is put
together here.

A call of attention costs what the op does: for (2, 512, 512, 12, 12, 64) the median
ratio of 150 interleaved calls, compiled by XLA / not, was 0.94 forward and 1.01 with
gradients (processor time: 1.00, 1.01). The reference under XLA took 3 to 4 times as
long.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from hw3tf.ops.attention.options import AttentionOptions, bits_of, real_dtype
from hw3tf.ops.fronts.second_order import with_gradients
from hw3tf.ops.fronts.xla_module import (
    Array,
    arrays_of,
    broadcast_size,
    run_custom_call,
)
from hw3tf.ops.operations import ATTENTION, INTEGER_RNN
from hw3tf.ops.recurrence.options import RecurrenceOptions
from hw3tf.reference.integer_rnn_arguments import ACTIVATIONS, INPUT_DTYPES, OVERFLOWS

DTYPES = (
    "float32",
    "bfloat16",
    "float16",
    "float64",
)  # as in kernels/attention/attention.h
FORWARD, BACKWARD = "hw3tf_attention_1", "hw3tf_attention_grad_1"
RECURRENCE = "hw3tf_integer_rnn_1"
FINITE_LOGSUMEXP = True  # as the op is called


def attention(query: Any, key: Any, value: Any, options: AttentionOptions) -> Any:
    """Output and logsumexp."""
    given = {"query": query, "key": key, "value": value, **options.tensors}
    names = tuple(given)
    inputs = [x for name, x in given.items() if name in ATTENTION.with_gradient]
    masks = [x for name, x in given.items() if name not in ATTENTION.with_gradient]
    seed = options.dropout_seed
    seed = tf.constant(0, tf.int64) if seed is None else seed
    real = real_dtype(query.dtype.name)

    def forward(*inside: Any) -> Any:
        arguments = [seed, *inside, *masks]
        arrays = arrays_of(arguments)
        rows, value_dim = arrays[1].sizes, arrays[3].sizes[-1]
        if len(rows) == 4:
            batch = broadcast_size([x.sizes[0] for x in arrays[1:4]])
            rows = (batch, *rows[1:])
        lengths = (*rows[:-3], rows[-2], rows[-3])
        results = [
            Array((*rows[:-1], value_dim), arrays[1].dtype),
            Array((*lengths, 2), real),
            Array(lengths, real),
        ]
        header = _attention_header(options, names, arrays)
        return run_custom_call(FORWARD, header, arguments, results)

    def backward(inside: Sequence[Any], results: Sequence[Any]) -> Any:
        arguments = [seed, *inside, *masks, *results]
        arrays = arrays_of(arguments)
        grads = [Array(x.sizes, x.dtype) for x in arrays[1 : 1 + len(inside)]]
        header = _attention_header(options, names, arrays, len(results))
        return run_custom_call(BACKWARD, header, arguments, grads)

    return with_gradients(forward, backward, inputs, options)


def _attention_header(
    options: AttentionOptions, names: Sequence[str], arrays: list[Array], more: int = 0
) -> list[Any]:
    """What the call must know beside its arrays: numbers, ranks, sizes.

    Args:
        options: As the kernels take them.
        names: The operands that are given.
        arrays: `Array`s of the arguments: the seed, what is given, the rest.
        more: How many arrays, always given, follow the operands.
    """
    before, after = options.window
    given = iter(arrays[1:])
    slots = [next(given) if x.name in names else None for x in ATTENTION.operands]
    slots += [next(given) for _ in range(more)]
    return [
        DTYPES.index(arrays[1].dtype),
        int(options.is_causal) + 2 * FINITE_LOGSUMEXP,
        before,
        after,
        tf.config.threading.get_intra_op_parallelism_threads(),
        *map(bits_of, options.numbers),
        *(-1 if x is None else len(x.sizes) for x in slots),
        *(size for x in slots if x is not None for size in x.sizes),
    ]


def integer_rnn(
    tensors: Mapping[str, Any], options: RecurrenceOptions, state_dtype: str
) -> Any:
    """The states. An overflow ends the call with an error of XLA's, which has the
    message of the kernel."""
    operands = INTEGER_RNN.operands
    given = {
        x.name: tf.ensure_shape(tensors[x.name], [None] * len(x.axes))
        for x in operands
        if x.name in tensors
    }
    arrays = dict(zip(given, arrays_of(list(given.values())), strict=True))
    low, high = options.clip or (0, 0)
    header = [
        INPUT_DTYPES.index(arrays["inputs"].dtype),
        INPUT_DTYPES.index(arrays["recurrent_kernel"].dtype),
        INPUT_DTYPES.index(state_dtype),
        ACTIVATIONS.index(options.activation),
        int(low),
        int(high),
        OVERFLOWS.index(options.overflow),
        options.fractional_bits,
        int(options.reverse),
        int(options.return_sequences),
        tf.config.threading.get_intra_op_parallelism_threads(),
        *(len(x.axes) if x.name in given else -1 for x in operands),
        *(size for x in arrays.values() for size in x.sizes),
    ]
    rows = arrays["inputs"].sizes[: 2 if options.return_sequences else 1]
    units = arrays["recurrent_kernel"].sizes[1]
    result = Array((*rows, units), state_dtype)
    return run_custom_call(RECURRENCE, header, list(given.values()), [result])[0]
