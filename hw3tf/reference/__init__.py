"""The functions of the kernels in pure Keras: readable, slow, any dtype.

They are the specification with which the tests compare the kernels (attention in
float64, integers exactly), and `hw3tf.ops` runs them where the kernels cannot.
"""

from hw3tf.reference.attention import (
    attention_logits,
    attention_scores,
    dot_product_attention,
    visible_keys,
)
from hw3tf.reference.dropout import attention_dropout_mask
from hw3tf.reference.integer_rnn import integer_rnn, integer_rnn_and_overflow
from hw3tf.reference.integer_rnn_cell import IntegerRNNCell
from hw3tf.reference.ragged_attention import ragged_dot_product_attention
from hw3tf.reference.rnn import rnn

__all__ = [
    "IntegerRNNCell",
    "attention_dropout_mask",
    "attention_logits",
    "attention_scores",
    "dot_product_attention",
    "integer_rnn",
    "integer_rnn_and_overflow",
    "ragged_dot_product_attention",
    "rnn",
    "visible_keys",
]
