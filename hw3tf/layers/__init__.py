"""Keras layers: those that run on the kernels, and what models need beside them."""

from hw3tf.layers.integer_rnn import IntegerRNN
from hw3tf.layers.logistic import Logistic
from hw3tf.layers.multi_head_attention import MultiHeadAttention
from hw3tf.layers.token_and_position_embedding import TokenAndPositionEmbedding

__all__ = ["IntegerRNN", "Logistic", "MultiHeadAttention", "TokenAndPositionEmbedding"]
