"""Direct calls of a layer's `call`, as in a part of a functional model."""

import keras
import numpy as np
import pytest

import hw3tf
from hw3tf import layers
from hw3tf.layers.call_context import call_context

X = np.ones((2, 5, 8), "float32")
WHOLE = X.astype("int32")


def built(layer, *inputs):
    layer(*inputs)
    return layer


def accelerated(layer, *inputs):
    assert hw3tf.accelerate(built(layer, *inputs)).num_fused == 1
    return layer


HEADS, GROUPS = {"num_heads": 2, "key_dim": 4}, (4, 2, 1)
CALLS = {
    "heads": lambda: built(layers.MultiHeadAttention(**HEADS), X, X).call(X, X),
    "grouped": lambda: built(layers.GroupQueryAttention(*GROUPS), X, X).call(X, X),
    "keras heads": lambda: accelerated(
        keras.layers.MultiHeadAttention(**HEADS), X, X
    ).call(X, X),
    "keras grouped": lambda: accelerated(
        keras.layers.GroupQueryAttention(*GROUPS), X, X
    ).call(X, X),
    "keras attention": lambda: accelerated(keras.layers.Attention(), [X, X]).call(
        [X, X]
    ),
    "integers": lambda: built(layers.IntegerRNN(2), WHOLE).call(WHOLE),
}


@pytest.mark.parametrize("name", CALLS)
def test_call_by_itself_leaves_no_call_under_way(name):
    """Keras takes `training` of every later layer from the outer call."""
    CALLS[name]()
    assert call_context() is None
    np.testing.assert_array_equal(keras.layers.Dropout(0.5)(X), X)
