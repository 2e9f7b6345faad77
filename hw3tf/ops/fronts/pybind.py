"""The kernels through pybind11: for where the op library cannot be loaded.

`tf.numpy_function` holds no state, so eager and graph are alike.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from hw3tf import _core
from hw3tf.ops.attention.options import AttentionOptions, real_dtype
from hw3tf.ops.fronts.second_order import with_gradients
from hw3tf.ops.recurrence.options import RecurrenceOptions
from hw3tf.ops.shapes import batch_of


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
        return output, statistics, logsumexp

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

    return with_gradients(forward, backward, inputs, options)


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
