"""Layers with another softmax, dropout, scale or method than Keras gave them. They stay
as they are, accelerated or as subclasses of ours, and the report says why."""

import functools
import logging

import keras
import numpy as np
import pytest
from keras_hub.src.models.gemma.gemma_attention import CachedGemmaAttention
from keras_hub.src.models.llama.llama_attention import LlamaAttention
from keras_hub.src.models.t5.t5_multi_head_attention import T5MultiHeadAttention

import hw3tf

layers = keras.layers
X = np.random.default_rng(3).standard_normal((2, 6, 8)).astype("float32")


class Sharp(layers.Softmax):
    def call(self, inputs, mask=None):
        return super().call(3.0 * inputs, mask)


class Halving(layers.Dropout):
    def call(self, inputs, training=False):
        return inputs / 2


def other_axis(layer):
    layer._softmax = layers.Softmax(axis=-2)


def other_softmax(layer):
    layer._softmax = Sharp()


def other_dtype(layer):
    layer._softmax = layers.Softmax(dtype="float16")


def regularized(layer):
    layer._softmax = layers.Softmax(activity_regularizer="l2")


def call_of_the_object(layer):
    call = layer._softmax.call
    layer._softmax.call = lambda inputs, mask=None: call(3.0 * inputs, mask)


def other_dropout(layer):
    layer._dropout_layer = Halving(0.3)


def shared_noise(layer):
    layer._dropout_layer = layers.Dropout(0.3, noise_shape=(None, 1, 1, 1))


def learned_scale(layer):
    scale = layer.add_weight(shape=(), initializer=lambda *a, **k: 0.9)
    name = "_inverse_sqrt_key_dim"
    name = name if hasattr(layer, name) else "_inverse_sqrt_head_dim"
    setattr(layer, name, scale)


def other_equation(layer):
    layer._combine_equation = (
        layer._combine_equation[:3]
        + "t,"
        + (layer._combine_equation[5:].replace(layer._combine_equation[3], "t"))
    )


MAKES = {
    "heads": (layers.MultiHeadAttention, (2, 4)),
    "grouped": (layers.GroupQueryAttention, (4, 2, 1)),
}
OURS = {
    layers.MultiHeadAttention: hw3tf.layers.MultiHeadAttention,
    layers.GroupQueryAttention: hw3tf.layers.GroupQueryAttention,
}


def softmax_and_dropout(layer):
    layer._softmax, layer._dropout_layer = layers.Softmax(), layers.Dropout(0.5)


def function_as_softmax(layer):
    layer._softmax = lambda scores, mask=None: keras.ops.softmax(3.0 * scores)


CHANGES = {
    other_axis: "`_softmax` runs over the axis -2",
    other_softmax: "`_softmax` is of type Sharp, not Softmax",
    other_dtype: "`_softmax` is of dtype float16, not float32",
    regularized: "`_softmax` has an activity regularizer",
    call_of_the_object: "`_softmax`: the layer has a `call` of its own",
    other_dropout: "`_dropout_layer` is of type Halving, not Dropout",
    shared_noise: "`_dropout_layer` has a `noise_shape`",
    learned_scale: "is no number, but of type Variable",
    function_as_softmax: "`_softmax` is of type function, not Softmax",
    other_equation: "`_combine_equation` is",
}


def change_built(layer, change):
    """Keras refuses new weights and layers in a layer that is built, not functions."""
    layer._tracker.unlock()
    change(layer)
    layer._tracker.lock()


def changed_in_build(cls, change):
    """A subclass that changes what its build has made."""

    class Changed(cls):
        def build(self, query_shape, value_shape, key_shape=None):
            super().build(query_shape, value_shape, key_shape)
            change(self)

    return Changed


@pytest.fixture(params=MAKES)
def make(request):
    return MAKES[request.param]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_layer_stays_and_the_report_says_why(make, change, kernel_calls):
    cls, arguments = make
    layer = changed_in_build(cls, change)(*arguments, dropout=0.3, seed=1)
    want = layer(X, X, use_causal_mask=True)
    (line,) = [x for x in hw3tf.accelerate(layer).layers if "built" not in x.reason]
    assert not line.fused
    assert CHANGES[change] in line.reason
    np.testing.assert_array_equal(layer(X, X, use_causal_mask=True), want)
    assert not kernel_calls


