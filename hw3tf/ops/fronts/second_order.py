"""Derivatives of a kernel and of its gradient: second order and forward mode.

The kernels have a first derivative only. Beyond it, a call is computed once more in
pure Keras, which TensorFlow differentiates as often as it is asked to. Attention takes
the memory of the scores for that, a recurrent layer that of all its steps.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf

from hw3tf.ops.attention.options import AttentionOptions, real_dtype
from hw3tf.ops.fronts import reference
from hw3tf.ops.fronts.derivatives import remedy, say_once
from hw3tf.ops.rnn.options import RnnOptions

# Of the tensors that have gradients: the results in pure Keras.
Function = Callable[[Sequence[Any]], Sequence[Any]]


def with_gradients(
    forward: Callable[..., Any],
    backward: Callable[[Sequence[Any], Sequence[Any]], Any],
    function: Function,
    inputs: Sequence[Any],
    what: str,
) -> Any:
    """The results of a kernel that TensorFlow knows no gradient of.

    Args:
        forward: Function of `inputs`: the results, and a list of the tensors that
            `backward` reads of it.
        backward: Function of `inputs` and of these tensors, followed by the gradients
            of the results. Returns the gradients of `inputs`.
        function: The results in pure Keras.
        inputs: The tensors that have a gradient.
        what: A key of `KEEPS`.
    """

    @tf.custom_gradient
    def run(*inside: Any) -> Any:
        results, read = forward(*inside)

        @tf.custom_gradient
        def first_order(*arguments: Any) -> Any:
            inside, others = arguments[: len(inputs)], arguments[len(inputs) :]
            upstream = others[len(read) :]

            def gradient_of_gradient(*of_gradients: Any) -> Any:
                more = second_order(function, inside, upstream, of_gradients, what)
                split = len(inside)
                return *more[:split], *[None] * len(read), *more[split:]

            return backward(inside, others), gradient_of_gradient

        def gradient(*upstream: Any) -> Any:
            return first_order(*inside, *read, *upstream)

        return results, gradient

    return run(*inputs)


def second_order(
    function: Function,
    inputs: Sequence[Any],
    grad_results: Sequence[Any],
    upstream: Sequence[Any],
    what: str,
) -> list[Any]:
    """The gradients of a gradient.

    Args:
        function: The results in pure Keras.
        inputs: The tensors that have a gradient.
        grad_results: The gradients of the results that the first derivative was
            computed from.
        upstream: The gradients of the gradients of `inputs`; None = zero.
        what: A key of `KEEPS`.

    Returns:
        A list of the gradients of `inputs`, then of `grad_results`.
    """
    say_once(what)
    # Tensors of their own: query, key and value may be one.
    inputs, grad_results = (
        [tf.identity(x) for x in tensors] for tensors in (inputs, grad_results)
    )
    with tf.GradientTape() as outer:
        outer.watch([*inputs, *grad_results])
        with tf.GradientTape() as inner:
            inner.watch(inputs)
            results = function(inputs)
        first = inner.gradient(results, inputs, output_gradients=grad_results)
        # Rows of a ragged tensor are gathered: their gradient is IndexedSlices.
        first = [None if x is None else tf.convert_to_tensor(x) for x in first]
    pairs = [
        (x, g)
        for x, g in zip(first, upstream, strict=True)
        if x is not None and g is not None
    ]
    if not pairs:  # forward mode through tf.custom_gradient records nothing here
        raise NotImplementedError(
            f"this derivative of {what} cannot be computed on the path 'pybind'. "
            + remedy(what)
        )
    wanted, given = (list(part) for part in zip(*pairs, strict=True))
    return outer.gradient(wanted, [*inputs, *grad_results], output_gradients=given)


def attention_in_keras(options: AttentionOptions) -> Function:
    """Output and logsumexp of attention, as a function of query, key, value and, if
    `options` has one, the bias."""
    return functools.partial(_attention, options)


def rnn_in_keras(
    cell: str,
    names: Sequence[str],
    constants: Mapping[str, Any],
    options: RnnOptions,
    places: Sequence[int] = (0, 1, 2),
) -> Function:
    """Results of a recurrent layer, as a function of the operands `names`.

    Args:
        cell: `"lstm"`, `"gru"` or `"simple_rnn"`.
        names: The operands that are given and have a gradient.
        constants: The others that are given.
        options: As the kernel took them.
        places: Which of the outputs, the last `h` and the last `c` are wanted.
    """

    def function(inputs: Sequence[Any]) -> Sequence[Any]:
        tensors = dict(zip(names, inputs, strict=True)) | dict(constants)
        results = reference.rnn(cell, tensors, options)
        return [results[i] for i in places if results[i] is not None]

    return function


def _attention(options: AttentionOptions, inputs: Sequence[Any]) -> tuple[Any, Any]:
    """Output and logsumexp, summed in float32 or wider as in the kernel."""
    query, key, value, *bias = inputs
    options = replace(options, bias=bias[0] if bias else None)
    if options.query_splits is None:
        return reference.attention_in_real(query, key, value, options)
    real = real_dtype(query.dtype)
    query, key, value = (tf.cast(x, real) for x in inputs[:3])
    ragged = tf.RaggedTensor.from_row_splits
    keys = ragged(key, options.key_splits, validate=False)
    output = reference.ragged_attention(
        ragged(query, options.query_splits, validate=False),
        keys,
        keys.with_values(value),
        options,
    ).values
    # Packed calls return no logsumexp: its gradient is 0.
    lengths = tf.shape(query)
    return tf.cast(output, inputs[0].dtype), tf.zeros((lengths[1], lengths[0]), real)
