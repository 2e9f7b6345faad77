"""What the kernels compute, in pure Keras: readable, slow, any dtype.

These functions are the specification that the tests judge by (in float64), and
what `hw3tf.ops` runs where the kernels do not serve.
"""

from hw3tf.reference.attention import dot_product_attention

__all__ = ["dot_product_attention"]
