"""The three implementations of attention, behind one signature.

Each takes float tensors `query, key, value`, the masks `query_mask` (batch,
query_length) and `key_mask` (batch, key_length) or None, a number `scale` and
`is_causal`.
"""

import keras

from hw3tf import _core, reference
from hw3tf.ops.libraries import load_op_library


def attention_op(query, key, value, query_mask, key_mask, scale, is_causal):
    """The TensorFlow op. An empty mask of rank 1 stands for "no mask"."""
    import tensorflow as tf

    def given(mask):
        return tf.zeros([0], "bool") if mask is None else mask

    output, _ = load_op_library().hw3tf_attention(
        query,
        key,
        value,
        given(query_mask),
        given(key_mask),
        scale=scale,
        is_causal=is_causal,
    )
    return output


def attention_pybind(query, key, value, query_mask, key_mask, scale, is_causal):
    """The same kernel through pybind11 and `tf.numpy_function`: for where the
    op library cannot be loaded. Holds no state, so eager and graph are alike."""
    import tensorflow as tf

    from hw3tf.ops.attention_gradient import SECOND_ORDER

    masks = [tf.zeros([0], "bool") if m is None else m for m in (query_mask, key_mask)]

    def mask_or_none(mask):
        return None if mask.ndim == 1 else mask

    def run_forward(q, k, v, qm, km):
        return _core.attention_forward(
            q,
            k,
            v,
            mask_or_none(qm),
            mask_or_none(km),
            scale=scale,
            is_causal=is_causal,
        )

    def run_backward(q, k, v, qm, km, *rest):
        return _core.attention_backward(
            q,
            k,
            v,
            mask_or_none(qm),
            mask_or_none(km),
            *rest,
            scale=scale,
            is_causal=is_causal,
        )

    @tf.custom_gradient
    def backward(q, k, v, *rest):
        grads = tf.numpy_function(
            run_backward, [q, k, v, *masks, *rest], [tf.float32] * 3, stateful=False
        )
        for grad, x in zip(grads, (q, k, v), strict=True):
            grad.set_shape(x.shape)

        def second_order(*_):
            raise NotImplementedError(SECOND_ORDER)

        return grads, second_order

    @tf.custom_gradient
    def forward(q, k, v):
        output, statistics = tf.numpy_function(
            run_forward, [q, k, v, *masks], [tf.float32] * 2, stateful=False
        )
        output.set_shape(q.shape[:3].concatenate(v.shape[3:]))
        statistics.set_shape([q.shape[0], q.shape[2], q.shape[1], 2])

        def gradient(grad_output):
            return backward(q, k, v, output, statistics, grad_output)

        return output, gradient

    return forward(query, key, value)


def attention_reference(
    query,
    key,
    value,
    query_mask,
    key_mask,
    scale,
    is_causal,
    mask=None,
    bias=None,
    attn_logits_soft_cap=None,
):
    """Pure Keras, with the options that the kernel does not cover. The masks
    stay as small as they can be: without a query mask, (batch, 1, 1, length)."""
    if key_mask is not None:
        keys = key_mask[:, None, None, :]
        mask = keys if mask is None else keras.ops.logical_and(mask, keys)
    if query_mask is not None:
        queries = query_mask[:, None, :, None]
        mask = queries if mask is None else keras.ops.logical_and(mask, queries)
    return reference.dot_product_attention(
        query, key, value, bias, mask, scale, is_causal, attn_logits_soft_cap
    )
