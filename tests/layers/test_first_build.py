"""First builds of layers inside graphs, datasets and models."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from checks import run_python

from hw3tf import layers
from hw3tf.reference import IntegerRNNCell

INTEGERS = np.arange(24).reshape(2, 3, 4).astype("int32")
FLOATS = np.sin(INTEGERS).astype("float32")
RANDOM = keras.initializers.RandomUniform(-3, 4, seed=1)


class Twice(keras.layers.Layer):
    """Attention of a tensor to itself."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def build(self, shape):
        self.attention.build(shape, shape)

    def call(self, x):
        return self.attention(x, x)


LAYERS = {
    "IntegerRNN": (lambda: layers.IntegerRNN(2), INTEGERS),
    "random": (lambda: layers.IntegerRNN(2, kernel_initializer=RANDOM), INTEGERS),
    "cell": (
        lambda: keras.layers.RNN(IntegerRNNCell(2), dtype="int32"),
        INTEGERS,
    ),
    "Logistic": (lambda: layers.Logistic(gain=0.1), INTEGERS),
    "MultiHeadAttention": (lambda: Twice(layers.MultiHeadAttention(2, 3)), FLOATS),
    "GroupQueryAttention": (
        lambda: Twice(layers.GroupQueryAttention(3, 2, 1)),
        FLOATS,
    ),
    "TokenAndPositionEmbedding": (
        lambda: layers.TokenAndPositionEmbedding(24, 4, 4),
        INTEGERS[..., 0],
    ),
}


def in_a_model(layer, x):
    return keras.Sequential([layer]).predict(x, verbose=0)


def in_a_function(layer, x):
    return tf.function(layer)(x)


def in_a_compiled_function(layer, x):
    return tf.function(layer, jit_compile=True)(tf.constant(x))


def in_a_dataset(layer, x):
    return next(iter(tf.data.Dataset.from_tensors(x).map(layer)))


def in_a_strategy(layer, x):
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = keras.Sequential([layer])
    return model.predict(x, verbose=0)


def in_a_call(layer, x):
    """A model whose `call` builds the layer."""

    class Model(keras.Model):
        def call(self, x):
            return layer(x)

    return Model().predict(x, verbose=0)


def without_states(layer, x):
    with keras.StatelessScope():
        layer(x)
    return layer(x)


def symbolically(layer, x):
    layer(keras.KerasTensor(x.shape, x.dtype))
    return in_a_function(layer, x)


PLACES = (
    in_a_model,
    in_a_function,
    in_a_compiled_function,
    in_a_dataset,
    in_a_strategy,
    in_a_call,
    without_states,
    symbolically,
)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("name", LAYERS)
def test_a_first_build_is_that_of_an_eager_call(name, place):
    """The same numbers as the layer that is now built, and of its initializers."""
    make, x = LAYERS[name]
    layer = make()
    got = place(layer, x)
    want = layer(x).numpy()
    # XLA adds the products of float32 in another order, and has another sigmoid.
    tolerance = 1e-6 if want.dtype == "float32" else 0
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    if want.dtype == "int32":
        np.testing.assert_array_equal(got, make()(x))


@pytest.mark.parametrize("place", [in_a_model, in_a_function, in_a_dataset, in_a_call])
def test_initializers_that_are_no_integers_are_named_there(place):
    for layer in (
        layers.IntegerRNN(2, kernel_initializer="glorot_uniform"),
        keras.layers.RNN(
            IntegerRNNCell(2, kernel_initializer="glorot_uniform"), dtype="int32"
        ),
    ):
        message = "`kernel` must be integers of int32.*GlorotUniform"
        with pytest.raises(ValueError, match=message):
            place(layer, INTEGERS)


def test_a_bad_initializer_is_named_in_a_stateless_scope():
    """In a process of its own: Keras initializes the variable again in later ones."""
    code = """
import hw3tf, keras, numpy as np
try:
    with keras.StatelessScope():
        hw3tf.layers.IntegerRNN(2, kernel_initializer="glorot_uniform")(
            np.ones((1, 2, 3), "int32"))
except ValueError as error:
    print(error)
"""
    assert "`kernel` must be integers of int32" in run_python(code)