@pytest.mark.parametrize("change", CHANGES)
def test_layer_of_ours_that_is_changed_computes_as_that_of_keras(
    make, change, kernel_calls
):
    cls, arguments = make
    made = [
        changed_in_build(x, change)(*arguments, dropout=0.3) for x in (OURS[cls], cls)
    ]
    for layer in made:
        layer.build(X.shape, X.shape)
    made[0].set_weights(made[1].get_weights())
    got, want = (layer(X, X, use_causal_mask=True) for layer in made)
    np.testing.assert_array_equal(got, want)
    assert not kernel_calls
    line = hw3tf.accelerate(made[0]).layers[0]
    assert not line.fused
    assert CHANGES[change] in line.reason


@pytest.mark.parametrize("change", [other_softmax, other_dropout, learned_scale])
def test_change_after_accelerate_is_seen_by_the_next_call(
    make, change, kernel_calls, caplog
):
    cls, arguments = make
    layer = cls(*arguments, dropout=0.3)
    layer(X, X)
    hw3tf.accelerate(layer)
    layer(X, X)
    assert len(kernel_calls) == 1
    change_built(layer, change)
    with caplog.at_level(logging.DEBUG, "hw3tf"):
        got = layer(X, X)
    assert CHANGES[change] in caplog.text
    assert len(kernel_calls) == 1
    hw3tf.restore(layer)
    np.testing.assert_array_equal(got, layer(X, X))


def test_softmax_that_is_made_anew_as_keras_makes_it_is_fused(kernel_calls):
    layer = layers.MultiHeadAttention(2, 4, dropout=0.3)
    layer.build(X.shape, X.shape)
    change_built(layer, softmax_and_dropout)
    assert hw3tf.accelerate(layer).num_fused == 1
    layer(X, X)
    assert len(kernel_calls) == 1


def test_dropout_that_keras_does_not_apply_is_not_applied(make):
    cls, arguments = make
    layer = cls(*arguments)
    layer.build(X.shape, X.shape)
    change_built(layer, softmax_and_dropout)
    want = layer(X, X, training=True)
    hw3tf.accelerate(layer)
    np.testing.assert_allclose(layer(X, X, training=True), want, atol=1e-6)


METHODS = {
    (layers.MultiHeadAttention, "_compute_attention"): (2, 4),
    (layers.MultiHeadAttention, "_masked_softmax"): (2, 4),
    (layers.GroupQueryAttention, "_masked_softmax"): (4, 2, 1),
    (layers.Attention, "_apply_scores"): (),
    (layers.Softmax, "call"): (2, 4),
    (layers.Dropout, "call"): (2, 4),
}


@pytest.mark.parametrize("place", METHODS)
def test_method_replaced_on_the_class_is_seen(place, monkeypatch):
    """`functools.wraps` gives the replacement the name and the module of the method."""
    owner, name = place
    method = getattr(owner, name)

    @functools.wraps(method)
    def replacement(*args, **kwargs):
        return method(*args, **kwargs)

    part = owner in (layers.Softmax, layers.Dropout)
    make = layers.MultiHeadAttention if part else owner
    layer = make(*METHODS[place], dropout=0.3)
    layer([X, X]) if owner is layers.Attention else layer(X, X)
    monkeypatch.setattr(owner, name, replacement)
    (line,) = hw3tf.accelerate(layer).layers
    assert not line.fused
    assert f"`{owner.__name__}.{name}` was replaced" in line.reason


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_causal_mask_of_a_subclass_is_that_of_the_layer(make, dropout):
    """Keras asks for it where there is dropout."""

    class Strict(make[0]):
        def _compute_causal_mask(self, query, value=None):
            return super()._compute_causal_mask(query, value) & ~np.eye(6, dtype=bool)

    layer = Strict(*make[1], dropout=dropout)
    want = layer(X, X, use_causal_mask=True)
    assert hw3tf.accelerate(layer).num_fused == 1
    got = layer(X, X, use_causal_mask=True)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_call_replaced_on_the_class_is_kept(monkeypatch, kernel_calls):
    call = layers.MultiHeadAttention.call

    def doubled(self, query, value, key=None, **kwargs):
        return 2 * call(self, query, value, key, **kwargs)

    monkeypatch.setattr(layers.MultiHeadAttention, "call", doubled)
    layer = layers.MultiHeadAttention(2, 4)
    want = layer(X, X)
    assert hw3tf.accelerate(layer).num_fused == 1
    np.testing.assert_allclose(layer(X, X), want, atol=1e-5)
    assert len(kernel_calls) == 1


