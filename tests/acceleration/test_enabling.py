"""`enable` and `disable`: Keras's own function, with Keras's own results."""

import threading

import keras
import keras.src.ops.nn
import numpy as np
import pytest
import tensorflow as tf
from checks import (
    assert_as_close_as_keras,
    exact,
    keras_float32,
    make_inputs,
    with_gradients,
)

import hw3tf
from hw3tf.acceleration import enabling
from hw3tf.ops import paths

BACKEND = keras.src.backend.nn
STOCK = BACKEND.dot_product_attention


@pytest.fixture(autouse=True)
def _stock_again():
    yield
    hw3tf.disable()
    assert BACKEND.dot_product_attention is STOCK


@pytest.fixture
def x(rng):
    return rng.standard_normal((2, 7, 4, 8), np.float32)


NAMES = {
    "keras.ops": lambda: keras.ops.dot_product_attention,
    "keras.ops.nn": lambda: keras.ops.nn.dot_product_attention,
    "keras.src.ops.nn": lambda: keras.src.ops.nn.dot_product_attention,
}


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_function_reaches_the_kernel(name, x, kernel_calls):
    function = NAMES[name]()  # taken before, as by code that has imported it
    with hw3tf.enable():
        function(x, x, x)
        function(x, x, x, flash_attention=True)
        assert len(kernel_calls) == 2
    function(x, x, x)
    assert len(kernel_calls) == 2


def test_stock_layer_and_functional_model_reach_the_kernel(kernel_calls):
    q = keras.Input((7, 4, 8))
    model = keras.Model(q, keras.ops.dot_product_attention(q, q, q))
    layer = keras.layers.MultiHeadAttention(4, 8)
    x = np.ones((2, 7, 32), "float32")
    layer(x, x)
    with hw3tf.enable():
        model(x.reshape(2, 7, 4, 8))
        layer(x, x)
    assert len(kernel_calls) == 2


MASK = np.tri(7, dtype=bool) & (np.arange(7) != 2)
OPTIONS = {
    "plain": {},
    "causal": {"is_causal": True},
    "masked": {"mask": MASK},
    "mask of keys": {"mask": np.arange(7) < np.array([7, 4]).reshape(2, 1, 1, 1)},
    "rows that see nothing": {"mask": np.arange(7)[:, None] > 3},
    "mask of heads": {"mask": np.arange(4)[:, None, None] != np.arange(7)},
    "causal and masked": {"is_causal": True, "mask": MASK},
    "biased": {"bias": np.linspace(-2, 2, 49, dtype="float32").reshape(7, 7)},
    "scaled": {"scale": 0.7},
    "all": {"scale": 0.7, "is_causal": True, "mask": MASK, "bias": MASK * 1.0},
}


@pytest.mark.parametrize("heads", [4, 2], ids=["heads", "grouped"])
@pytest.mark.parametrize("name", OPTIONS)
def test_results_and_gradients_are_those_of_keras(name, heads, rng, kernel_calls):
    inputs = make_inputs(rng, 2, 7, 7, 4, heads, 8, 8)
    options = OPTIONS[name]
    judge, stock = exact(*inputs, **options), keras_float32(*inputs, **options)
    with hw3tf.enable():
        got = with_gradients(keras.ops.dot_product_attention, *inputs, **options)
    assert len(kernel_calls) == 1
    assert_as_close_as_keras(got, judge, stock)


def test_nan_that_is_seen_gives_nan(x):
    y = x.copy()
    y[0, 5] = np.nan
    stock = keras.ops.dot_product_attention(x, y, x, is_causal=True)
    with hw3tf.enable():
        fused = keras.ops.dot_product_attention(x, y, x, is_causal=True)
    assert np.isnan(stock[0, 5:]).all()
    np.testing.assert_array_equal(np.isnan(fused), np.isnan(stock))


