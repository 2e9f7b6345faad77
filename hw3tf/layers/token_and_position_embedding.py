"""`TokenAndPositionEmbedding`: where a Transformer begins."""

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="hw3tf")
class TokenAndPositionEmbedding(keras.layers.Layer):
    """Sum of a learned vector per token and a learned vector per position.

    Args:
        vocab_size: Number of token ids.
        sequence_length: Largest number of positions.
        embed_dim: Size of the vectors.
        mask_zero: Whether id 0 is padding, to be masked downstream. Defaults to
            `True`.
        **kwargs: Passed to `keras.layers.Layer`.

    Call arguments:
        tokens: Integer tensor of shape `(batch, length)`.

    Returns:
        Float tensor of shape `(batch, length, embed_dim)`.

    Raises:
        ValueError: If `length` is known and exceeds `sequence_length`.

    Example:

    >>> layer = TokenAndPositionEmbedding(100, sequence_length=16, embed_dim=8)
    >>> layer(keras.ops.ones((2, 10), "int32")).shape
    TensorShape([2, 10, 8])

    Reference:
        - [Devlin et al., 2019](https://arxiv.org/abs/1810.04805), section 3
    """

    def __init__(
        self,
        vocab_size: int,
        sequence_length: int,
        embed_dim: int,
        mask_zero: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.sequence_length = sequence_length
        self.embed_dim = embed_dim
        self.mask_zero = mask_zero
        self.supports_masking = True
        initializer = keras.initializers.RandomNormal(stddev=0.05)
        self.token_embedding = keras.layers.Embedding(
            vocab_size,
            embed_dim,
            embeddings_initializer=initializer,
            mask_zero=mask_zero,
            name="tokens",
        )
        self.position_embedding = keras.layers.Embedding(
            sequence_length,
            embed_dim,
            embeddings_initializer=initializer.clone(),
            name="positions",
        )

    def build(self, tokens_shape: Any) -> None:
        self.token_embedding.build(tokens_shape)
        self.position_embedding.build((self.sequence_length,))

    def call(self, tokens: Any) -> Any:
        length = tokens.shape[1]
        if length is not None and length > self.sequence_length:
            raise ValueError(
                f"`tokens` must have at most sequence_length={self.sequence_length} "
                f"positions. Received: tokens.shape={tuple(tokens.shape)}"
            )
        positions = keras.ops.arange(keras.ops.shape(tokens)[1])
        return self.token_embedding(tokens) + self.position_embedding(positions)

    def compute_mask(self, tokens: Any, mask: Any = None) -> Any:
        return self.token_embedding.compute_mask(tokens, mask)

    def compute_output_shape(self, tokens_shape: Any) -> Any:
        return (*tokens_shape, self.embed_dim)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocab_size": self.vocab_size,
            "sequence_length": self.sequence_length,
            "embed_dim": self.embed_dim,
            "mask_zero": self.mask_zero,
        }
