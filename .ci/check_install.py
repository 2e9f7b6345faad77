"""Check of an installed wheel: the op, its gradient, a layer, the recurrence.

    python .ci/check_install.py

Run it outside the checkout. It needs hw3tf with its dependencies, nothing else.
"""

import keras
import numpy as np
import tensorflow as tf

import hw3tf


def main():
    x = tf.constant(np.random.default_rng(0).standard_normal((2, 70, 4, 16), "float32"))
    path = hw3tf.ops.attention_path(x, x, x)
    assert path.path == "op", path
    results = []
    for function in (
        hw3tf.ops.dot_product_attention,
        keras.ops.dot_product_attention,
    ):
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = function(x, x, x, is_causal=True)
        results.append((output, tape.gradient(output, x)))
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4)

    layer = hw3tf.layers.MultiHeadAttention(num_heads=2, key_dim=8)
    model = keras.Sequential([keras.Input((None, 16)), keras.layers.Dense(16)])
    y = layer(*[model(tf.ones((2, 5, 16)))] * 2)
    assert y.shape == (2, 5, 16)

    steps = tf.constant([[[5], [3], [4], [1]]])
    minus_one = keras.initializers.Constant(-1)
    layer = hw3tf.layers.IntegerRNN(1, recurrent_initializer=minus_one, dtype="int64")
    assert layer(steps).numpy().tolist() == [[-5]]
    print(f"hw3tf {hw3tf.__version__} beside TensorFlow {tf.__version__}: {path}")


if __name__ == "__main__":
    main()
