"""The kernels through pybind11: for where the op library cannot be loaded.

`tf.numpy_function` holds no state, so eager and graph are alike.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from hw3tf import _core
from hw3tf.ops.attention.options import AttentionOptions, real_dtype
from hw3tf.ops.fronts.second_order import (
    attention_in_keras,
    rnn_in_keras,
    with_gradients,
)
from hw3tf.ops.operations import RNN
from hw3tf.ops.recurrence.options import RecurrenceOptions
from hw3tf.ops.rnn.options import RnnOptions
from hw3tf.ops.shapes import batch_of
from hw3tf.ops.tapes import may_need_gradient


def attention(query: Any, key: Any, value: Any, options: AttentionOptions) -> Any:
    """Output and logsumexp."""
    given = options.tensors
    if options.dropout_seed is not None:
        given["dropout_seed"] = options.dropout_seed
    inputs = [query, key, value]
    if "bias" in given:
        inputs.append(given["bias"])
    constants = [x for name, x in given.items() if name != "bias"]
    attributes = options.attributes

    def keywords(arrays: Sequence[Any]) -> dict[str, Any]:
        named = dict(zip(given, arrays, strict=True))
        if "dropout_seed" in named:
            named["dropout_seed"] = int(named["dropout_seed"])
        return attributes | named

    def run_forward(q: Any, k: Any, v: Any, *arrays: Any) -> Any:
        return _core.attention_forward(
            q, k, v, finite_logsumexp=True, **keywords(arrays)
        )

    def run_backward(q: Any, k: Any, v: Any, *arrays: Any) -> list[Any]:
        arrays, results = arrays[: len(given)], arrays[len(given) :]
        grads = _core.attention_backward(q, k, v, *results, **keywords(arrays))
        return [g for g in grads if g is not None]

    def forward(*inside: Any) -> Any:
        real = real_dtype(query.dtype)
        output, statistics, logsumexp = tf.numpy_function(
            run_forward,
            [*inside, *constants],
            [query.dtype, real, real],
            stateful=False,
        )
        rows, heads = list(query.shape[:-2]), query.shape[-2]
        if len(rows) == 2:
            rows[0] = batch_of(query, key, value)
        output.set_shape([*rows, heads, value.shape[-1]])
        logsumexp.set_shape([*rows[:-1], heads, rows[-1]])
        statistics.set_shape([*logsumexp.shape, 2])
        return (output, logsumexp), [output, statistics]

    def backward(inside: Sequence[Any], results: Sequence[Any]) -> Any:
        grads = tf.numpy_function(
            run_backward,
            [*inside, *constants, *results],
            [x.dtype for x in inside],
            stateful=False,
        )
        for grad, x in zip(grads, inside, strict=True):
            grad.set_shape(x.shape)
        return grads

    function = attention_in_keras(options)
    return with_gradients(forward, backward, function, inputs, "attention")


def integer_rnn(
    tensors: Mapping[str, Any], options: RecurrenceOptions, state_dtype: str
) -> Any:
    """The states. Eagerly a plain call, in a graph a `tf.numpy_function`."""
    names = list(tensors)
    keywords = options.kernel_attributes

    def run(*arrays: Any) -> Any:
        given: dict[str, Any] = dict(
            zip(names, map(np.ascontiguousarray, arrays), strict=True)
        )
        return _core.integer_rnn(
            **given, **keywords, return_sequences=options.return_sequences
        )

    if tf.executing_eagerly():
        return tf.convert_to_tensor(run(*map(np.asarray, tensors.values())))

    def run_in_graph(*arrays: Any) -> Any:
        try:
            return run(*arrays)
        except OverflowError as error:
            # What TensorFlow turns into InvalidArgumentError.
            raise ValueError(str(error)) from None

    inside = list(tensors.values())
    states = tf.numpy_function(run_in_graph, inside, state_dtype, stateful=False)
    shape = tf.TensorShape(tensors["inputs"].shape).with_rank(3)
    units = tf.TensorShape(tensors["recurrent_kernel"].shape).with_rank(2)[1:]
    states.set_shape(shape[: 2 if options.return_sequences else 1] + units)
    return states


def rnn(
    cell: str, tensors: Mapping[str, Any], options: RnnOptions
) -> tuple[Any, Any, Any]:
    """Outputs, the last `h`, and the last `c` or None."""
    operation, attributes = RNN[cell], options.attributes(cell)
    run = getattr(_core, f"{cell}_forward")
    run_gradient = getattr(_core, f"{cell}_backward")
    names = [x.name for x in operation.operands if x.name in tensors]
    inside_names = [name for name in names if name in operation.with_gradient]
    inputs = [tensors[name] for name in inside_names]
    constants = [tensors[name] for name in names[len(inputs) :]]
    dtype = inputs[0].dtype
    keep = may_need_gradient(inputs)
    of_results = ["grad_" + name for name in operation.results if name != "kept"]

    def run_forward(*arrays: Any) -> Any:
        return run(**_named(names, arrays), **attributes, keep=keep)

    def run_backward(*arrays: Any) -> Any:
        if not keep:  # no tape was there
            given = _named(names, arrays[: len(names)])
            *_, kept = run(**given, **attributes, keep=True)
            arrays = (*arrays[: len(names) + 1], kept, *arrays[len(names) + 2 :])
        every = [*names, "outputs", "kept", *of_results]
        grads = run_gradient(**_named(every, arrays), **attributes)
        return [g for g in grads if g is not None]

    def forward(*inside: Any) -> Any:
        types = [dtype] * len(of_results) + [tf.int64]
        *results, kept = tf.numpy_function(
            run_forward, [*inside, *constants], types, stateful=False
        )
        batch, timesteps, _ = inside[0].shape
        units = inside[2].shape[0]
        for state in results[1:]:
            state.set_shape([batch, units])
        results[0].set_shape(
            [batch, timesteps if options.return_sequences else 1, units]
        )
        kept.set_shape([batch, timesteps, None])
        return tuple(results), [results[0], kept]

    def backward(inside: Sequence[Any], others: Sequence[Any]) -> Any:
        grads = tf.numpy_function(
            run_backward,
            [*inside, *constants, *others],
            [dtype] * len(inside),
            stateful=False,
        )
        for grad, x in zip(grads, inside, strict=True):
            grad.set_shape(x.shape)
        return grads

    function = rnn_in_keras(
        cell,
        inside_names,
        dict(zip(names[len(inputs) :], constants, strict=True)),
        options,
    )
    outputs, last_h, *last_c = with_gradients(
        forward, backward, function, inputs, "a recurrent layer"
    )
    return outputs, last_h, last_c[0] if last_c else None


def _named(names: Sequence[str], arrays: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(names, arrays, strict=True))
