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
from hw3tf.ops.fronts.second_order import (
    attention_in_keras,
    rnn_in_keras,
    with_gradients,
)
from hw3tf.ops.fronts.xla_module import (
    Array,
    Size,
    arrays_of,
    broadcast_size,
    header_of,
    run_custom_call,
)
from hw3tf.ops.operations import (
    ATTENTION,
    ATTENTION_GRAD,
    INTEGER_RNN,
    RNN,
    RNN_GRAD,
    Operation,
)
from hw3tf.ops.recurrence.options import RecurrenceOptions
from hw3tf.ops.rnn.kept import kept_words
from hw3tf.ops.rnn.options import RnnOptions
from hw3tf.ops.tapes import may_need_gradient

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
        output, statistics, logsumexp = run_custom_call(
            ATTENTION.target, header, arguments, results
        )
        return (output, logsumexp), [output, statistics]

    def backward(inside: Sequence[Any], results: Sequence[Any]) -> Any:
        arguments = [seed, *inside, *masks, *results]
        arrays = arrays_of(arguments)
        grads = [Array(x.sizes, x.dtype) for x in arrays[1 : 1 + len(inside)]]
        header = _attention_header(ATTENTION_GRAD, options, names, arrays)
        return run_custom_call(ATTENTION_GRAD.target, header, arguments, grads)

    function = attention_in_keras(options)
    return with_gradients(forward, backward, function, inputs, "attention")


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
    attributes = options.attributes | {
        "finite_logsumexp": FINITE_LOGSUMEXP,
        "skip_grad_bias": False,
    }
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


def rnn(
    cell: str, tensors: Mapping[str, Any], options: RnnOptions
) -> tuple[Any, Any, Any]:
    """Outputs, the last `h`, and the last `c` or None."""
    operation, of_gradient = RNN[cell], RNN_GRAD[cell]
    operands = [x for x in operation.operands if x.name in tensors]
    given = {
        x.name: tf.ensure_shape(tensors[x.name], [None] * len(x.axes)) for x in operands
    }
    names = list(given)
    inputs = [x for name, x in given.items() if name in operation.with_gradient]
    constants = {name: given[name] for name in names[len(inputs) :]}
    of_results = ["grad_" + name for name in operation.results if name != "kept"]
    attributes = {**options.attributes(cell), "skip_grad_inputs": False}
    dtype = inputs[0].dtype.name
    types = {"T": dtype}

    def call(arguments: Sequence[Any], keep: bool) -> list[Any]:
        arrays = dict(zip(names, arrays_of(arguments), strict=True))
        batch, timesteps, _ = arrays["inputs"].sizes
        units = arrays["recurrent_kernel"].sizes[0]
        kept = kept_words(cell, dtype, units, options) if keep else 0
        results = [
            Array((batch, timesteps if options.return_sequences else 1, units), dtype),
            *[Array((batch, units), dtype)] * (len(of_results) - 1),
            Array((batch, timesteps, kept), "int64"),
        ]
        header = header_of(operation, types, {**attributes, "keep": keep}, arrays)
        return run_custom_call(operation.target, header, list(arguments), results)

    keep = may_need_gradient(inputs)

    def forward(*inside: Any) -> Any:
        *results, kept = call([*inside, *constants.values()], keep)
        return tuple(results), [results[0], kept]

    def backward(inside: Sequence[Any], others: Sequence[Any]) -> Any:
        arguments = [*inside, *constants.values()]
        outputs, kept, *upstream = others
        if not keep:  # no tape was there when the graph was made
            kept = call(arguments, True)[-1]
        arguments += [outputs, kept, *upstream]
        arrays = arrays_of(arguments)
        grads = [Array(x.sizes, x.dtype) for x in arrays[: len(inside)]]
        every = [*names, "outputs", "kept", *of_results]
        named = dict(zip(every, arrays, strict=True))
        header = header_of(of_gradient, types, attributes, named)
        return run_custom_call(of_gradient.target, header, arguments, grads)

    function = rnn_in_keras(cell, names[: len(inputs)], constants, options)
    outputs, last_h, *last_c = with_gradients(
        forward, backward, function, inputs, "a recurrent layer"
    )
    return outputs, last_h, last_c[0] if last_c else None
