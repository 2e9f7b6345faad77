"""A probe of the kernels under XLA: they are called and looked at.

The way into XLA is private to TensorFlow (csrc/tensorflow/xla_registry.h), so
nothing is taken for granted: the symbols, how an error is told, the numbers of a small
call and of its gradient, and that a call which fails raises.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from hw3tf.ops import library
from hw3tf.ops.attention.options import AttentionOptions
from hw3tf.ops.fronts import tensorflow_op, xla
from hw3tf.ops.recurrence.options import RecurrenceOptions


@functools.cache
def call_error(library_path: str) -> str:
    """Empty if calls of the kernel from XLA work, otherwise why they do not.

    Compiles two small functions: 0.2 s, once per process, at the first call of ours
    under XLA. Where it fails, a warning says what that costs.

    Args:
        library_path: That of the op library, which is loaded.
    """
    error = library.register_targets(library_path)
    error = error or library.ask(library_path, "Hw3tfXlaStatusError")
    if not error:
        try:
            with tf.init_scope(), tf.device("CPU"):
                error = _try_attention() or _try_recurrence()
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
    if error:
        warnings.warn(
            f"XLA in TensorFlow {tf.__version__} cannot call hw3tf's kernel ({error}). "
            "Under jit_compile=True, attention and the integer recurrence run in pure "
            "Keras: the same results, more slowly, attention in memory for all scores; "
            "overflow='raise' is refused. With jit_compile=False the kernel serves.",
            RuntimeWarning,
            stacklevel=2,
        )
    return error


def _try_attention() -> str:
    x = np.sin(np.arange(2 * 3 * 2 * 4, dtype="float32")).reshape(2, 3, 2, 4)
    lengths, too_long = tf.constant([3, 1]), tf.constant([3, 4])
    sizes_unknown = [tf.TensorSpec([None, None, 2, 4]), tf.TensorSpec([None], tf.int32)]
    compiled = tf.function(
        functools.partial(_output_and_gradient, xla.attention),
        input_signature=sizes_unknown,
        jit_compile=True,
        autograph=False,
    )
    wanted = _output_and_gradient(tensorflow_op.attention, tf.constant(x), lengths)
    for got, want in zip(compiled(x, lengths), wanted, strict=True):
        if not np.array_equal(got, want):
            return "a small call gives other numbers than the op"
    try:
        compiled(x, too_long)
    except tf.errors.OpError as error:
        if "`key_lengths` must be" in error.message:
            return ""
    return "a call with wrong lengths raises no error of ours"


def _try_recurrence() -> str:
    options = RecurrenceOptions(
        activation="relu", reverse=True, return_sequences=True, fractional_bits=1
    )
    w, u = tf.constant([[2**24, -1], [0, 2]]), tf.constant([[1, 2], [-3, 1]])
    tensors = {"kernel": w, "recurrent_kernel": u}

    @tf.function(
        input_signature=[tf.TensorSpec([None, None, 2], tf.int16)],
        jit_compile=True,
        autograph=False,
    )
    def compiled(x: Any) -> Any:
        return xla.integer_rnn(tensors | {"inputs": x}, options, "int32")

    x = tf.constant([[[3, 1], [4, 1], [5, 9]]], tf.int16)
    want = tensorflow_op.integer_rnn(tensors | {"inputs": x}, options, "int32")
    if not np.array_equal(compiled(x), want):
        return "a small recurrence gives other numbers than the op"
    try:
        compiled(tf.fill([2, 3, 2], tf.constant(999, tf.int16)))
    except tf.errors.OpError as error:
        if tensorflow_op.OVERFLOW in error.message:
            return ""
    return "an overflow raises no error of ours"


def options_of(lengths: Any) -> AttentionOptions:
    """The options of the small call of attention."""
    return AttentionOptions(scale=0.5, is_causal=True, key_lengths=lengths)


def _output_and_gradient(attention: Callable[..., Any], x: Any, lengths: Any) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(x)
        output, logsumexp = attention(x, x, x, options_of(lengths))
        loss = tf.reduce_sum(output * x) + tf.reduce_sum(logsumexp)
    return output, logsumexp, tape.gradient(loss, x)
