"""`MultiHeadAttention`: Keras's layer on the fused kernel."""

from collections.abc import Sequence
from typing import Any

import keras

from hw3tf.layers.attention.keras_calls import (
    MULTI_HEAD,
    OVERRIDABLE,
    attention_product,
    call_attention,
    masks_put_back,
    set_mask,
)
from hw3tf.layers.fallback import overrides
from hw3tf.ops.paths import logger
from hw3tf.ops.shapes import batch_of


@keras.saving.register_keras_serializable(package="hw3tf")
class MultiHeadAttention(keras.layers.MultiHeadAttention):
    """Multi-head attention computed by the fused C++ kernel.

    A drop-in for `keras.layers.MultiHeadAttention`: the same arguments, weights and
    config; a weights file of either loads into the other. To float32 rounding the
    results are the same, with every argument and in every dtype, in training with
    dropout as well, which is drawn inside the kernel: with the same probability, but
    other weights than Keras would drop. Neither the `(batch, num_heads, query_length,
    key_length)` scores are built nor a mask of that size: memory grows with the
    length, not with its square. Scores that are asked for come from the logsumexp of
    the kernel.

    Masking: the Keras masks of query, value and key (for example from
    `Embedding(mask_zero=True)`), or the arguments `query_mask`, `value_mask` and
    `key_mask`, say which positions take part. The mask of the query is passed on. A
    query that sees no key gets what Keras gives it: the projected mean of the values,
    or, if the layer has dropout, attends over images or volumes, or returns scores,
    that of zeros.

    Beyond Keras: an explicit `query_mask` is respected; the tensors keep their masks;
    masks, causality and windows work over any one axis, and masks over several.

    A subclass that overrides `_compute_attention`, `_masked_softmax` or one of the
    methods that make masks, or that has another softmax or dropout than Keras's layer,
    gets what it would get in Keras, matrices included; the logger `hw3tf` says so at
    level DEBUG.

    Args:
        num_heads: Positive integer, number of attention heads.
        key_dim: Positive integer, size of each head for query and key.
        value_dim: Positive integer, size of each head for value. Defaults to
            `key_dim`.
        dropout: Float in 0..1, share of the attention weights that is dropped
            in training. Defaults to 0.
        output_shape: Optional integer or tuple, the features of the output. Defaults
            to those of the query.
        attention_axes: Optional integer or tuple of them, the axes that attention
            runs over. Defaults to all between batch and features.
        sliding_window: Optional positive integer `w`: position `t` attends to the
            positions `s` with `abs(t - s) < w` only.
        flash_attention: Accepted for compatibility with Keras; the fused kernel is
            exact. As in Keras, `True` excludes dropout and scores.
        use_gate: Whether a sigmoid projection of the query multiplies the result.
            Defaults to `False`.
        seed: Optional integer, of the dropout.
        **kwargs: All other arguments of `keras.layers.MultiHeadAttention`.

    Call arguments:
        query: Float tensor of shape `(batch, query_length, features)`, or with more
            axes than one between batch and features.
        value: Float tensor of shape `(batch, key_length, features)`, likewise. With
            one axis between, a batch of 1 here or there serves a larger one.
        key: Optional float tensor of the shape of `value`, which is the default.
        query_mask: Optional boolean tensor, the shape of query without features.
        value_mask, key_mask: Optional boolean tensors, the shape of value without
            features; a key takes part if both allow it.
        attention_mask: Optional boolean tensor of shape `(batch, query_length,
            key_length)`, without the first axis, or with an axis of heads after it.
            In general, of the axes of the scores, those before the axes of the query
            may be missing, the last first. It is read where it lies, not copied, if
            it is of size 1 in all axes before the heads or in none, or if there is
            no other mask.
        return_attention_scores: Whether to return `(output, scores)`. Defaults
            to `False`.
        training: Whether to apply dropout.
        use_causal_mask: Whether position `t` attends to `0..t` only, along the one
            attention axis. Defaults to `False`.

    Returns:
        Float tensor of shape `(batch, query_length, features)`, and the scores before
        dropout, `(batch, num_heads, query_length, key_length)`, if asked for. With
        more axes, the scores have those that attention does not run over first, then
        the heads, the attention axes of the query, those of the key.

    Raises:
        ValueError: If `num_heads`, `key_dim` or `value_dim` is not a positive
            integer, if the shapes do not fit each other, or if a causal mask or a
            window is asked for over more than one axis, or none.

    Example:

    >>> x = keras.random.normal((2, 10, 16), seed=0)
    >>> layer = MultiHeadAttention(num_heads=4, key_dim=8)
    >>> layer(x, x, use_causal_mask=True).shape
    TensorShape([2, 10, 16])

    Reference:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.2.2
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
            return call_attention(MULTI_HEAD, self, query, value, **arguments)
        logger.debug("%s builds masks as in Keras: %s", self.name, overridden)
        with masks_put_back(query, value, key):
            set_mask(query, query_mask)  # Keras looks for it there only
            return super().call(query, value, **arguments)

    def _compute_attention(
        self,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any = None,
        training: bool | None = None,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> tuple[Any, Any]:
        """Keras's hook for subclasses, on the kernel, too."""
        arguments = query, key, value, attention_mask, training, return_attention_scores
        overridden = self._differs(("_masked_softmax",))
        if not overridden:
            return attention_product(MULTI_HEAD, self, *arguments, use_causal_mask)
        logger.debug("%s builds scores as in Keras: %s", self.name, overridden)
        return super()._compute_attention(*arguments, use_causal_mask=use_causal_mask)

    def _differs(self, methods: Sequence[str]) -> str:
        """Empty if `methods` and the layers within are Keras's, else what is not."""
        return overrides(self, MultiHeadAttention, methods) or MULTI_HEAD.changed(self)

    def compute_output_spec(
        self, query: Any, value: Any, key: Any = None, **kwargs: Any
    ) -> Any:
        if len(query.shape) == 3 and query.shape[0] == 1:  # serves a larger batch
            batch = batch_of(*(x for x in (value, key) if x is not None))
            query = keras.KerasTensor((batch, *query.shape[1:]), query.dtype)
        spec = super().compute_output_spec(query, value, key=key, **kwargs)
        if not kwargs.get("return_attention_scores"):
            return spec
        # Keras's takes the scores to be square, over axis 1.
        axes = [i % (len(query.shape) - 1) for i in self._attention_axes]
        before = [n for i, n in enumerate(query.shape[:-1]) if i not in axes]
        lengths = [x.shape[i] for x in (query, value) for i in axes]
        shape = (*before, self.num_heads, *lengths)
        return spec[0], keras.KerasTensor(shape, dtype=self.compute_dtype)