def test_single_key_head_works_where_keras_refuses_it(x, kernel_calls):
    key = x[:, :, :1]
    with pytest.raises(tf.errors.InvalidArgumentError):
        keras.ops.dot_product_attention(x, key, key)
    with hw3tf.enable():
        got = keras.ops.dot_product_attention(x, key, key)
    repeated = np.repeat(key, 4, axis=2)
    np.testing.assert_allclose(
        got, keras.ops.dot_product_attention(x, repeated, repeated), atol=1e-6
    )
    assert len(kernel_calls) == 1


STAYS = {
    "flash_attention=False": {"flash_attention": False},
    "tensor as scale": {"scale": tf.constant(0.5)},
}


@pytest.mark.parametrize("name", STAYS)
def test_call_that_is_not_for_the_kernel_stays_in_keras(name, x, kernel_calls):
    stock = keras.ops.dot_product_attention(x, x, x, **STAYS[name])
    with hw3tf.enable():
        got = keras.ops.dot_product_attention(x, x, x, **STAYS[name])
    np.testing.assert_array_equal(got, stock)
    assert not kernel_calls


def test_errors_are_those_of_keras(x):
    def message(call):
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError)) as error:
            call()
        return type(error.value), str(error.value)

    def of_rank_3():
        return keras.ops.dot_product_attention(x[0], x[0], x[0])

    def lengths_differ():
        return keras.ops.dot_product_attention(x, x[:, :5], x)

    for call in (of_rank_3, lengths_differ):
        stock = message(call)
        with hw3tf.enable():
            assert message(call) == stock


def test_where_the_kernel_cannot_serve_keras_does(x, kernel_calls, monkeypatch):
    monkeypatch.delenv("HW3TF_PATH", raising=False)
    stock = keras.ops.dot_product_attention(x, x, x)
    monkeypatch.setattr(paths, "_gpu_visible", lambda: True)
    with hw3tf.enable():
        got = keras.ops.dot_product_attention(x, x, x)
    np.testing.assert_array_equal(got, stock)
    assert not kernel_calls


def test_other_backends_are_left_alone(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    with hw3tf.enable():
        assert BACKEND.dot_product_attention is STOCK


def test_enable_is_idempotent_and_disable_takes_all_back(x, kernel_calls):
    hw3tf.enable()
    hw3tf.enable()
    with hw3tf.enable():  # enabled before, so it stays
        pass
    keras.ops.dot_product_attention(x, x, x)
    assert len(kernel_calls) == 1
    hw3tf.disable()
    assert BACKEND.dot_product_attention is STOCK
    hw3tf.disable()


def test_error_inside_with_disables(x):
    with pytest.raises(KeyError), hw3tf.enable():
        raise KeyError
    assert BACKEND.dot_product_attention is STOCK


def test_replacement_by_other_code_survives(x, monkeypatch, kernel_calls, caplog):
    hw3tf.enable()
    ours = BACKEND.dot_product_attention
    monkeypatch.setattr(
        BACKEND, "dot_product_attention", lambda *a, **k: ours(*a, **k) + 1
    )
    theirs = BACKEND.dot_product_attention
    hw3tf.disable()
    assert "was replaced after" in caplog.text
    assert BACKEND.dot_product_attention is theirs
    got = keras.ops.dot_product_attention(x, x, x)
    assert not kernel_calls  # ours, inside theirs, is Keras's again
    monkeypatch.undo()
    BACKEND.dot_product_attention = STOCK
    np.testing.assert_array_equal(got, keras.ops.dot_product_attention(x, x, x) + 1)


def test_scope_of_a_layer_is_that_of_its_thread(x, kernel_calls):
    """Accelerated layers that call Keras's function open it for themselves only."""

    def elsewhere():
        keras.ops.dot_product_attention(x, x, x)

    with enabling.fused_scope():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert not kernel_calls
        keras.ops.dot_product_attention(x, x, x)
    assert len(kernel_calls) == 1


def test_graph_keeps_the_path_of_its_trace(x, kernel_calls):
    @tf.function
    def attend(x):
        return keras.ops.dot_product_attention(x, x, x)

    with hw3tf.enable():
        fused = attend(x)
    assert len(kernel_calls) == 1
    np.testing.assert_array_equal(attend(x), fused)
