"""Keras's own attention layers, accelerated, under all their arguments."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from attention_layer_checks import assert_drawn_anew_with_the_mean
from checks import assert_as_close_as_keras

import hw3tf

layers = keras.layers
PADDING = np.arange(6) < np.array([[6], [4]])
NONE_LEFT = np.arange(6) < np.array([[6], [0]])  # the second sequence is empty
LOWER = np.tri(6, dtype=bool)[None]
SQUARE = np.arange(36).reshape(1, 6, 6) % 5 > 1

CALLS = {
    "plain": {},
    "causal": {"use_causal_mask": True},
    "padded": {"masks": PADDING},
    "padded and causal": {"masks": PADDING, "use_causal_mask": True},
    "empty": {"masks": NONE_LEFT},
    "attention mask": {"attention_mask": SQUARE},
    "integer mask": {"attention_mask": SQUARE.astype("int32")},
    "all masks": {"attention_mask": SQUARE, "masks": PADDING, "use_causal_mask": True},
    "scores": {"return_attention_scores": True, "use_causal_mask": True},
    "scores of padded": {"return_attention_scores": True, "masks": PADDING},
}
LAYERS = {
    "heads": (layers.MultiHeadAttention, (4, 5), {"value_dim": 3}),
    "dropout": (layers.MultiHeadAttention, (4, 5), {"dropout": 0.3}),
    "window": (layers.MultiHeadAttention, (2, 4), {"sliding_window": 2}),
    "gate": (layers.MultiHeadAttention, (2, 4), {"use_gate": True}),
    "grouped": (layers.GroupQueryAttention, (5, 4, 2), {}),
    "grouped, dropout": (layers.GroupQueryAttention, (5, 4, 2), {"dropout": 0.3}),
    "one key head": (layers.GroupQueryAttention, (5, 4, 1), {"sliding_window": 2}),
    "no heads": (layers.Attention, (), {"dropout": 0.3}),
    "no heads, scaled": (layers.Attention, (), {"use_scale": True}),
}
# Keras's GroupQueryAttention passes the mask on to its projections, which warn.
pytestmark = pytest.mark.filterwarnings("ignore:.*with a mask attached to it")


def run(layer, x, masks=None, **call):
    """Results and the gradient of the input, with the Keras mask of `masks`."""
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.identity(x)
        if masks is not None:
            y._keras_mask = tf.constant(masks)
        if isinstance(layer, layers.Attention):
            mask = None if masks is None else [tf.constant(masks)] * 2
            results = layer([y, y], mask=mask, **call)
        else:
            results = layer(y, y, **call)
        results = list(results) if isinstance(results, tuple) else [results]
        loss = tf.reduce_sum(results[0] * tf.cos(results[0]))
    results.append(tape.gradient(loss, x))
    return [r.numpy() for r in results] if tf.executing_eagerly() else results


def two_of(make, arguments, options, x):
    """The layer, and one in float64 with the same weights."""
    layer = make(*arguments, **options)
    judge = make(*arguments, **options, dtype="float64")
    for each in (layer, judge):
        run(each, x.astype(each.dtype))
    layer.set_weights([w + 0.1 for w in layer.get_weights()])
    judge.set_weights(layer.get_weights())
    return layer, judge


def results_of(layer, judge, x, **call):
    """Results of the layer in float64, as it is and accelerated, which it stays."""
    exact, stock = run(judge, x.astype("float64"), **call), run(layer, x, **call)
    hw3tf.accelerate(layer)
    return exact, stock, run(layer, x, **call)


@functools.cache  # for all calls
def layers_named(name):
    return two_of(*LAYERS[name], np.ones((2, 6, 8), np.float32))


CASES = [
    (name, call)
    for name in LAYERS
    for call in CALLS
    if not ("no heads" in name and "attention_mask" in CALLS[call])  # it takes none
]


@pytest.mark.parametrize(("name", "call"), CASES)
def test_layer_is_as_close_to_the_exact_result_as_stock(name, call, rng, kernel_calls):
    x = rng.standard_normal((2, 6, 8), np.float32)
    layer, judge = layers_named(name)
    try:
        exact, stock, fused = results_of(layer, judge, x, **CALLS[call])
        restored = hw3tf.restore(layer)
    finally:
        hw3tf.restore(layer)
    # A sequence without keys has weights in `Attention`, which stays Keras's there.
    own = "no heads" in name and call == "empty"
    assert len(kernel_calls) == (0 if own else 1)
    assert not own or all(map(np.array_equal, fused, stock))
    # The gradient of a score is the difference of two sums, each of as many products
    # of two inputs as there are features.
    terms = x.shape[-1] * np.square(x).max()
    assert_as_close_as_keras(fused, exact, stock, f"{name}, {call}", terms)
    assert restored == 1
    assert all(map(np.array_equal, run(layer, x, **CALLS[call]), stock))


@pytest.mark.parametrize("name", ["heads", "dropout", "window", "grouped"])
def test_no_matrix_of_queries_and_keys_is_built(name):
    """Keras builds one of integers for padding and causality together."""
    make, arguments, options = LAYERS[name]
    layer = make(*arguments, **options)
    hw3tf.accelerate(layer)
    padding = np.arange(37) < np.array([[37], [20]])

    @tf.function
    def call(x):
        return run(layer, x, masks=padding, use_causal_mask=True)[-1]

    graph = call.get_concrete_function(tf.TensorSpec((2, 37, 8))).graph
    shapes = [tuple(y.shape) for op in graph.get_operations() for y in op.outputs]
    assert (2, 37, 8) in shapes
    assert not [s for s in shapes if s.count(37) > 1]


def test_subclass_that_looks_at_the_mask_gets_that_of_keras(rng, kernel_calls):
    class Looking(layers.MultiHeadAttention):
        def call(self, query, value, key=None, **kwargs):
            mask = self._compute_attention_mask(query, value, use_causal_mask=True)
            assert mask.shape == (1, 6, 6)
            return super().call(query, value, key, **kwargs)

    layer = Looking(2, 4)
    x = rng.standard_normal((2, 6, 8), np.float32)
    layer(x, x)
    hw3tf.accelerate(layer)
    layer(x, x)
    assert len(kernel_calls) == 1


def test_mask_shared_by_the_batch_is_taken_as_in_keras(rng):
    x = rng.standard_normal((2, 6, 8), np.float32)
    layer = layers.MultiHeadAttention(2, 4)
    stock = layer(x, x, value_mask=PADDING[1:])
    hw3tf.accelerate(layer)
    fused = layer(x, x, value_mask=PADDING[1:])
    np.testing.assert_allclose(fused, stock, atol=1e-6)


def test_scale_of_attention_keeps_its_gradient(rng, kernel_calls):
    x = tf.constant(rng.standard_normal((2, 6, 8), np.float32))
    layer = layers.Attention(use_scale=True)

    def gradient():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer([x, x]) ** 2)
        return tape.gradient(loss, layer.trainable_weights)[0].numpy()

    stock = gradient()
    hw3tf.accelerate(layer)
    # 96 terms of size 1 cancel each other.
    np.testing.assert_allclose(gradient(), stock, rtol=1e-5, atol=1e-5)
    assert kernel_calls


def test_attention_over_one_axis_of_images_equals_stock(rng):
    x = rng.standard_normal((2, 3, 4, 8), np.float32)
    arguments = layers.MultiHeadAttention, (2, 4), {"attention_axes": (2,)}
    exact, stock, fused = results_of(*two_of(*arguments, x), x)
    assert_as_close_as_keras(fused, exact, stock)


DROPPING = {
    "heads": lambda: layers.MultiHeadAttention(2, 4, dropout=0.5, seed=1),
    "grouped": lambda: layers.GroupQueryAttention(4, 4, 2, dropout=0.5, seed=1),
    "no heads": lambda: layers.Attention(dropout=0.5, seed=1),
}


@pytest.mark.parametrize("name", DROPPING)
def test_dropout_in_training_is_drawn_anew_and_keeps_the_mean(name, rng, kernel_calls):
    """The mean over many calls is the output without dropout: each weight is kept
    half the time, doubled."""
    x = rng.standard_normal((1, 6, 8), np.float32)
    layer = DROPPING[name]()
    hw3tf.accelerate(layer)
    kept = run(layer, x, training=False)[0]
    assert_drawn_anew_with_the_mean(lambda x: run(layer, x, training=True)[0], x, kept)
    assert len(kernel_calls) == 21


def test_dropout_of_a_seed_is_the_same_again(rng):
    x = rng.standard_normal((1, 6, 8), np.float32)
    results = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        layer = DROPPING["heads"]()
        hw3tf.accelerate(layer)
        results.append(run(layer, x, training=True)[0])
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_other_dtypes_are_fused(policy, rng, kernel_calls):
    """Against the layer in float64: at most twice the error of stock Keras."""
    x = rng.standard_normal((2, 6, 8))
    judge = layers.MultiHeadAttention(2, 4, dtype="float64")
    expected = judge(x, x, use_causal_mask=True).numpy()
    layer = layers.MultiHeadAttention(2, 4, dtype=policy)
    x = tf.constant(x, layer.compute_dtype)
    layer.build(x.shape, x.shape)
    layer.set_weights(judge.get_weights())
    stock = layer(x, x, use_causal_mask=True)
    hw3tf.accelerate(layer)
    fused = layer(x, x, use_causal_mask=True)
    assert len(kernel_calls) == 1
    assert fused.dtype == stock.dtype

    def error(y):
        return np.abs(tf.cast(y, "float64").numpy() - expected).max()

    assert error(fused) <= 2 * error(stock) + 1e-15


def test_masks_come_and_go_as_in_stock_keras(rng):
    """An explicit query mask is ignored, and a tensor loses its mask to the layer: a
    model with both computes the same when it is accelerated."""
    layer = layers.MultiHeadAttention(2, 4)
    x = tf.constant(rng.standard_normal((2, 6, 8), np.float32))

    def call():
        y = tf.identity(x)
        y._keras_mask = tf.constant(PADDING)
        results = [layer(y, y), layer(y, y), layer(x, x, query_mask=PADDING)]
        return [*(r.numpy() for r in results), getattr(results[0], "_keras_mask", None)]

    stock = call()
    hw3tf.accelerate(layer)
    for got, want in zip(call(), stock, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-6)
    assert np.abs(stock[0] - stock[1]).max() > 1e-3
