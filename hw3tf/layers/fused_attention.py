"""One call of the kernel in the terms of Keras's and KerasHub's layers."""

import keras

from hw3tf.ops.attention_call import AttentionCall
from hw3tf.ops.attention_paths import sees_nothing


def attend(
    query,
    key,
    value,
    *,
    mask=None,
    zero_blind_rows=True,
    dropout=None,
    training=None,
    return_scores=False,
    **options,
):
    """Attention as these layers define it, on the kernel.

    A dropout that leaves no weights, of rate 1, gives zeros.

    Args:
        query, key, value: Tensors, as for `hw3tf.ops.dot_product_attention`.
        mask: Boolean or numeric tensor, nonzero = takes part; of shape `(batch,
            query_length, key_length)`, the same with an axis of heads, or
            `(query_length, key_length)`.
        zero_blind_rows: Whether a query that sees no key gets zeros, as from
            `keras.layers.Softmax`, or the mean of the values, as from
            `keras.ops.dot_product_attention`.
        dropout: The `keras.layers.Dropout` of the attention weights, or None.
        training: Whether to apply it.
        return_scores: Whether to return the weights, too, before dropout.
        options: Other arguments of `hw3tf.ops.dot_product_attention`.

    Returns:
        The output, and the weights or None.
    """
    if mask is not None:
        mask = boolean(mask, strict=zero_blind_rows)
        while len(mask.shape) < 4:
            mask = keras.ops.expand_dims(mask, -3)
    zero_blind_rows = zero_blind_rows and _may_be_blind(query, key, mask, options)
    all_drops = dropout is not None and training and dropout.rate >= 1
    call = AttentionCall(
        query,
        key,
        value,
        mask=mask,
        **({} if all_drops else dropout_options(dropout, training)),
        **options,
    )
    output, *more = _as_list(
        call.run(
            return_logsumexp=zero_blind_rows,
            return_attention_scores=return_scores,
            finite_logsumexp=True,
        )
    )
    if all_drops:  # a product, not zeros: the weights keep their gradients, of 0
        output = keras.ops.multiply(output, keras.ops.zeros((), output.dtype))
    scores = more.pop() if return_scores else None
    if zero_blind_rows:
        nothing = sees_nothing(more[0])
        output = _zeroed(output, keras.ops.transpose(nothing, (0, 2, 1))[..., None])
        if return_scores:
            scores = _zeroed(scores, nothing[..., None])
    return output, scores


def boolean(mask, strict=True):
    """`mask` as booleans: above 0.5, as `keras.layers.Softmax` reads numbers; if
    not `strict`, nonzero."""
    if keras.backend.standardize_dtype(mask.dtype) == "bool":
        return mask
    if strict:
        return keras.ops.greater(mask, keras.ops.cast(0.5, mask.dtype))
    return keras.ops.cast(mask, "bool")


def dropout_options(dropout, training):
    """Rate and seed for the kernel, from a `keras.layers.Dropout`: each call in
    training draws from its seed generator, as the layer itself does."""
    if dropout is None or not training or dropout.rate == 0:
        return {}
    state = keras.ops.cast(dropout.seed_generator.next(), "int64")
    return {
        "dropout_rate": dropout.rate,
        "dropout_seed": state[0] * 2**32 + state[1],
    }


def training_of(layer):
    """Whether the call of `layer` under way is one of training, for layers whose
    `call` has no such argument."""
    return layer._get_call_context().get_value("training")


def overrides(layer, known_class, methods):
    """Empty if `layer` has `methods` of `known_class`, else what it has instead."""
    for name in methods:
        if name in layer.__dict__:
            return f"the layer has a `{name}` of its own"
        for cls in type(layer).__mro__:
            if cls is known_class:
                break
            if name in cls.__dict__:
                return f"`{cls.__name__}` overrides `{name}`"
    return ""


def _may_be_blind(query, key, mask, options):
    """Whether there may be a query that sees no key. Causality leaves it one."""
    given = (mask, options.get("query_mask"), options.get("key_mask"))
    if any(x is not None for x in given):
        return True
    lengths = query.shape[1], key.shape[1]
    shorter = None in lengths or lengths[0] > lengths[1]
    return shorter and options.get("sliding_window") is not None


def _zeroed(tensor, where):
    """`tensor` with zeros `where`, in most calls nowhere: then it is not read. With
    8 sequences of 128, reading it took 14 % of the time of attention."""
    return keras.ops.cond(
        keras.ops.any(where),
        lambda: keras.ops.where(where, keras.ops.zeros((), tensor.dtype), tensor),
        lambda: tensor,
    )


def _as_list(results):
    return list(results) if isinstance(results, tuple) else [results]
