"""Errors of the attention layers name the argument that the caller gave."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import hw3tf

LAYERS = {
    "heads": lambda: hw3tf.layers.MultiHeadAttention(2, 4),
    "grouped": lambda: hw3tf.layers.GroupQueryAttention(4, 2, 1),
}
X = np.ones((2, 6, 8), "float32")
Y = np.ones((2, 5, 8), "float32")


def mask(*shape):
    return np.ones(shape, bool)


WRONG = {
    "value_mask": (Y, {"value_mask": mask(2, 6)}, "the shape (2, 5), or 1"),
    "key_mask": (Y, {"key": Y, "key_mask": mask(2, 6)}, "the shape (2, 5), or 1"),
    "query_mask": (Y, {"query_mask": mask(2, 5)}, "the shape (2, 6), or 1"),
    "attention_mask": (Y, {"attention_mask": mask(2, 6, 6)}, "the shape (2, 6, 5)"),
    "value": (
        np.ones((3, 5, 8), "float32"),
        {},
        "the shape of `query` in the axes (0,)",
    ),
    "key": (Y, {"key": X}, "the shape of `value` in the axes (0, 1)"),
}


@pytest.fixture(params=LAYERS)
def layer(request):
    layer = LAYERS[request.param]()
    layer.build((None, None, 8), (None, None, 8))
    return layer


@pytest.mark.parametrize("name", WRONG)
def test_wrong_shape_is_reported_under_its_own_name(name, layer):
    value, call, wanted = WRONG[name]
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        layer(X, value, **call)
    assert f"`{name}` must have {wanted}" in str(caught.value)


@pytest.mark.parametrize("name", ["value_mask", "key_mask", "attention_mask"])
def test_both_masks_of_keys_and_lists_are_told_apart(name, layer):
    given = {"value_mask": [[True] * 5] * 2, "key_mask": mask(1, 5)}
    layer(X, Y, key=Y, **given)
    given[name] = np.ones((2, 6, 7)[: 3 if name == "attention_mask" else 2], bool)
    with pytest.raises(ValueError, match=f"`{name}` must have the shape"):
        layer(X, Y, key=Y, **given)


RAGGED = tf.RaggedTensor.from_row_lengths(tf.ones((7, 8)), [4, 3])
RAGGED_MASK = tf.ragged.constant([[True, True], [True]])
RAGGED_CALLS = {
    "query": {"query": RAGGED, "value": X},
    "value": {"query": X, "value": RAGGED},
    "value_mask": {"query": X, "value": X, "value_mask": RAGGED_MASK},
    "attention_mask": {"query": X, "value": X, "attention_mask": RAGGED_MASK},
}


def accelerated():
    layer = keras.layers.MultiHeadAttention(2, 4)
    hw3tf.accelerate(layer)
    return layer


@pytest.mark.parametrize("make", [*LAYERS.values(), accelerated])
@pytest.mark.parametrize("name", RAGGED_CALLS)
def test_ragged_tensor_is_named_with_the_function_that_takes_it(name, make):
    layer = make()
    layer.build((None, None, 8), (None, None, 8))
    message = f"`{name}` must be a dense tensor.*hw3tf.ops.ragged_dot_product_attention"
    with pytest.raises(ValueError, match=message):
        layer(**RAGGED_CALLS[name])


def test_ragged_tensor_in_attention_without_heads_is_named():
    layer = keras.layers.Attention()
    layer.build([X.shape] * 2)
    hw3tf.accelerate(layer)
    for name, call in {
        "query": {"inputs": [RAGGED, X]},
        "value_mask": {"inputs": [X, X], "mask": [None, RAGGED_MASK]},
    }.items():
        with pytest.raises(ValueError, match=f"`{name}` must be a dense tensor"):
            layer(**call)


DENSE = tf.ones((2, 4, 2, 8))
OF_HEADS = tf.RaggedTensor.from_row_lengths(tf.ones((7, 2, 8)), [4, 3])


@pytest.mark.parametrize(
    ("name", "ragged"),
    [
        ("query", OF_HEADS),
        ("key", OF_HEADS),
        ("value", OF_HEADS),
        ("bias", RAGGED),
        ("mask", RAGGED_MASK),
        ("key_mask", RAGGED_MASK),
        ("key_lengths", tf.ragged.constant([[1], [2, 3]])),
    ],
)
def test_ragged_tensor_in_the_function_is_named(name, ragged):
    call = {"query": DENSE, "key": DENSE, "value": DENSE, name: ragged}
    message = f"`{name}` must be a dense tensor.*ragged_dot_product_attention"
    with pytest.raises(ValueError, match=message):
        hw3tf.ops.dot_product_attention(**call)
