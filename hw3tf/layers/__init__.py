"""Keras layers: those that run on the kernels, and what a Transformer needs
beside them."""

from hw3tf.layers.multi_head_attention import MultiHeadAttention
from hw3tf.layers.token_and_position_embedding import TokenAndPositionEmbedding

__all__ = ["MultiHeadAttention", "TokenAndPositionEmbedding"]
