"""Keras layers: those that run on the kernels, and what models need beside them."""

from hw3tf.layers.group_query_attention import GroupQueryAttention
from hw3tf.layers.gru import GRU
from hw3tf.layers.integer_rnn import IntegerRNN
from hw3tf.layers.logistic import Logistic
from hw3tf.layers.lstm import LSTM
from hw3tf.layers.multi_head_attention import MultiHeadAttention
from hw3tf.layers.simple_rnn import SimpleRNN
from hw3tf.layers.token_and_position_embedding import TokenAndPositionEmbedding

__all__ = [  # noqa: RUF022 - GRU and LSTM are no constants
    "GRU",
    "GroupQueryAttention",
    "IntegerRNN",
    "LSTM",
    "Logistic",
    "MultiHeadAttention",
    "SimpleRNN",
    "TokenAndPositionEmbedding",
]
