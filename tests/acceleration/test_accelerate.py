"""`accelerate` and `restore`: the layers that they find, change, report and restore."""

import copy

import keras
import keras_hub
import numpy as np
import processes
import pytest
from acceleration_checks import (
    assert_equal_up_to_rounding,
    gradients,
    moved_by_rounding,
    outputs,
    randomize,
)
from backbones import BACKBONES, HEADS, segments, tokens
from checks import run_python

import hw3tf
from hw3tf.ops import paths


@pytest.fixture
def bert():
    return keras_hub.models.BertBackbone(**HEADS)


def small_model(layer=None):
    """Attention over 6 embedded tokens, 0 of them padding."""
    ids = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(13, 8, mask_zero=True)(ids)
    layer = layer or keras.layers.MultiHeadAttention(2, 4, name="attention")
    return keras.Model(ids, layer(x, x))


IDS = np.array([[1, 2, 3, 4, 5, 6], [7, 8, 9, 0, 0, 0]])


def test_report_prints_as_a_table(bert):
    lines = str(hw3tf.accelerate(bert)).splitlines()
    assert lines[0].split() == ["layer", "class", "fused", "faster", "from", "why"]
    path = "transformer_layer_0/self_attention_layer"
    assert lines[1].split()[:3] == [path, "MultiHeadAttention", "yes"]
    assert lines[3] == (
        "2 of 2 layers with attention or recurrence are fused. "
        "Kernel: op (the kernel covers the call)"
    )
    assert len({line.find("yes") for line in lines[1:3]}) == 1  # one column


def test_model_in_a_model_is_walked_once(bert, kernel_calls):
    inputs = {k: keras.Input((None,), dtype="int32", name=k) for k in segments()}
    inner = keras.Model(inputs, bert(inputs)["sequence_output"], name="inner")
    outer = keras.Model(inputs, inner(inputs) + inner(inputs))
    report = hw3tf.accelerate(outer)
    assert [layer.path for layer in report.layers] == [
        f"inner/{bert.name}/transformer_layer_{i}/self_attention_layer" for i in (0, 1)
    ]
    outer(segments())
    assert len(kernel_calls) == 4


def test_accelerated_twice_is_reported_and_changed_once(bert):
    stock = outputs(bert, segments())
    hw3tf.accelerate(bert)
    report = hw3tf.accelerate(bert)
    assert {layer.reason for layer in report.layers} == {"accelerated already"}
    assert report.num_fused == 2
    assert hw3tf.restore(bert) == 2
    assert hw3tf.restore(bert) == 0
    assert all(map(np.array_equal, outputs(bert, segments()), stock))


def test_with_takes_back_only_its_own_change(bert, kernel_calls):
    with hw3tf.accelerate(bert) as outer:
        with hw3tf.accelerate(bert):
            pass
        bert(segments())
        assert outer.num_fused == len(kernel_calls) == 2
    bert(segments())
    assert len(kernel_calls) == 2


def test_layer_object_is_as_before_after_restore(bert):
    layer = bert.get_layer("transformer_layer_0")._self_attention_layer
    before = dict(layer.__dict__)
    hw3tf.accelerate(bert)
    assert layer.__dict__ != before
    hw3tf.restore(bert)
    assert layer.__dict__ == before


def test_compiled_functions_are_made_anew(kernel_calls):
    model = small_model()
    model.compile("sgd", "mse")
    stock = model.predict(IDS, verbose=0)
    model.evaluate(IDS, stock, verbose=0)
    hw3tf.accelerate(model)
    fused = model.predict(IDS, verbose=0)
    assert kernel_calls
    assert_equal_up_to_rounding([fused], [stock])
    calls = len(kernel_calls)
    model.evaluate(IDS, stock, verbose=0)
    model.train_on_batch(IDS, stock)
    assert len(kernel_calls) >= calls + 2
    hw3tf.restore(model)
    # Counting would not do: a function traced before calls the kernel uncounted.
    functions = (model.train_function, model.test_function, model.predict_function)
    assert functions == (None, None, None)
    calls = len(kernel_calls)
    model.predict(IDS, verbose=0)
    model.evaluate(IDS, stock, verbose=0)
    model.train_on_batch(IDS, stock)
    assert len(kernel_calls) == calls


