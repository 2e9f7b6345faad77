"""`ragged_dot_product_attention`: attention over sequences without padding."""

import keras

from hw3tf import reference
from hw3tf.ops.attention_call import choose_path, make_options, promoted, run_kernel
from hw3tf.ops.attention_checks import check_tensors, is_ragged
from hw3tf.ops.attention_options import kernel_options
from hw3tf.ops.libraries import logger


def ragged_dot_product_attention(
    query,
    key,
    value,
    bias=None,
    mask=None,
    scale=None,
    is_causal=False,
    *,
    attn_logits_soft_cap=None,
    sliding_window=None,
    dropout_rate=0.0,
    dropout_seed=None,
):
    """Attention within each sequence of a batch of different lengths.

    The sequences lie one behind the other, without padding: memory and time are
    those of the sequences as they are. The result is that of
    `hw3tf.ops.dot_product_attention` on one sequence after the other.

    Args:
        query: `tf.RaggedTensor` of shape `(batch, (query_length), num_heads,
            head_dim)`, of floats. The axis of the lengths is the only ragged one.
        key: `tf.RaggedTensor` of shape `(batch, (key_length), num_kv_heads,
            head_dim)`. `num_kv_heads` divides `num_heads`.
        value: `tf.RaggedTensor` of shape `(batch, (key_length), num_kv_heads,
            value_dim)`, of the lengths of `key`.
        bias: Optional float tensor, not ragged, that broadcasts to `(batch,
            num_heads, longest query, longest key)`, added to the scaled scores.
            Its positions count from the start of each sequence.
        mask: Optional boolean or numeric tensor that broadcasts likewise;
            `True` or nonzero = takes part.
        scale: Factor of the scores. Defaults to `1 / sqrt(head_dim)`.
        is_causal: Whether query `t` of a sequence sees its keys `0..t` only.
            Defaults to `False`.
        attn_logits_soft_cap, sliding_window, dropout_rate, dropout_seed: As in
            `hw3tf.ops.dot_product_attention`. What dropout drops is that of the
            padded batch.

    Returns:
        `tf.RaggedTensor` of shape `(batch, (query_length), num_heads,
        value_dim)`. A query that sees no key of its sequence gets the mean of
        the values of the sequence; in a sequence without keys, zeros.

    Raises:
        ValueError: If query, key or value is not a `tf.RaggedTensor` with one
            ragged axis, if batch sizes or lengths do not fit each other, and as
            `hw3tf.ops.dot_product_attention`.
        tensorflow.errors.InvalidArgumentError: The same, where it is known only
            when the graph runs.
        NotImplementedError: On differentiating the gradient of the kernel.

    Example:

    >>> x = tf.RaggedTensor.from_row_lengths(
    ...     keras.random.normal((9, 2, 4)), [4, 0, 5])
    >>> ragged_dot_product_attention(x, x, x, is_causal=True).shape
    TensorShape([3, None, 2, 4])

    Reference:
        - [Dao, 2023](https://arxiv.org/abs/2307.08691), algorithms 1 and 2
    """
    return RaggedAttentionCall(
        query,
        key,
        value,
        bias=bias,
        mask=mask,
        scale=scale,
        is_causal=is_causal,
        attn_logits_soft_cap=attn_logits_soft_cap,
        sliding_window=sliding_window,
        dropout_rate=dropout_rate,
        dropout_seed=dropout_seed,
    ).run()


class RaggedAttentionCall:
    """The arguments of `ragged_dot_product_attention`, brought to common terms.

    Attributes:
        path: The `AttentionPath` that the call takes.

    Raises:
        ValueError: If an argument is not what it must be.
    """

    def __init__(self, query, key, value, **settings):
        check_ragged(query, key, value)
        tensors = query.values, key.values, value.values
        check_tensors(*tensors, packed=True)
        *values, dtype = promoted(*tensors)
        self.query, self.key, self.value = (
            x.with_values(v) for x, v in zip((query, key, value), values, strict=True)
        )
        self.options = make_options(
            (None, query.shape[2], None, None),
            head_dim=query.shape[-1],
            query_splits=keras.ops.cast(query.row_splits, "int64"),
            key_splits=keras.ops.cast(_same_splits(key, value), "int64"),
            **settings,
        )
        self.path = choose_path(dtype, self.options.scale)

    def run(self):
        logger.debug("ragged_dot_product_attention takes the path %s", self.path)
        options = self.options
        if self.path.path == "reference":
            return reference.ragged_dot_product_attention(
                self.query,
                self.key,
                self.value,
                options.bias,
                options.mask,
                options.scale,
                options.is_causal,
                attn_logits_soft_cap=options.attn_logits_soft_cap,
                sliding_window=options.sliding_window,
                dropout_rate=options.dropout_rate,
                dropout_seed=options.dropout_seed,
            )
        values = self.query.values, self.key.values, self.value.values
        options = kernel_options(options, *values[:2])
        return self.query.with_values(run_kernel(self.path, *values, options)[0])


def check_ragged(query, key, value):
    """Raises ValueError if the three are not ragged batches of one size."""
    for name, x in (("query", query), ("key", key), ("value", value)):
        if not is_ragged(x):
            raise ValueError(
                f"`{name}` must be a `tf.RaggedTensor`. Received: {type(x).__name__}"
            )
        if x.ragged_rank != 1:
            raise ValueError(
                f"`{name}` must have one ragged axis, that of the lengths. "
                f"Received: {name}.ragged_rank={x.ragged_rank}"
            )
    size = query.row_splits.shape[0]
    for name, x in (("key", key), ("value", value)):
        other = x.row_splits.shape[0]
        if None not in (size, other) and size != other:
            raise ValueError(
                f"`{name}` must have the batch size of `query`, {size - 1}. "
                f"Received: {other - 1} sequences"
            )


def _same_splits(key, value):
    """The row splits of both; an error, now or when the graph runs, if they
    differ."""
    import tensorflow as tf

    one, other = key.row_splits, value.row_splits
    if one is other:
        return one
    if not tf.executing_eagerly():
        message = "`value` must have the lengths of `key`"
        one, other = tf.cast(one, "int64"), tf.cast(other, "int64")
        same = tf.debugging.assert_equal(one, other, message)
        with tf.control_dependencies([same]):
            # XLA leaves assertions out: there the kernel refuses a split of -1.
            return tf.where(one == other, one, -1)
    if not bool(tf.reduce_all(tf.cast(one, "int64") == tf.cast(other, "int64"))):
        raise ValueError(
            "`value` must have the lengths of `key`, "
            f"{key.row_lengths().numpy().tolist()}. "
            f"Received: lengths {value.row_lengths().numpy().tolist()}"
        )
    return one
