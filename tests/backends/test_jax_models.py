"""Keras models on JAX: layers, `accelerate`, `enable`, training, files."""

import keras
import numpy as np
import pytest
from acceleration_checks import check_generation
from jax_checks import numpy

import hw3tf

LENGTH, FEATURES = 12, 8


def model_of(attention, recurrent, dropout=0.0):
    ids = keras.Input((LENGTH,), dtype="int32")
    x = keras.layers.Embedding(20, FEATURES, mask_zero=True)(ids)
    x = x + attention(2, 4, dropout=dropout)(x, x, use_causal_mask=True)
    x = keras.layers.Bidirectional(recurrent(6, return_sequences=True))(x)
    x = recurrent(5)(x)
    return keras.Model(ids, keras.layers.Dense(1)(x))


def stock_model(**options):
    return model_of(keras.layers.MultiHeadAttention, keras.layers.LSTM, **options)


@pytest.fixture
def data(rng):
    ids = rng.integers(1, 20, (16, LENGTH))
    ids[:, 9:] = 0
    return ids, (ids.sum(axis=1, keepdims=True) % 7).astype("float32")


def test_accelerated_models_are_the_same(data, rng):
    model = stock_model()
    want = model.predict(data[0], verbose=0)
    report = hw3tf.accelerate(model)
    assert report.num_fused == len(report.layers) == 4, report
    np.testing.assert_allclose(
        model.predict(data[0], verbose=0), want, rtol=0, atol=1e-5
    )
    hw3tf.restore(model)
    np.testing.assert_array_equal(model.predict(data[0], verbose=0), want)


def losses_of(model, data):
    model.compile(keras.optimizers.Adam(0.01), "mse")
    fitted = model.fit(*data, epochs=4, batch_size=8, shuffle=False, verbose=0)
    return fitted.history["loss"]


def test_measured_before_and_after(data):
    model = stock_model()
    found = hw3tf.accelerate(model).measure(data[0], 0)
    assert [layer.calls for layer in found.layers] == [1] * 4
    assert min(found.stock, found.accelerated) > 0


def test_generation_updates_its_cache_in_place():
    note = "In `generate`, the cache of keys and values is updated in place."
    check_generation([note])


def test_fit_is_that_of_keras(data):
    model, twin = stock_model(), stock_model()
    twin.set_weights(model.get_weights())
    hw3tf.accelerate(model)
    losses = losses_of(model, data)
    assert losses[-1] < losses[0]
    # Sums in another order, through 8 steps of Adam.
    np.testing.assert_allclose(losses, losses_of(twin, data), rtol=1e-3)


def test_fit_with_dropout_in_mixed_precision(data, kernel_calls):
    """Dropout draws other weights than in Keras: the model learns."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = stock_model(dropout=0.2)
    finally:
        keras.config.set_dtype_policy("float32")
    hw3tf.accelerate(model)
    losses = losses_of(model, data)
    assert losses[-1] < losses[0]
    seeds = [call[3].dropout_seed for call in kernel_calls]
    assert any(seed is not None for seed in seeds)


def test_layers_are_saved_and_loaded(data, tmp_path):
    model = model_of(hw3tf.layers.MultiHeadAttention, hw3tf.layers.GRU)
    want = model.predict(data[0], verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(data[0], verbose=0), want)


def test_enable_puts_the_function_of_keras_on_the_kernel(rng, kernel_calls):
    query, key, value = rng.standard_normal((3, 2, 9, 4, 8)).astype("float32")
    want = keras.ops.dot_product_attention(query, key, value, is_causal=True)
    assert not kernel_calls
    with hw3tf.enable():
        got = keras.ops.dot_product_attention(query, key, value, is_causal=True)
    assert [call[0] for call in kernel_calls] == ["ffi"]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, LENGTH, FEATURES), (2, 3, 5, FEATURES)])
def test_attention_layers_are_those_of_keras(shape, rng, kernel_calls):
    x = rng.standard_normal(shape).astype("float32")
    names = ["MultiHeadAttention"]
    names += ["GroupQueryAttention"] * (len(shape) == 3)
    for name in names:
        args = (2, 4) if name == "MultiHeadAttention" else (4, 4, 2)
        stock, ours = (
            getattr(module, name)(*args) for module in (keras.layers, hw3tf.layers)
        )
        want, scores = stock(x, x, return_attention_scores=True)
        ours.build(x.shape, x.shape)
        ours.set_weights(stock.get_weights())
        got, got_scores = ours(x, x, return_attention_scores=True)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
        np.testing.assert_allclose(got_scores, scores, rtol=0, atol=1e-6)
    assert {call[0] for call in kernel_calls} == {"ffi"}


def test_functional_models(rng):
    x = keras.Input((9, 2, 4))
    y = hw3tf.ops.dot_product_attention(x, x, x, is_causal=True)
    model = keras.Model(x, y)
    data = rng.standard_normal((3, 9, 2, 4)).astype("float32")
    want = hw3tf.reference.dot_product_attention(data, data, data, is_causal=True)
    np.testing.assert_allclose(numpy(model(data)), want, rtol=0, atol=1e-6)