def test_saved_file_loads_as_stock_keras_without_hw3tf(tmp_path):
    model = small_model()
    hw3tf.accelerate(model)
    np.save(tmp_path / "output.npy", model(IDS))
    model.save(tmp_path / "model.keras")
    code = f"""
import sys
import keras
import numpy as np
model = keras.saving.load_model({str(tmp_path / "model.keras")!r})
assert type(model.layers[-1]) is keras.layers.MultiHeadAttention, model.layers
output = model(np.array({IDS.tolist()}))
expected = np.load({str(tmp_path / "output.npy")!r})
np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)
print("hw3tf" in sys.modules)
"""
    assert run_python(code, modules=processes.OTHERS).split()[-1] == "False"


def test_saved_backbone_equals_that_of_the_stock_model(bert, tmp_path):
    bert.save(tmp_path / "stock.keras")
    hw3tf.accelerate(bert)
    bert.save(tmp_path / "accelerated.keras")
    loaded = [
        keras.saving.load_model(tmp_path / f"{name}.keras")
        for name in ("stock", "accelerated")
    ]
    assert all(map(np.array_equal, *(m.get_weights() for m in loaded)))
    assert all(map(np.array_equal, *(outputs(m, segments()) for m in loaded)))


@pytest.mark.parametrize("make", [keras.models.clone_model, copy.deepcopy])
def test_copies_are_stock(make, kernel_calls):
    model = small_model()
    hw3tf.accelerate(model)
    make(model)(IDS)
    assert not kernel_calls


def test_model_without_attention_is_reported(kernel_calls):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    report = hw3tf.accelerate(model)
    assert not report.layers
    assert str(report).startswith("No layer with attention or recurrence found.")
    assert hw3tf.restore(model) == 0


class Doubled(keras.layers.MultiHeadAttention):
    def _compute_attention(self, query, *args, **kwargs):
        output, scores = super()._compute_attention(query, *args, **kwargs)
        return 2 * output, scores


class Loud(keras.layers.MultiHeadAttention):
    def call(self, query, value, key=None, **kwargs):
        return 10 * super().call(query, value, key, **kwargs)


def test_subclass_with_attention_of_its_own_is_left_alone(kernel_calls):
    model = small_model(Doubled(2, 4))
    stock = outputs(model, IDS)
    (layer,) = hw3tf.accelerate(model).layers
    assert not layer.fused
    assert layer.reason == "`Doubled` overrides `_compute_attention`"
    assert np.array_equal(outputs(model, IDS), stock)
    assert not kernel_calls


def test_attention_replaced_on_the_object_is_left_alone():
    model = small_model()
    attention = model.layers[-1]
    attention._compute_attention = lambda *args, **kwargs: (args[0], None)
    (layer,) = hw3tf.accelerate(model).layers
    assert layer.reason == "the layer has a `_compute_attention` of its own"
    assert hw3tf.restore(model) == 0
    assert "_compute_attention" in attention.__dict__


def test_subclass_with_another_call_is_fused_inside_it(kernel_calls):
    model = small_model(Loud(2, 4))
    stock = outputs(model, IDS)
    assert hw3tf.accelerate(model).num_fused == 1
    assert_equal_up_to_rounding(outputs(model, IDS), stock)
    assert len(kernel_calls) == 1


class HomeMadeAttention(keras.layers.Layer):
    def call(self, query, value):
        return query + value


REASONS = {
    "additive": (keras.layers.AdditiveAttention(), "not products"),
    "concat": (keras.layers.Attention(score_mode="concat"), "not products"),
    "all drops": (keras.layers.Attention(dropout=1.0), "drops all weights"),
    "home-made": (HomeMadeAttention(), "does not know"),
}


@pytest.mark.parametrize("name", REASONS)
def test_layer_that_is_not_covered_says_why(name):
    layer, reason = REASONS[name]
    x = keras.Input((6, 8))
    y = layer(x, x) if name == "home-made" else layer([x, x])
    (line,) = hw3tf.accelerate(keras.Model(x, y)).layers
    assert not line.fused
    assert reason in line.reason


class OursAndMore(hw3tf.layers.MultiHeadAttention):
    pass


