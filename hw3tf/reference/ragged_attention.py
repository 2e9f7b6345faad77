"""Attention over packed sequences in pure Keras: padded, computed, cut off."""

from keras import ops

from hw3tf._types import RaggedTensor, Tensor
from hw3tf.reference.attention import (
    attention_logits,
    promoted,
    visible_keys,
    weighted_mean,
)


def ragged_dot_product_attention(
    query: RaggedTensor,
    key: RaggedTensor,
    value: RaggedTensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    scale: float | Tensor | None = None,
    is_causal: bool = False,
    *,
    attn_logits_soft_cap: float | None = None,
    sliding_window: int | None = None,
    dropout_rate: float = 0.0,
    dropout_seed: int | Tensor | None = None,
) -> RaggedTensor:
    """Attention of every sequence of a ragged batch to its own keys.

    The result is that of `dot_product_attention` on one sequence after the
    other. Here the sequences are padded to the longest.

    Args:
        query: `tf.RaggedTensor` of shape `(batch, (query_length), num_heads,
            head_dim)`.
        key, value: The same, `(batch, (key_length), num_kv_heads, ...)`, with
            equal lengths.
        bias, mask: Optional tensors that broadcast to `(batch, num_heads,
            longest query, longest key)`.
        scale, is_causal: As in `hw3tf.reference.dot_product_attention`.
        attn_logits_soft_cap, sliding_window: As there.
        dropout_rate, dropout_seed: As there.

    Returns:
        `tf.RaggedTensor` of shape `(batch, (query_length), num_heads,
        value_dim)`. A query that sees no key of its sequence gets the mean of
        the sequence's values; in a sequence without keys, zeros.
    """
    key_lengths = key.row_lengths()
    queries, keys, values = promoted(
        query.to_tensor(), key.to_tensor(), value.to_tensor()
    )
    logits = attention_logits(queries, keys, bias, scale, attn_logits_soft_cap)
    visible = visible_keys(
        logits,
        mask,
        is_causal,
        key_lengths=key_lengths,
        sliding_window=sliding_window,
    )
    # A sequence without keys has padding only, whose values and mean are 0.
    no_keys = (key_lengths == 0)[:, None, None, None]
    exists = visible_keys(logits, key_lengths=key_lengths)
    output, _, _ = weighted_mean(
        logits,
        visible,
        values,
        dropout_rate=dropout_rate,
        dropout_seed=dropout_seed,
        exists=ops.logical_or(exists, no_keys),
    )
    return query.from_tensor(
        output,
        lengths=query.row_lengths(),
        row_splits_dtype=query.row_splits.dtype,
    )
