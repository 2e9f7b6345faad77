"""`GroupQueryAttention`: Keras's layer on the fused kernel."""

from collections.abc import Sequence
from typing import Any

import keras

from hw3tf.layers.attention.keras_calls import (
    GROUPED,
    OVERRIDABLE,
    attention_product,
    call_attention,
)
from hw3tf.layers.fallback import overrides
from hw3tf.ops.paths import logger
from hw3tf.ops.shapes import batch_of


@keras.saving.register_keras_serializable(package="hw3tf")
class GroupQueryAttention(keras.layers.GroupQueryAttention):
    """Attention with fewer heads for keys and values, by the fused C++ kernel.

    A drop-in for `keras.layers.GroupQueryAttention`: the same arguments, weights and
    config; a weights file of either loads into the other. To float32 rounding the
    results are the same, with every argument and in every dtype, in training with
    dropout as well, which is drawn inside the kernel: with the same probability, but
    other weights than Keras would drop. Neither the `(batch, num_query_heads,
    query_length, key_length)` scores are built nor a mask of that size, nor copies of
    the heads of key and value: memory grows with the length, not with its square.

    Masking: the Keras masks of query, value and key (for example from
    `Embedding(mask_zero=True)`), or the arguments `query_mask`, `value_mask` and
    `key_mask`, say which positions take part. The mask of the query is passed on. A
    query that sees no key gets what Keras gives it: the projected mean of the values,
    or, if the layer has dropout or scores are returned, that of zeros.

    A subclass that overrides `_compute_attention`, `_masked_softmax` or one of the
    methods that make masks, or that has another softmax or dropout than Keras's layer,
    gets what it would get in Keras, matrices included; the logger `hw3tf` says so at
    level DEBUG.

    Args:
        head_dim: Positive integer, size of each head.
        num_query_heads: Positive integer, number of heads of the query.
        num_key_value_heads: Positive integer that divides `num_query_heads`, number
            of heads of key and value.
        dropout: Float in 0..1, share of the attention weights that is dropped in
            training. Defaults to 0.
        sliding_window: Optional positive integer `w`: position `t` attends to the
            positions `s` with `abs(t - s) < w` only.
        flash_attention: Accepted for compatibility with Keras; the fused kernel is
            exact. As in Keras, `True` excludes dropout and scores.
        use_gate: Whether a sigmoid projection of the query multiplies the result.
            Defaults to `False`.
        seed: Optional integer, of the dropout.
        **kwargs: All other arguments of `keras.layers.GroupQueryAttention`.

    Call arguments:
        query: Float tensor of shape `(batch, query_length, features)`.
        value: Float tensor of shape `(batch, key_length, features)`. A batch of 1
            here or in `query` serves a larger one.
        key: Optional float tensor of the shape of `value`, which is the default.
        query_mask: Optional boolean tensor of shape `(batch, query_length)`.
        value_mask, key_mask: Optional boolean tensors of shape
            `(batch, key_length)`; a key takes part if both allow it.
        attention_mask: Optional boolean tensor of shape `(batch, query_length,
            key_length)`, without the first axis, or with an axis of heads after it.
            It is read where it lies.
        return_attention_scores: Whether to return `(output, scores)`. Defaults
            to `False`.
        training: Whether to apply dropout.
        use_causal_mask: Whether position `t` attends to `0..t` only. Defaults to
            `False`.

    Returns:
        Float tensor of shape `(batch, query_length, features)`, and the scores before
        dropout, `(batch, num_query_heads, query_length, key_length)`, if asked for.

    Raises:
        ValueError: If `num_key_value_heads` does not divide `num_query_heads`, if
            `sliding_window` is no positive integer, or if the shapes do not fit each
            other.

    Example:

    >>> x = keras.random.normal((2, 10, 16), seed=0)
    >>> layer = GroupQueryAttention(8, num_query_heads=4, num_key_value_heads=2)
    >>> layer(x, x, use_causal_mask=True).shape
    TensorShape([2, 10, 16])

    Reference:
        - [Ainslie et al., 2023](https://arxiv.org/abs/2305.13245)
        - [Dao, 2023](https://arxiv.org/abs/2307.08691)
    """

    def call(
        self,
        query: Any,
        value: Any,
        key: Any = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
        use_causal_mask: bool = False,
    ) -> Any:
        arguments = {
            "key": key,
            "query_mask": query_mask,
            "value_mask": value_mask,
            "key_mask": key_mask,
            "attention_mask": attention_mask,
            "return_attention_scores": return_attention_scores,
            "training": training,
            "use_causal_mask": use_causal_mask,
        }
        overridden = self._differs(OVERRIDABLE)
        if not overridden:
            return call_attention(GROUPED, self, query, value, **arguments)
        logger.debug("%s builds masks as in Keras: %s", self.name, overridden)
        return super().call(query, value, **arguments)

    def _compute_attention(
        self,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any = None,
        training: bool | None = None,
        use_causal_mask: bool = False,
    ) -> tuple[Any, Any]:
        """Keras's hook for subclasses, on the kernel, too."""
        arguments = query, key, value, attention_mask, training
        overridden = self._differs(("_masked_softmax",))
        if not overridden:
            scores = self._return_attention_scores
            return attention_product(GROUPED, self, *arguments, scores, use_causal_mask)
        logger.debug("%s builds scores as in Keras: %s", self.name, overridden)
        return super()._compute_attention(*arguments, use_causal_mask=use_causal_mask)

    def compute_output_spec(
        self, query: Any, value: Any, key: Any = None, **kwargs: Any
    ) -> Any:
        if query.shape[0] == 1:  # serves a larger batch
            batch = batch_of(*(x for x in (value, key) if x is not None))
            query = keras.KerasTensor((batch, *query.shape[1:]), query.dtype)
        return super().compute_output_spec(query, value, key=key, **kwargs)

    def _differs(self, methods: Sequence[str]) -> str:
        """Empty if `methods` and the layers within are Keras's, else what is not."""
        return overrides(self, GroupQueryAttention, methods) or GROUPED.changed(self)