@pytest.mark.parametrize("make", [hw3tf.layers.MultiHeadAttention, OursAndMore])
def test_layer_of_hw3tf_is_reported_and_left_alone(make):
    layer = make(2, 4)
    before = dict(layer.__dict__)
    (line,) = hw3tf.accelerate(layer).layers[:1]
    assert line.fused
    assert line.reason == "a layer of hw3tf, fused by itself"
    assert layer.__dict__ == before


NOT_COVERED = {
    "deberta": (
        lambda: keras_hub.models.DebertaV3Backbone(**HEADS, bucket_size=4),
        ["its scores depend on relative positions through the query"] * 2,
    ),
    "rwkv7": (
        lambda: keras_hub.models.RWKV7Backbone(
            hidden_size=16, head_size=8, num_layers=1, vocabulary_size=13,
            intermediate_dim=12, gate_lora=4, mv_lora=4, aaa_lora=4, decay_lora=4,
        ),
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_COVERED)
def test_backbone_that_is_not_covered_works_as_before(name, kernel_calls):
    build, reasons = NOT_COVERED[name]
    model, inputs = build(), tokens(8)
    stock = outputs(model, inputs)
    report = hw3tf.accelerate(model)
    assert [layer.reason for layer in report.layers] == reasons
    assert report.num_fused == 0
    assert all(map(np.array_equal, outputs(model, inputs), stock))
    assert not kernel_calls


@pytest.mark.parametrize("not_a_model", [None, [1], "bert", keras.ops.exp])
@pytest.mark.parametrize("function", [hw3tf.accelerate, hw3tf.restore])
def test_other_things_than_models_are_refused(function, not_a_model):
    name = type(not_a_model).__name__
    with pytest.raises(TypeError, match=rf"takes a Keras model .* \(of type {name}\)"):
        function(not_a_model)


def test_model_that_is_not_built_is_reported():
    model = keras.Sequential([keras.layers.Dense(2)])
    (line,) = hw3tf.accelerate(model).layers
    assert "not built: call it once" in line.reason


@pytest.mark.parametrize(
    ("place", "replacement", "reason"),
    [
        ((keras.backend, "backend"), lambda: "numpy", "the backend is numpy"),
        ((paths, "_gpu_visible"), lambda: True, "TensorFlow sees a GPU"),
    ],
)
def test_model_that_the_kernel_cannot_serve_stays_as_it_is(
    bert, place, replacement, reason, monkeypatch
):
    layer = bert.get_layer("transformer_layer_0")._self_attention_layer
    before = dict(layer.__dict__)
    monkeypatch.setattr(*place, replacement)
    report = hw3tf.accelerate(bert)
    assert report.num_fused == 0
    assert {line.reason for line in report.layers} == {reason}
    assert str(report).endswith(f"Kernel: reference ({reason})")
    assert layer.__dict__ == before


def test_library_that_cannot_be_loaded_leaves_the_way_through_pybind(
    bert, kernel_calls, monkeypatch
):
    stock = outputs(bert, segments())
    monkeypatch.delenv("HW3TF_PATH", raising=False)
    monkeypatch.setattr(paths, "op_library_error", lambda: "NotFoundError: gone")
    report = hw3tf.accelerate(bert)
    assert str(report.path) == "pybind (the op library fails: NotFoundError: gone)"
    assert_equal_up_to_rounding(outputs(bert, segments()), stock)
    assert [call[0] for call in kernel_calls] == ["pybind"] * 2


@pytest.mark.parametrize("name", ["bert", "llama", "t5", "gemma2", "esm"])
@pytest.mark.filterwarnings("ignore:.*was passed an input with a mask attached to it")
@pytest.mark.filterwarnings("ignore:.*unbuilt state")
def test_gradients_equal_those_of_the_stock_model(name, kernel_calls, rng):
    build, make_inputs, calls = BACKBONES[name]
    model, inputs = build(), make_inputs()
    randomize(model, rng)

    stock = gradients(model, inputs)
    moved = moved_by_rounding(model, inputs, rng, stock, gradients)
    hw3tf.accelerate(model)
    fused = gradients(model, inputs)
    assert len(kernel_calls) == calls
    largest = max(np.abs(g).max() for g in stock)  # those of key biases are 0
    assert_equal_up_to_rounding(fused, stock, moved, name, terms=largest)
