"""`MultiHeadAttention`: Keras's layer on the fused kernel."""

import contextlib

import keras

from hw3tf import ops
from hw3tf.ops.libraries import logger


@keras.saving.register_keras_serializable(package="hw3tf")
class MultiHeadAttention(keras.layers.MultiHeadAttention):
    """Multi-head attention computed by the fused C++ kernel.

    A drop-in for `keras.layers.MultiHeadAttention`: the same arguments, weights
    and config; a weights file of either loads into the other. To float32
    rounding the results are the same. The `(batch, num_heads, query_length,
    key_length)` scores are never built, and neither is a mask of that size for
    padding or causality: memory grows with the length, not with its square.

    Some calls need the scores, and then run as in Keras: those that return them
    (`return_attention_scores=True`), training with `dropout > 0`, an
    `attention_mask`, a `sliding_window`, more than one attention axis. The logger
    `hw3tf` says so at level DEBUG. Mixed precision, XLA and GPUs run in
    `hw3tf.reference`.

    Masking: the Keras masks of query, value and key (for example from
    `Embedding(mask_zero=True)`), or the arguments `query_mask`, `value_mask` and
    `key_mask`, say which positions take part. The mask of the query is passed
    on. A masked position still gets an output, the projected mean of the values;
    ignore it.

    Args:
        num_heads: Positive integer, number of attention heads.
        key_dim: Positive integer, size of each head for query and key.
        value_dim: Positive integer, size of each head for value. Defaults to
            `key_dim`.
        dropout: Float in 0..1, share of the attention weights that is dropped
            in training. Defaults to 0.
        **kwargs: All other arguments of `keras.layers.MultiHeadAttention`.

    Call arguments:
        query: Float tensor of shape `(batch, query_length, features)`.
        value: Float tensor of shape `(batch, key_length, features)`.
        key: Optional float tensor of the shape of `value`, which is the default.
        query_mask: Optional boolean tensor of shape `(batch, query_length)`.
        value_mask, key_mask: Optional boolean tensors of shape
            `(batch, key_length)`; a key takes part if both allow it.
        attention_mask: Optional boolean tensor of shape
            `(batch, query_length, key_length)`.
        return_attention_scores: Whether to return `(output, scores)`. Defaults
            to `False`.
        training: Whether to apply dropout.
        use_causal_mask: Whether position `t` attends to `0..t` only. Defaults to
            `False`.

    Returns:
        Float tensor of shape `(batch, query_length, features)`, and the scores,
        `(batch, num_heads, query_length, key_length)`, if asked for.

    Raises:
        ValueError: If `num_heads` or `key_dim` is not a positive integer, or if
            the shapes do not fit each other.

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
        query,
        value,
        key=None,
        query_mask=None,
        value_mask=None,
        key_mask=None,
        attention_mask=None,
        return_attention_scores=False,
        training=None,
        use_causal_mask=False,
    ):
        needs_scores = self._why_scores(
            query, attention_mask, return_attention_scores, training
        )
        if needs_scores:
            logger.debug("%s runs as in Keras: %s", self.name, needs_scores)
            return super().call(
                query,
                value,
                key=key,
                query_mask=query_mask,
                value_mask=value_mask,
                key_mask=key_mask,
                attention_mask=attention_mask,
                return_attention_scores=return_attention_scores,
                training=training,
                use_causal_mask=use_causal_mask,
            )
        if key is None:
            key = value
        if key_mask is None:
            key_mask = value_mask
        elif value_mask is not None:
            key_mask = keras.ops.logical_and(key_mask, value_mask)
        with _masks_taken_off(query, key, value):
            attention = ops.dot_product_attention(
                self._query_dense(query),
                self._key_dense(key),
                self._value_dense(value),
                scale=self._key_dim**-0.5,
                is_causal=use_causal_mask,
                query_mask=query_mask,
                key_mask=key_mask,
            )
            if getattr(self, "_use_gate", False):
                attention = keras.ops.multiply(attention, self._gate_dense(query))
        return self._output_dense(attention)

    def _why_scores(self, query, attention_mask, return_attention_scores, training):
        """Why this call needs the matrix of scores; empty if it does not."""
        if return_attention_scores:
            return "the scores are asked for"
        if self._dropout > 0 and training:
            return "dropout of the attention weights in training"
        if attention_mask is not None:
            return "an attention mask is given"
        if getattr(self, "_sliding_window", None) is not None:
            return "a sliding window is set"
        if len(query.shape) != 3 or tuple(self._attention_axes) != (1,):
            return "attention is over other axes than (1,)"
        return ""


@contextlib.contextmanager
def _masks_taken_off(*tensors):
    """Takes the Keras masks off the tensors while projections run, which know no
    masks and would warn. Puts them back: Keras's own layer does not, and the
    second of two equal calls on one tensor sees no mask."""
    masks = [(x, x._keras_mask) for x in tensors if hasattr(x, "_keras_mask")]
    for tensor, _ in masks:
        tensor._keras_mask = None
    try:
        yield
    finally:
        for tensor, mask in masks:
            if mask is not None:
                tensor._keras_mask = mask
