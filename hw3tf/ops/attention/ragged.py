"""`ragged_dot_product_attention`: attention over sequences without padding."""

from typing import Any

import keras

from hw3tf.ops.arguments import is_ragged
from hw3tf.ops.attention.call import choose_path, converted, promoted, settled
from hw3tf.ops.attention.checks import check_call
from hw3tf.ops.attention.options import AttentionOptions, kernel_options
from hw3tf.ops.fronts import front_of, reference
from hw3tf.ops.paths import logger


def ragged_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    scale: Any = None,
    is_causal: bool = False,
    *,
    attn_logits_soft_cap: float | None = None,
    sliding_window: int | None = None,
    dropout_rate: float = 0.0,
    dropout_seed: Any = None,
) -> Any:
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
        NotImplementedError: As `hw3tf.ops.dot_product_attention`, which also says how
            derivatives of the gradient are computed.

    Example:

    >>> x = tf.RaggedTensor.from_row_lengths(
    ...     keras.random.normal((9, 2, 4)), [4, 0, 5])
    >>> ragged_dot_product_attention(x, x, x, is_causal=True).shape
    TensorShape([3, None, 2, 4])

    Reference:
        - [Dao, 2023](https://arxiv.org/abs/2307.08691), algorithms 1 and 2
    """
    options = AttentionOptions(
        scale=scale,
        is_causal=is_causal,
        attn_logits_soft_cap=attn_logits_soft_cap,
        sliding_window=sliding_window,
        dropout_rate=dropout_rate,
        bias=bias,
        mask=mask,
        dropout_seed=dropout_seed,
    )
    return RaggedAttentionCall(query, key, value, options).run()


class RaggedAttentionCall:
    """The arguments of `ragged_dot_product_attention`, checked and converted.

    Args:
        query, key, value: As there.
        options: The others, as they were given.

    Attributes:
        path: The `CallPath` that the call takes.

    Raises:
        ValueError: If an argument is not what it must be.
    """

    def __init__(
        self, query: Any, key: Any, value: Any, options: AttentionOptions
    ) -> None:
        check_ragged(query, key, value)
        values = query.values, key.values, value.values
        tensors = converted(options.tensors)
        check_call(*values, tensors, options, packed=True)
        splits = {
            "query_splits": keras.ops.cast(query.row_splits, "int64"),
            "key_splits": keras.ops.cast(_same_splits(key, value), "int64"),
        }
        self.options = settled(options, tensors | splits, head_dim=query.shape[-1])
        *promoted_values, dtype = promoted(*values)
        self.query, self.key, self.value = (
            x.with_values(v)
            for x, v in zip((query, key, value), promoted_values, strict=True)
        )
        self.path = choose_path(dtype, self.options.scale)

    def run(self) -> Any:
        logger.debug("ragged_dot_product_attention takes the path %s", self.path)
        if self.path.path == "reference":
            return reference.ragged_attention(
                self.query, self.key, self.value, self.options
            )
        query, key, value = self.query.values, self.key.values, self.value.values
        options = kernel_options(self.options, query, key)
        front = front_of(self.path.path)
        output, _ = front.attention(query, key, value, options)
        return self.query.with_values(output)


def check_ragged(query: Any, key: Any, value: Any) -> None:
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


def _same_splits(key: Any, value: Any) -> Any:
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
