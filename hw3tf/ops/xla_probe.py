"""Whether the kernel can be called from XLA here, found out by calling it.

The way into XLA is private to TensorFlow (csrc/tensorflow/xla_registry.h), so
nothing is taken for granted: the symbols, how an error is told, the numbers of a small
call and of its gradient, and that a call which fails raises.
"""

import ctypes
import functools
import warnings

import numpy as np
import tensorflow as tf


@functools.cache
def register_targets(library_path):
    """Makes the kernel's custom calls known to XLA, once.

    Args:
        library_path: That of the op library, which is loaded.

    Returns:
        Empty, or why it cannot be done.
    """
    return ask(library_path, "Hw3tfRegisterXlaTargets")


def ask(library_path: str, function: str) -> str:
    """What a function of the op library without arguments says."""
    ask = getattr(ctypes.CDLL(library_path), function)
    ask.restype = ctypes.c_char_p
    return str(ask().decode())


@functools.cache
def call_error(library_path):
    """Empty if calls of the kernel from XLA work, otherwise why they do not.

    Compiles two small functions: 0.2 s, once per process, at the first call of ours
    under XLA. Where it fails, a warning says what that costs.

    Args:
        library_path: That of the op library, which is loaded.
    """
    error = register_targets(library_path)
    error = error or ask(library_path, "Hw3tfXlaStatusError")
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


def _try_attention():
    from hw3tf.ops.attention_paths import attention_op
    from hw3tf.ops.attention_xla import attention_xla

    x = np.sin(np.arange(2 * 3 * 2 * 4, dtype="float32")).reshape(2, 3, 2, 4)
    lengths, too_long = tf.constant([3, 1]), tf.constant([3, 4])
    sizes_unknown = [tf.TensorSpec([None, None, 2, 4]), tf.TensorSpec([None], tf.int32)]
    compiled = tf.function(
        functools.partial(_output_and_gradient, attention_xla),
        input_signature=sizes_unknown,
        jit_compile=True,
        autograph=False,
    )
    wanted = _output_and_gradient(attention_op, tf.constant(x), lengths)
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
    from hw3tf.ops import integer_rnn_paths as paths

    options = dict(
        activation="relu",
        clip=None,
        reverse=True,
        return_sequences=True,
        overflow="raise",
        fractional_bits=1,
    )
    w, u = tf.constant([[2**24, -1], [0, 2]]), tf.constant([[1, 2], [-3, 1]])
    tensors = {"kernel": w, "recurrent_kernel": u}

    @tf.function(
        input_signature=[tf.TensorSpec([None, None, 2], tf.int16)],
        jit_compile=True,
        autograph=False,
    )
    def compiled(x):
        return paths.integer_rnn_xla(tensors | {"inputs": x}, options, "int32")

    x = tf.constant([[[3, 1], [4, 1], [5, 9]]], tf.int16)
    want = paths.integer_rnn_op(tensors | {"inputs": x}, options, "int32")
    if not np.array_equal(compiled(x), want):
        return "a small recurrence gives other numbers than the op"
    try:
        compiled(tf.fill([2, 3, 2], tf.constant(999, tf.int16)))
    except tf.errors.OpError as error:
        if paths.OVERFLOW in error.message:
            return ""
    return "an overflow raises no error of ours"


def options_of(lengths):
    from hw3tf.ops.attention_options import AttentionOptions

    return AttentionOptions(scale=0.5, is_causal=True, key_lengths=lengths)


def _output_and_gradient(attention, x, lengths):
    with tf.GradientTape() as tape:
        tape.watch(x)
        output, logsumexp = attention(x, x, x, options_of(lengths))
        loss = tf.reduce_sum(output * x) + tf.reduce_sum(logsumexp)
    return output, logsumexp, tape.gradient(loss, x)
