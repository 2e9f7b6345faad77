"""The three implementations of attention, behind one signature.

Each takes float tensors `query, key, value` of one dtype and `AttentionOptions`,
and returns the output and the logsumexp. The first two, the kernel, take what
`kernel_options` returns. Packed sequences have rank 3 there.
"""

import functools
from typing import Any

import keras

from hw3tf import _core, reference
from hw3tf.ops.attention_checks import batch_of
from hw3tf.ops.attention_options import TENSORS, bits_of, real_dtype
from hw3tf.ops.libraries import load_op_library
from hw3tf.reference.attention import lowest


def attention_op(query, key, value, options):
    """The TensorFlow op. An empty tensor of rank 1 stands for one not given."""
    real = real_dtype(query.dtype)
    dtypes = dict.fromkeys(("mask", "query_mask", "key_mask"), "bool")
    dtypes |= dict.fromkeys(("query_lengths", "key_lengths"), "int32")
    dtypes |= dict.fromkeys(("query_splits", "key_splits"), "int64") | {"bias": real}
    tensors = []
    for name in TENSORS[:-1]:
        tensor = getattr(options, name)
        tensors.append(_constant((), dtypes[name]) if tensor is None else tensor)
    seed = options.dropout_seed
    numbers = (
        float(options.scale),
        float(options.attn_logits_soft_cap or 0.0),
        float(options.dropout_rate),
    )
    before, after = options.window
    output, _, logsumexp = load_op_library().hw3tf_attention(
        query,
        key,
        value,
        *tensors,
        _constant(0, "int64") if seed is None else seed,
        _constant(numbers, "float64"),
        is_causal=options.is_causal,
        window_before=before,
        window_after=after,
        finite_logsumexp=True,
        number_bits=[bits_of(number) for number in numbers],
    )
    return output, logsumexp


def with_infinity(logsumexp: Any) -> Any:
    """The logsumexp with `-inf` for a query that sees no key. Until it is asked for,
    it is the lowest finite number: TensorFlow's `enable_check_numerics` would stop at
    every padded batch otherwise."""
    ops = keras.ops
    infinity = ops.cast(float("-inf"), logsumexp.dtype)
    return ops.where(sees_nothing(logsumexp), infinity, logsumexp)


def sees_nothing(logsumexp: Any) -> Any:
    """Which queries see no key, from a logsumexp with or without infinities."""
    return keras.ops.less_equal(logsumexp, lowest(logsumexp.dtype))


def _constant(value, dtype):
    """A constant, made only once where calls are eager: making one takes longer
    than a small call of the kernel."""
    import tensorflow as tf

    make = _eager_constant if tf.executing_eagerly() else tf.constant
    return make(value, dtype)


@functools.lru_cache(maxsize=256)
def _eager_constant(value, dtype):
    import tensorflow as tf

    return tf.constant(value, dtype)


def attention_pybind(query, key, value, options):
    """The same kernel through pybind11 and `tf.numpy_function`: for where the
    op library cannot be loaded. Holds no state, so eager and graph are alike."""
    import tensorflow as tf

    from hw3tf.ops.attention_second_order import second_order

    dtype, real = query.dtype, real_dtype(query.dtype)
    before, after = options.window
    numbers = {
        "scale": float(options.scale),
        "soft_cap": float(options.attn_logits_soft_cap or 0.0),
        "dropout_rate": float(options.dropout_rate),
        "is_causal": options.is_causal,
        "window_before": before,
        "window_after": after,
    }
    names = [name for name in TENSORS if getattr(options, name) is not None]
    inputs = [query, key, value]
    if options.bias is not None:
        inputs.append(options.bias)
    constants = [getattr(options, name) for name in names if name != "bias"]

    def keywords(arrays):
        given = dict(zip(names, arrays, strict=True))
        if "dropout_seed" in given:
            given["dropout_seed"] = int(given["dropout_seed"])
        return numbers | given

    def run_forward(q, k, v, *arrays):
        finite = {"finite_logsumexp": True}
        return _core.attention_forward(q, k, v, **finite, **keywords(arrays))

    def run_backward(q, k, v, *arrays):
        arrays, results = arrays[: len(names)], arrays[len(names) :]
        grads = _core.attention_backward(q, k, v, *results, **keywords(arrays))
        return [g for g in grads if g is not None]

    @tf.custom_gradient
    def backward(*tensors):
        inside, results = tensors[: len(inputs)], tensors[len(inputs) :]
        grads = tf.numpy_function(
            run_backward,
            [*inside, *constants, *results],
            [x.dtype for x in inside],
            stateful=False,
        )
        for grad, x in zip(grads, inside, strict=True):
            grad.set_shape(x.shape)

        def gradient_of_gradient(*upstream):
            more = second_order(inside, options, results[2:], upstream)
            return *more[:-2], None, None, *more[-2:]

        return grads, gradient_of_gradient

    @tf.custom_gradient
    def forward(*inside):
        output, statistics, logsumexp = tf.numpy_function(
            run_forward, [*inside, *constants], [dtype, real, real], stateful=False
        )
        rows, heads = list(query.shape[:-2]), query.shape[-2]
        if len(rows) == 2:
            rows[0] = batch_of(query, key, value)
        output.set_shape([*rows, heads, value.shape[-1]])
        logsumexp.set_shape([*rows[:-1], heads, rows[-1]])
        statistics.set_shape([*logsumexp.shape, 2])

        def gradient(grad_output, grad_logsumexp):
            return backward(*inside, output, statistics, grad_output, grad_logsumexp)

        return (output, logsumexp), gradient

    return forward(*inputs)


def attention_reference(query, key, value, options, **returned):
    """Pure Keras, with everything.

    Args:
        returned: `return_logsumexp`, `return_attention_scores`.
    """
    logits_only = {"scale", "query_splits", "key_splits"}
    keywords = {k: v for k, v in vars(options).items() if k not in logits_only}
    return reference.dot_product_attention(
        query, key, value, scale=options.scale, **keywords, **returned
    )


def attention_scores(query, key, options, logsumexp):
    """The weights before dropout, in the dtype of `query`: the logits once more,
    and their matrix, which the kernel does not keep."""
    ops = keras.ops
    real = real_dtype(query.dtype)
    logits = reference.attention_logits(
        ops.cast(query, real),
        ops.cast(key, real),
        options.bias,
        options.scale,
        options.attn_logits_soft_cap,
    )
    visible = reference.visible_keys(
        logits,
        options.mask,
        options.is_causal,
        query_mask=options.query_mask,
        key_mask=options.key_mask,
        query_lengths=options.query_lengths,
        key_lengths=options.key_lengths,
        sliding_window=options.sliding_window,
    )
    scores = reference.attention_scores(logits, visible, logsumexp)
    return ops.cast(scores, query.dtype)
