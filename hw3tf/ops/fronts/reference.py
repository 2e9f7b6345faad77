"""Pure Keras, with everything: where the kernels do not serve, and what they leave out.

`attention` has two arguments more than the kernels' fronts and returns what they ask
for, as it has the scores.
"""

from collections.abc import Mapping
from typing import Any

import keras

from hw3tf import reference
from hw3tf.ops.attention.options import AttentionOptions, real_dtype
from hw3tf.ops.recurrence.options import RecurrenceOptions
from hw3tf.ops.rnn.options import RnnOptions

PACKED = ("query_splits", "key_splits")
POSITIONS = ("query_mask", "key_mask", "query_lengths", "key_lengths")


def attention(
    query: Any, key: Any, value: Any, options: AttentionOptions, **returned: bool
) -> Any:
    """Output, logsumexp and scores, as `hw3tf.reference.dot_product_attention`.

    Args:
        returned: `return_logsumexp`, `return_attention_scores`, `finite_logsumexp`.
    """
    keywords = {k: v for k, v in vars(options).items() if k not in PACKED}
    return reference.dot_product_attention(query, key, value, **keywords, **returned)


def ragged_attention(
    query: Any, key: Any, value: Any, options: AttentionOptions
) -> Any:
    """The output of ragged tensors, as a ragged tensor."""
    others = PACKED + POSITIONS
    keywords = {k: v for k, v in vars(options).items() if k not in others}
    return reference.ragged_dot_product_attention(query, key, value, **keywords)


def attention_scores(
    query: Any, key: Any, options: AttentionOptions, logsumexp: Any
) -> Any:
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


def integer_rnn(
    tensors: Mapping[str, Any], options: RecurrenceOptions, state_dtype: str
) -> Any:
    """The states."""
    return reference.integer_rnn(**tensors, **vars(options))


def rnn(
    cell: str, tensors: Mapping[str, Any], options: RnnOptions
) -> tuple[Any, Any, Any]:
    """Outputs, the last `h`, and the last `c` or None."""
    return reference.rnn(cell, **tensors, **vars(options))
