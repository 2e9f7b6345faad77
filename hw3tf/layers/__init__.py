"""Keras layers that run on the kernels."""

from hw3tf.layers.multi_head_attention import MultiHeadAttention

__all__ = ["MultiHeadAttention"]