def test_call_wrapped_on_the_object_is_kept(kernel_calls):
    layer = layers.MultiHeadAttention(2, 4)
    layer(X, X)
    call = layer.call
    layer.call = lambda *args, **kwargs: 2 * call(*args)
    want = layer(X, X)
    assert hw3tf.accelerate(layer).num_fused == 1
    np.testing.assert_allclose(layer(X, X), want, atol=1e-5)
    assert len(kernel_calls) == 1


class Vector(layers.Attention):
    def build(self, input_shape):
        super().build(input_shape)
        self.scale = self.add_weight(shape=(6,), initializer="ones")


def test_attention_whose_scale_is_no_scalar_stays(kernel_calls):
    layer = Vector()
    want = layer([X, X])
    (line,) = hw3tf.accelerate(layer).layers
    assert line.reason == "`scale` is of shape (6,), not ()"
    np.testing.assert_array_equal(layer([X, X]), want)


def other_softmax_of_gemma(layer):
    layer.softmax = Sharp(dtype="float32")


def other_dropout_of_t5(layer):
    layer.dropout_layer = Halving(0.3)


WIDE = np.random.default_rng(4).standard_normal((2, 6, 16)).astype("float32")
MASK = np.tile(np.tri(6, dtype=bool), (2, 1, 1))
GROUPS = {"num_query_heads": 4, "num_key_value_heads": 2}
T5 = {"hidden_dim": 16, "key_value_dim": 4, "num_heads": 2, "dropout": 0.1}
HUB = {
    "gemma": (
        CachedGemmaAttention,
        GROUPS | {"head_dim": 4},
        other_softmax_of_gemma,
        "`softmax` is of type Sharp",
    ),
    "llama": (LlamaAttention, GROUPS, other_softmax, "`_softmax` is of type Sharp"),
    "llama, axis": (LlamaAttention, GROUPS, other_axis, "over the axis -2"),
    "llama, equation": (LlamaAttention, GROUPS, other_equation, "_combine_equation"),
    "t5": (
        T5MultiHeadAttention,
        T5 | {"is_decoder": True},
        other_dropout_of_t5,
        "`dropout_layer` is of type Halving",
    ),
}


@pytest.mark.filterwarnings("ignore:.*with a mask attached to it")  # T5
@pytest.mark.parametrize("name", HUB)
def test_changed_layer_of_keras_hub_stays_and_says_why(name, kernel_calls):
    cls, arguments, change, reason = HUB[name]
    layer = cls(**arguments)
    call = {"mask" if name == "t5" else "attention_mask": MASK}
    layer(WIDE, **call)
    change_built(layer, change)
    want = keras.tree.flatten(layer(WIDE, **call))[0]
    (line,) = [x for x in hw3tf.accelerate(layer).layers if "built" not in x.reason]
    assert not line.fused
    assert reason in line.reason
    got = keras.tree.flatten(layer(WIDE, **call))[0]
    np.testing.assert_array_equal(got, want)
    assert not kernel_calls


class CallsTheFunction(layers.Layer):
    def call(self, x):
        def attend(x):
            return keras.ops.dot_product_attention(x, x, x)

        return attend(keras.ops.expand_dims(x, 2))


def test_layer_that_calls_the_function_itself_is_told_of_enable(kernel_calls):
    layer = CallsTheFunction()
    layer(X)
    (line,) = hw3tf.accelerate(layer).layers
    assert not line.fused
    assert line.reason == (
        "`CallsTheFunction` calls `keras.ops.dot_product_attention`: `hw3tf.enable()` "
        "puts that on the kernel"
    )
    with hw3tf.enable():
        (line,) = hw3tf.accelerate(layer).layers
        layer(X)
    assert line.fused
    assert len(kernel_calls) == 1


def test_model_of_keras_2_is_called_so():
    base = type("Model", (), {"__module__": "tf_keras.src.engine.training"})
    model = type("Mine", (base,), {"__module__": "__main__"})()
    for function in (hw3tf.accelerate, hw3tf.restore):
        with pytest.raises(TypeError, match=r"a model of Keras 2 \(tf_keras\)"):
            function(model)
