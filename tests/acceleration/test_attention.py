"""`keras.layers.Attention` and other layers that subtract a number from the scores of
masked keys: accelerated ones equal the layer, even where such keys have weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from checks import assert_as_close_as_keras
from keras_hub.src.models.video_prism.video_prism_layers import VideoPrismAttention

import hw3tf

LENGTH = 6
PADDING = np.arange(LENGTH) < np.array([[6], [4]])
EMPTY = np.arange(LENGTH) < np.array([[6], [0]])
LATER = np.arange(LENGTH) >= np.array([[0], [2]])  # causal: queries 0, 1 see no key

# name: mask of the values, causality, factor of the inputs, whether masked keys have
# no weight
CASES = {
    "causal": (None, True, 1.0, True),
    "padded": (PADDING, False, 1.0, True),
    "padded, causal": (PADDING, True, 1.0, True),
    "none left": (EMPTY, False, 1.0, False),
    "none left, causal": (EMPTY, True, 1.0, False),
    "first queries": (LATER, True, 1.0, False),
    "first keys": (LATER, False, 1.0, True),
    "large, masked": (PADDING, False, 2e4, False),
    "large, causal": (None, True, 2e4, False),
}


def run(layer, x, value_mask, causal, **call):
    """The output and the gradients of query and value."""
    x = tf.cast(x, layer.compute_dtype)
    y = tf.identity(x)
    with tf.GradientTape() as tape:
        tape.watch([x, y])
        mask = None if value_mask is None else [None, value_mask]
        output = layer([x, y], mask=mask, use_causal_mask=causal, **call)
        loss = tf.reduce_sum(output * tf.cos(output))
    return [output, *tape.gradient(loss, [x, y])]


def made(dtype):
    layer = keras.layers.Attention(use_scale=True, dtype=dtype)
    layer([np.ones((1, 2, 3))] * 2)
    layer.scale.assign(0.8)
    return layer


def largest_difference(got, want):
    return max(np.abs(np.subtract(x, y)).max() for x, y in zip(got, want, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
def test_attention_equals_the_layer(case, dtype, rng, kernel_calls):
    value_mask, causal, factor, fused = CASES[case]
    if dtype == "float16" and factor > 1:
        factor = 60.0  # scores of 3e4, where 65504 is subtracted
    x = factor * rng.standard_normal((2, LENGTH, 8))
    layer = made(dtype)
    want = run(layer, x, value_mask, causal)
    hw3tf.accelerate(layer)
    got = run(layer, x, value_mask, causal)
    assert len(kernel_calls) == fused
    if not fused:
        assert all(map(np.array_equal, got, want))
        return
    judge = made("float64")
    judge.scale.assign(layer.scale)
    exact = run(judge, tf.cast(x, dtype), value_mask, causal)
    # The gradient of a score is the difference of two sums of 8 products of inputs.
    results = ([np.asarray(y, "float64") for y in ys] for ys in (got, exact, want))
    assert_as_close_as_keras(*results, case, 8 * np.square(x).max())


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("case", ["padded, causal", "first queries", "large, masked"])
def test_attention_in_a_graph_equals_the_layer(case, jit_compile, rng):
    """One graph of unknown batch for both: its inputs decide. Under XLA the layer
    computes by itself."""
    value_mask, causal, factor, _ = CASES[case]
    x = factor * rng.standard_normal((2, LENGTH, 8))
    layer = made("float64")
    want = run(layer, x, value_mask, causal)
    hw3tf.accelerate(layer)
    specs = (
        tf.TensorSpec((None, LENGTH, 8), "float64"),
        tf.TensorSpec((None, LENGTH), "bool"),
    )
    graph = tf.function(
        lambda x, mask: run(layer, x, mask, causal),
        input_signature=specs,
        jit_compile=jit_compile,
    )
    got = graph(x, PADDING if value_mask is None else value_mask)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def attention_model(dropout=0.0):
    ids = keras.Input((LENGTH,), dtype="int32")
    x = keras.layers.Embedding(13, 8, mask_zero=True)(ids)
    x = keras.layers.Attention(dropout=dropout, seed=1)([x, x], use_causal_mask=True)
    return keras.Model(ids, keras.layers.Dense(1)(x)[:, -1])


IDS = np.array([[1, 2, 3, 4, 5, 6], [7, 8, 9, 0, 0, 0], [0, 0, 1, 2, 3, 4]])


def test_model_trains_predicts_saves_and_exports_as_stock(tmp_path):
    model, stock = attention_model(), attention_model()
    stock.set_weights(model.get_weights())
    hw3tf.accelerate(model)
    for each in (model, stock):
        each.compile("sgd", "mse")
    losses = [
        each.fit(IDS, np.ones((3, 1)), epochs=3, batch_size=2, shuffle=False, verbose=0)
        for each in (model, stock)
    ]
    np.testing.assert_allclose(*(x.history["loss"] for x in losses), rtol=1e-5)
    want = stock.predict(IDS, verbose=0)
    np.testing.assert_allclose(model.predict(IDS, verbose=0), want, rtol=1e-4)
    np.testing.assert_allclose(
        *(x.evaluate(IDS, np.ones((3, 1)), verbose=0) for x in (model, stock)),
        rtol=1e-4,
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(IDS, verbose=0), want, rtol=1e-4)
    model.export(tmp_path / "model", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "model"))
    got = served.serve(tf.constant(IDS, tf.int32))
    np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.parametrize("ids", [IDS[:2], IDS[1:]], ids=["fused", "own"])
@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "graph"])
def test_one_seed_is_drawn_whoever_computes(ids, in_graph):
    model = attention_model(dropout=0.5)
    layer = next(x for x in model.layers if isinstance(x, keras.layers.Attention))
    hw3tf.accelerate(model)
    call = tf.function(model) if in_graph else model
    before = np.array(layer.seed_generator.state)
    call(tf.constant(ids), training=True)
    assert (np.array(layer.seed_generator.state) - before).tolist() == [0, 1]


def test_stateless_call_in_a_graph_returns_the_new_seed(rng):
    x = rng.standard_normal((2, LENGTH, 8)).astype("float32")
    layer = keras.layers.Attention(dropout=0.5, seed=1)
    layer.build([x.shape, x.shape])
    hw3tf.accelerate(layer)

    @tf.function
    def call(x):
        return layer.stateless_call(
            [],
            layer.non_trainable_variables,
            [x, x],
            training=True,
            use_causal_mask=True,
        )

    _, (seed,) = call(tf.constant(x))
    assert (np.array(seed) - np.array(layer.seed_generator.state)).tolist() == [0, 1]


MASKS = {"keys": PADDING, "none left": EMPTY, "all": np.tile(np.tri(6), (2, 1, 1))}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("factor", [1.0, 2e4])
def test_video_prism_equals_the_layer(name, factor, rng, kernel_calls):
    layer = VideoPrismAttention(num_heads=2, key_dim=4, hidden_dim=8)
    x = tf.constant(factor * rng.standard_normal((2, LENGTH, 8)), "float32")

    def results():
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = layer(x, x, attention_mask=MASKS[name])
            loss = tf.reduce_sum(output * tf.cos(output / factor))
        return [output / factor, tape.gradient(loss, x) / factor]

    want = results()
    hw3tf.accelerate(layer)
    got = results()
    fused = factor == 1.0 and name != "none left"
    assert len(kernel_calls) == fused
    # Sums over 6 positions of terms of size 10.
    tolerance = 1e-4 if fused else 0.0
    assert largest_difference(got, want) <= tolerance
