"""The kernels under XLA: custom calls in place of the ops.

The C++ side, csrc/tensorflow/xla_target.cc, reads what is put together here.

A call of attention costs what the op does: for (2, 512, 512, 12, 12, 64) the median
ratio of 150 interleaved calls, compiled by XLA / not, was 0.94 forward and 1.01 with
gradients (processor time: 1.00, 1.01). The reference under XLA took 3 to 4 times as
long.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from hw3tf.ops.attention.options import AttentionOptions, real_dtype
from hw3tf.ops.fronts.second_order import with_gradients
from hw3tf.ops.fronts.xla_module import (
    Array,
    Size,
    arrays_of,
    broadcast_size,
    header_of,
    run_custom_call,
)
from hw3tf.ops.operations import ATTENTION, ATTENTION_GRAD, INTEGER_RNN, Operation
from hw3tf.ops.recurrence.options import RecurrenceOptions

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
        header = _attention_header(ATTENTION, options, names, arrays)
        return run_custom_call(ATTENTION.target, header, arguments, results)

    def backward(inside: Sequence[Any], results: Sequence[Any]) -> Any:
        arguments = [seed, *inside, *masks, *results]
        arrays = arrays_of(arguments)
        grads = [Array(x.sizes, x.dtype) for x in arrays[1 : 1 + len(inside)]]
        header = _attention_header(ATTENTION_GRAD, options, names, arrays)
        return run_custom_call(ATTENTION_GRAD.target, header, arguments, grads)

    return with_gradients(forward, backward, inputs, options)


def _attention_header(
    operation: Operation,
    options: AttentionOptions,
    names: Sequence[str],
    arrays: list[Array],
) -> list[Size]:
    """What the call must know beside its arrays.

    Args:
        operation: That of the call.
        options: As the kernels take them.
        names: The operands of attention that are given.
        arrays: `Array`s of the arguments: the seed, those of `names`, the other
            operands of `operation`, which are always given.
    """
    attributes = options.attributes | {"finite_logsumexp": FINITE_LOGSUMEXP}
    more = [x.name for x in operation.operands[len(ATTENTION.operands) :]]
    dtype = arrays[1].dtype
    return header_of(
        operation,
        {"T": dtype, "Real": real_dtype(dtype)},
        attributes,
        dict(zip([*names, *more], arrays[1:], strict=True)),
    )


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
    types = {
        "T": state_dtype,
        "Weight": arrays["recurrent_kernel"].dtype,
        "Input": arrays["inputs"].dtype,
    }
    attributes = {
        **options.kernel_attributes,
        "return_sequences": options.return_sequences,
    }
    header = header_of(INTEGER_RNN, types, attributes, arrays)
    rows = arrays["inputs"].sizes[: 2 if options.return_sequences else 1]
    units = arrays["recurrent_kernel"].sizes[1]
    result = Array((*rows, units), state_dtype)
    return run_custom_call(INTEGER_RNN.target, header, list(given.values()), [result])[
        0
    ]
