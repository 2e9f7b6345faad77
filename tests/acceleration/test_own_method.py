"""Calls that an accelerated layer leaves to its own method: values, gradients, masks,
seeds and errors are as before."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_hub.src.models.gemma.gemma_attention import CachedGemmaAttention
from keras_hub.src.models.gpt_oss.gpt_oss_attention import GptOssAttention
from keras_hub.src.models.llama.llama_attention import LlamaAttention

import hw3tf

layers = keras.layers
ONE, BATCH, QUERIES, KEYS, SIZE = 1, 3, 4, 6, 8
LAYERS = {
    "heads": (layers.MultiHeadAttention, (2, 4), {}),
    "heads, dropout": (layers.MultiHeadAttention, (2, 4), {"dropout": 0.3}),
    "grouped": (layers.GroupQueryAttention, (4, 4, 2), {}),
    "grouped, dropout": (layers.GroupQueryAttention, (4, 4, 2), {"dropout": 0.3}),
}


def build(name):
    make, arguments, options = LAYERS[name]
    layer = make(*arguments, **options)
    layer.build((None, None, SIZE), (None, None, SIZE))
    return layer


def with_gradients(call, *tensors):
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        results = keras.tree.flatten(call(*tensors))
        loss = tf.reduce_sum(results[0] * tf.cos(results[0]))
    grads = tape.gradient(loss, tensors)
    return [*results, *(g for g in grads if g is not None)]  # masks have none


def as_graph(call, *tensors):
    """`call` as a graph in which only the numbers of features are known."""
    specs = [tf.TensorSpec([*[None] * (x.ndim - 1), x.shape[-1]]) for x in tensors]
    return tf.function(call, input_signature=specs)


def assert_equals_own(layer, call, *arrays, in_graph):
    """Results and gradients, before and after `accelerate`: up to rounding."""
    want = with_gradients(call, *map(tf.constant, arrays))
    assert hw3tf.accelerate(layer).num_fused == 1

    def run(*tensors):
        return with_gradients(call, *tensors)

    run = as_graph(run, *arrays) if in_graph else run
    for x, y in zip(run(*map(tf.constant, arrays)), want, strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.fixture(params=[False, True], ids=["eager", "graph"])
def in_graph(request):
    return request.param


SIZES = {"one query": (ONE, BATCH), "one key": (BATCH, ONE), "equal": (BATCH, BATCH)}
CALLS = {
    "plain": {},
    "causal": {"use_causal_mask": True},
    "scores": {"return_attention_scores": True},
    "padded": {"value_mask": np.arange(KEYS) < np.array([[6], [4], [0]])},
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", ["heads, dropout", "grouped, dropout"])
def test_batch_of_one_beside_a_larger_one(name, sizes, call, in_graph, rng):
    """Learned latents, or keys that all sequences share."""
    layer, (of_query, of_keys) = build(name), SIZES[sizes]
    query = rng.standard_normal((of_query, QUERIES, SIZE), np.float32)
    value = rng.standard_normal((of_keys, KEYS, SIZE), np.float32)
    assert_equals_own(
        layer, lambda q, v: layer(q, v, **CALLS[call]), query, value, in_graph=in_graph
    )


@pytest.mark.parametrize("name", ["heads", "grouped"])
def test_scores_of_a_batch_of_one_beside_a_larger_one(name, in_graph, rng):
    layer = build(name)
    query = rng.standard_normal((ONE, QUERIES, SIZE), np.float32)
    value = rng.standard_normal((BATCH, KEYS, SIZE), np.float32)

    def call(q, v):
        return layer(q, v, return_attention_scores=True)

    assert_equals_own(layer, call, query, value, in_graph=in_graph)


@pytest.mark.parametrize(
    "shapes",
    [
        ((ONE, QUERIES, SIZE), (BATCH, KEYS, SIZE)),
        ((BATCH, QUERIES, SIZE), (ONE, KEYS, SIZE)),
        ((BATCH, QUERIES, SIZE), (KEYS, SIZE)),
    ],
)
@pytest.mark.parametrize("causal", [False, True])
def test_attention_takes_what_a_product_of_matrices_takes(
    shapes, causal, in_graph, rng
):
    layer = layers.Attention(use_scale=True)
    arrays = [rng.standard_normal(s, np.float32) for s in shapes]
    layer.build(list(shapes))

    def call(q, v):
        return layer([q, v], use_causal_mask=causal)

    assert_equals_own(layer, call, *arrays, in_graph=in_graph)


@pytest.mark.parametrize("size", [ONE, BATCH])
def test_masks_may_be_lists(size, rng):
    x = rng.standard_normal((size, KEYS, SIZE), np.float32)
    mask = [[True] * 4 + [False] * 2] * size
    layer = layers.Attention()
    assert_equals_own(
        layer, lambda x: layer([x, x], mask=[mask, mask]), x, in_graph=False
    )
    for name in ("heads", "grouped"):
        layer = build(name)

        def call(x, layer=layer):
            return layer(x, x, value_mask=mask, attention_mask=[[mask[0]] * KEYS])

        assert_equals_own(layer, call, x, in_graph=False)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["heads", "grouped"])
def test_mask_longer_than_the_query(name, causal, in_graph, rng):
    """One query, and a mask for each of four results."""
    layer = build(name)
    query = rng.standard_normal((BATCH, 1, SIZE), np.float32)
    value = rng.standard_normal((BATCH, KEYS, SIZE), np.float32)
    mask = (rng.random((BATCH, QUERIES, KEYS)) < 0.6).astype("float32")

    def call(q, v, mask):
        return layer(q, v, attention_mask=mask > 0, use_causal_mask=causal)

    assert_equals_own(layer, call, query, value, mask, in_graph=in_graph)


@pytest.mark.parametrize("name", LAYERS)
def test_no_keys_at_all(name, in_graph, rng):
    layer = build(name)
    query = rng.standard_normal((BATCH, QUERIES, SIZE), np.float32)
    value = np.zeros((BATCH, 0, SIZE), np.float32)
    assert_equals_own(layer, lambda q, v: layer(q, v), query, value, in_graph=in_graph)


@pytest.mark.parametrize("name", LAYERS)
def test_nothing_happens_before_the_layer_itself_runs(name, rng, caplog):
    """The masks are wrong: the error is Keras's, no seed was drawn, and the tensors
    are as the layer leaves them."""

    def attempt(layer):
        x = tf.constant(rng.standard_normal((BATCH, KEYS, SIZE), np.float32))
        x._keras_mask = tf.ones((BATCH, KEYS), "bool")
        with pytest.raises((ValueError, tf.errors.OpError)) as caught:
            layer(x, x, attention_mask=np.ones((2, 5, 5), bool), training=True)
        return type(caught.value), hasattr(x, "_keras_mask") and x._keras_mask is None

    layer = build(name)
    want = attempt(layer)
    hw3tf.accelerate(layer)
    dropout = layer._dropout_layer
    before = np.array(dropout.seed_generator.state) if dropout.rate else None
    with caplog.at_level(logging.DEBUG, "hw3tf"):
        assert attempt(layer) == want
    assert "runs as in Keras: `attention_mask` must have the shape" in caplog.text
    if before is not None:
        np.testing.assert_array_equal(dropout.seed_generator.state, before)


@pytest.mark.parametrize("name", ["heads, dropout", "grouped, dropout"])
def test_one_seed_is_drawn_where_the_layer_itself_runs(name, rng):
    layer = build(name)
    hw3tf.accelerate(layer)
    layer._tracker.unlock()
    layer._softmax = layers.Softmax(axis=-1, dtype="float64")
    before = np.array(layer._dropout_layer.seed_generator.state)
    x = rng.standard_normal((BATCH, KEYS, SIZE), np.float32)
    layer(x, x, training=True)
    after = np.array(layer._dropout_layer.seed_generator.state)
    assert (after - before).tolist() == [0, 1]


def perceiver():
    """Two latents, learned, that look at the sequences of a batch."""
    x = keras.Input((None, SIZE))
    latents = layers.Embedding(2, SIZE)(keras.ops.zeros((1, 2), "int32") + [[0, 1]])
    y = layers.MultiHeadAttention(2, 4, dropout=0.1)(latents, x)
    return keras.Model(x, layers.Dense(1)(y[:, 0]))


def test_model_of_latents_trains_predicts_and_is_saved_as_stock(rng, tmp_path):
    x = rng.standard_normal((5, KEYS, SIZE), np.float32)
    y = np.ones((5, 1), np.float32)
    model = perceiver()
    model.compile("sgd", "mse")
    want = model.predict(x, batch_size=2, verbose=0)
    loss = model.evaluate(x, y, batch_size=2, verbose=0)
    assert want.shape == (5, 1)
    hw3tf.accelerate(model)
    got = model.predict(x, batch_size=2, verbose=0)
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_allclose(
        model.evaluate(x, y, batch_size=2, verbose=0), loss, rtol=1e-5
    )
    model.fit(x, y, batch_size=2, epochs=2, verbose=0)
    assert model.evaluate(x, y, batch_size=2, verbose=0) < loss
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    want = loaded.predict(x, batch_size=2, verbose=0)
    hw3tf.accelerate(loaded)
    np.testing.assert_allclose(
        loaded.predict(x, batch_size=2, verbose=0), want, atol=1e-5
    )


WIDE = np.random.default_rng(4).standard_normal((2, 6, 16)).astype("float32")
LOWER = np.tile(np.tri(6, dtype=bool), (2, 1, 1))
GROUPS = {"num_query_heads": 4, "num_key_value_heads": 2}


def test_layer_of_keras_hub_computes_what_the_kernel_refuses(kernel_calls, caplog):
    """A negative soft cap is the positive one; the kernel takes only that."""
    layer = CachedGemmaAttention(**GROUPS, head_dim=4, logit_soft_cap=-2.0)
    want = layer(WIDE, attention_mask=LOWER)
    assert hw3tf.accelerate(layer).num_fused == 1
    with caplog.at_level(logging.DEBUG, "hw3tf"):
        np.testing.assert_array_equal(layer(WIDE, attention_mask=LOWER), want)
    assert "runs as in Keras: `attn_logits_soft_cap` must be" in caplog.text
    assert not kernel_calls


def test_layer_of_keras_hub_itself_gets_its_repeated_key_heads(kernel_calls):
    layer = LlamaAttention(**GROUPS)
    layer(WIDE, attention_mask=LOWER)
    hw3tf.accelerate(layer)
    layer._tracker.unlock()
    layer._softmax = layers.Softmax(axis=-2, dtype="float32")
    got = layer(WIDE, attention_mask=LOWER)
    hw3tf.restore(layer)
    np.testing.assert_array_equal(got, layer(WIDE, attention_mask=LOWER))
    assert not kernel_calls


@pytest.mark.parametrize("make", [GptOssAttention, LlamaAttention])
def test_no_infinity_where_a_query_sees_no_key(make, kernel_calls):
    layer = make(**GROUPS)
    layer(WIDE, attention_mask=LOWER)
    hw3tf.accelerate(layer)
    tf.debugging.enable_check_numerics()
    try:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(
                layer(WIDE, attention_mask=LOWER & (WIDE[:, :, :1] > 0))
            )
        gradients = tape.gradient(loss, layer.trainable_variables)
    finally:
        tf.debugging.disable_check_numerics()
    assert len(kernel_calls) == 1
    assert all(np.isfinite(g).all() for g in gradients if g is not None)
