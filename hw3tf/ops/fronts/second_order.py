"""Derivatives of the kernel and of its gradient: second order and forward mode.

The kernel has a first derivative only. Beyond it, attention is computed once more in
pure Keras, which TensorFlow differentiates as often as it is asked to. What that takes
is the memory of the scores.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf

from hw3tf.ops.attention.options import AttentionOptions, real_dtype
from hw3tf.ops.fronts import reference

REMEDY = (
    "`hw3tf.restore(model)`, or HW3TF_PATH=reference in the environment, computes "
    "attention in pure Keras, which has all derivatives; `tf.stop_gradient` around a "
    "gradient that is used as a number says that no derivative of it is wanted."
)


def with_gradients(
    forward: Callable[..., Any],
    backward: Callable[[Sequence[Any], Sequence[Any]], Any],
    inputs: Sequence[Any],
    options: AttentionOptions,
) -> Any:
    """Output and logsumexp of a kernel that TensorFlow knows no gradient of.

    Args:
        forward: Function of `inputs`: output, statistics and logsumexp.
        backward: Function of `inputs` and of these results: output, statistics, and
            the gradients of output and logsumexp. Returns the gradients of `inputs`.
        inputs: Query, key, value and, if `options` has one, the bias.
        options: As the kernels take them.
    """

    @tf.custom_gradient
    def first_order(*arguments: Any) -> Any:
        inside, results = arguments[: len(inputs)], arguments[len(inputs) :]

        def gradient_of_gradient(*upstream: Any) -> Any:
            more = second_order(inside, options, results[2:], upstream)
            return *more[:-2], None, None, *more[-2:]

        return backward(inside, results), gradient_of_gradient

    @tf.custom_gradient
    def run(*inside: Any) -> Any:
        output, statistics, logsumexp = forward(*inside)

        def gradient(grad_output: Any, grad_logsumexp: Any) -> Any:
            return first_order(*inside, output, statistics, grad_output, grad_logsumexp)

        return (output, logsumexp), gradient

    return run(*inputs)


def second_order(
    inputs: Sequence[Any],
    options: AttentionOptions,
    grad_results: Sequence[Any],
    upstream: Sequence[Any],
) -> list[Any]:
    """The gradients of the gradient of attention.

    Args:
        inputs: Query, key, value and, if `options` has one, the bias.
        options: As the kernel took them.
        grad_results: The gradients of output and logsumexp that the first derivative
            was computed from.
        upstream: The gradients of the gradients of `inputs`.

    Returns:
        A list of the gradients of `inputs`, then of `grad_results`.
    """
    _say_once()
    # Tensors of their own: query, key and value may be one.
    inputs, grad_results = (
        [tf.identity(x) for x in tensors] for tensors in (inputs, grad_results)
    )
    with tf.GradientTape() as outer:
        outer.watch([*inputs, *grad_results])
        with tf.GradientTape() as inner:
            inner.watch(inputs)
            results = _results(inputs, options)
        first = inner.gradient(results, inputs, output_gradients=grad_results)
        # Rows of a ragged tensor are gathered: their gradient is IndexedSlices.
        first = [None if x is None else tf.convert_to_tensor(x) for x in first]
    pairs = [(x, g) for x, g in zip(first, upstream, strict=True) if x is not None]
    if not pairs:  # forward mode through tf.custom_gradient records nothing here
        raise NotImplementedError(
            "this derivative of attention cannot be computed on the path 'pybind'. "
            + REMEDY
        )
    wanted, given = (list(part) for part in zip(*pairs, strict=True))
    return outer.gradient(wanted, [*inputs, *grad_results], output_gradients=given)


def _results(inputs: Sequence[Any], options: AttentionOptions) -> tuple[Any, Any]:
    """Output and logsumexp, summed in float32 or wider as in the kernel."""
    ops = keras.ops
    dtype = inputs[0].dtype
    query, key, value = (ops.cast(x, real_dtype(dtype)) for x in inputs[:3])
    options = replace(options, bias=inputs[3] if len(inputs) > 3 else None)
    if options.query_splits is None:
        output, logsumexp = reference.attention(
            query, key, value, options, return_logsumexp=True, finite_logsumexp=True
        )
        return ops.cast(output, dtype), logsumexp
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
    return ops.cast(output, dtype), tf.zeros(
        (lengths[1], lengths[0]), real_dtype(dtype)
    )


@functools.cache
def _say_once() -> None:
    warnings.warn(
        "hw3tf: a second derivative of attention, or forward mode, is computed in pure "
        "Keras, which keeps matrices of query length x key length. " + REMEDY,
        RuntimeWarning,
        stacklevel=2,
    )
