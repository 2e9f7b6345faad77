"""`hw3tf.layers.GroupQueryAttention` against `keras.layers.GroupQueryAttention`."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from attention_layer_checks import (
    assert_drawn_anew_with_the_mean,
    assert_equals_keras,
    largest_tensor,
    make_tensors,
    model_of,
    trio,
    with_mask,
)

from hw3tf.layers import GroupQueryAttention

SHAPES = {"query": (2, 7, 8), "value": (2, 9, 8)}
PADDING = {
    "query": np.arange(7) < np.array([[7], [4]]),
    "value": np.arange(9) < np.array([[5], [9]]),
}
EMPTY = {"value": np.arange(9) < np.array([[0], [9]])}
# (2, 7, 9); query 3 sees no key
SQUARE = (np.arange(2 * 7 * 9).reshape(2, 7, 9) % 5 > 1) & (np.arange(7) != 3)[:, None]
# 0 to 1 in quarters: without a Softmax every number but 0 is True, with one those
# above 0.5 are.
NUMBERS = np.arange(2 * 7 * 9).reshape(2, 7, 9) % 5 / 4 * (np.arange(7) != 3)[:, None]

OPTIONS = {
    "groups": {},
    "dropout": {"dropout": 0.3, "use_bias": False},
    "one head, window": {"num_key_value_heads": 1, "sliding_window": 3},
    "gate, window": {"use_gate": True, "sliding_window": 2, "dropout": 0.3},
}
CALLS = {
    "plain": {},
    "causal": {"use_causal_mask": True},
    "padded": {"masks": PADDING},
    "empty": {"masks": EMPTY},
    "mask": {"attention_mask": SQUARE},
    "numbers": {"attention_mask": NUMBERS},
    "all": {"attention_mask": SQUARE, "masks": PADDING, "use_causal_mask": True},
    "scores": {"return_attention_scores": True, "masks": PADDING},
    "scores, mask": {"return_attention_scores": True, "attention_mask": SQUARE},
}
# Keras's layer passes the masks on to its projections, which warn; ours does not.
ignore_warnings = pytest.mark.filterwarnings("ignore:.*with a mask attached to it")


def make(**options):
    sizes = {"head_dim": 5, "num_query_heads": 4, "num_key_value_heads": 2}
    return GroupQueryAttention(**{**sizes, **options})


def layers(options, shapes=SHAPES):
    options = {"head_dim": 5, "num_query_heads": 4, "num_key_value_heads": 2, **options}
    return trio(GroupQueryAttention, keras.layers.GroupQueryAttention, options, shapes)


@ignore_warnings
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("options", OPTIONS)
def test_result_is_as_exact_as_that_of_keras(options, call, rng, kernel_calls):
    made = layers(OPTIONS[options])
    assert_equals_keras(made, make_tensors(rng, SHAPES), training=False, **CALLS[call])
    ((_, query, key, _),) = kernel_calls
    heads = made[0].num_key_value_heads
    assert (query[2], key[2]) == (4, heads), "the heads of key are shared, not copied"


@ignore_warnings
def test_paths_agree_with_everything_asked_for(path, rng):
    made = layers({"dropout": 0.2, "use_gate": True, "sliding_window": 4})
    call = {"attention_mask": SQUARE, "return_attention_scores": True}
    assert_equals_keras(made, make_tensors(rng, SHAPES), masks=PADDING, **call)


def test_explicit_masks_and_key_are_those_of_keras(rng):
    shapes = {**SHAPES, "key": (2, 9, 3)}
    masks = {f"{name}_mask": mask for name, mask in PADDING.items()}
    masks["key_mask"] = np.arange(9)[None] != np.array([[2], [3]])
    assert_equals_keras(layers({}, shapes), make_tensors(rng, shapes), **masks)


def test_mask_of_the_query_is_passed_on_without_a_warning_and_inputs_keep_theirs(rng):
    layer = make()
    x = with_mask(rng.standard_normal((2, 7, 8), np.float32), PADDING["query"])
    y = layer(x, x)
    np.testing.assert_array_equal(y._keras_mask, PADDING["query"])
    np.testing.assert_array_equal(layer(x, x), y)


@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "graph"])
def test_dropout_in_training_is_fused_drawn_anew_and_keeps_the_mean(
    in_graph, rng, kernel_calls
):
    layer = make(dropout=0.5, seed=1)
    x, mask = rng.standard_normal((2, 7, 8), np.float32), PADDING["query"]
    kept = layer(x, x, value_mask=mask, training=False).numpy()

    def call(x):
        masks = np.tile(mask, (len(x) // len(mask), 1))
        return layer(x, x, value_mask=masks, training=True)

    call = tf.function(call) if in_graph else call
    assert_drawn_anew_with_the_mean(call, x, kept)
    assert len(kernel_calls) == (2 if in_graph else 21)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_other_dtypes_are_fused_and_as_exact(policy, rng, kernel_calls):
    judge = make(dtype="float64")
    x = rng.standard_normal((2, 7, 8))
    exact, errors = judge(x, x, use_causal_mask=True).numpy(), []
    for cls in (GroupQueryAttention, keras.layers.GroupQueryAttention):
        layer = cls(5, 4, 2, dtype=policy)
        layer.build(x.shape, x.shape)
        layer.set_weights(judge.get_weights())
        inputs = tf.cast(x, layer.compute_dtype)
        got = layer(inputs, inputs, use_causal_mask=True)
        assert got.dtype == layer.compute_dtype
        errors.append(np.abs(tf.cast(got, "float64") - exact).max())
    assert len(kernel_calls) == 2
    assert errors[0] <= 2 * errors[1] + 1e-15


def test_quantized_layer_with_lora_is_fused_and_equals_keras(rng, kernel_calls):
    made = layers({})[:2]
    for layer in made:
        layer._value_dense.enable_lora(2)
        for x in (layer._value_dense.lora_kernel_a, layer._value_dense.lora_kernel_b):
            x.assign(np.random.default_rng(2).standard_normal(x.shape) / 4)
        for part in (layer._query_dense, layer._key_dense, layer._value_dense):
            part.quantize("int8")
    tensors = make_tensors(rng, SHAPES)
    got, want = (layer(**tensors, use_causal_mask=True) for layer in made)
    assert len(kernel_calls) == 1
    np.testing.assert_allclose(got, want, atol=3e-6)


def test_flash_attention_excludes_dropout_and_scores():
    with pytest.raises(ValueError, match="Dropout is not supported"):
        make(flash_attention=True, dropout=0.1)
    layer, x = make(flash_attention=True), np.ones((1, 3, 8))
    assert layer(x, x).shape == (1, 3, 8)
    with pytest.raises(ValueError, match="Returning attention scores is not supported"):
        layer(x, x, return_attention_scores=True)


class OwnProduct(GroupQueryAttention):
    def _compute_attention(self, query, key, value, attention_mask=None, training=None):
        return super()._compute_attention(query, key, value, ~attention_mask, training)


def test_subclass_with_its_own_product_gets_the_mask(rng, caplog, kernel_calls):
    layer = OwnProduct(5, 4, 2)
    tensors = make_tensors(rng, SHAPES)
    with caplog.at_level(logging.DEBUG, "hw3tf"):
        got = layer(**tensors, attention_mask=SQUARE)
    assert "`OwnProduct` overrides `_compute_attention`" in caplog.text
    assert len(kernel_calls) == 1
    plain = make()
    plain.build((2, 7, 8), (2, 9, 8))
    plain.set_weights(layer.get_weights())
    want = plain(**tensors, attention_mask=~SQUARE)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_padding_causality_window_and_dropout_build_no_square_matrix():
    layer = make(dropout=0.1, sliding_window=100)

    def step(x, mask):
        call = {"query_mask": mask, "value_mask": mask, "training": True}
        with tf.GradientTape() as tape:
            y = layer(x, x, use_causal_mask=True, **call)
        return tape.gradient(y, layer.trainable_weights)

    specs = tf.TensorSpec([1, 2048, 16]), tf.TensorSpec([1, 2048], "bool")
    assert largest_tensor(step, *specs) <= 2 * 2048 * 20


def test_model_of_unknown_sizes_trains_and_is_saved(tmp_path, rng, kernel_calls):
    model = model_of(make(dropout=0.1, sliding_window=5, use_gate=True), 8)
    x, y = rng.standard_normal((2, 16, 7, 8)).astype("float32")
    x[:, 5:] = 0
    model.compile(keras.optimizers.Adam(0.01), "mse")
    losses = [float(model.train_on_batch(x, y)) for _ in range(8)]
    assert losses[-1] < losses[0]
    assert kernel_calls[0][3].dropout_rate == 0.1
    assert kernel_calls[0][3].key_mask is not None
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.layers[-1]) is GroupQueryAttention
    np.testing.assert_array_equal(again.predict_on_batch(x), model.predict_on_batch(x))


def test_every_argument_survives_the_config():
    options = {
        "head_dim": 5,
        "num_query_heads": 6,
        "num_key_value_heads": 3,
        "dropout": 0.1,
        "use_bias": False,
        "sliding_window": 4,
        "kernel_initializer": "he_normal",
        "bias_initializer": "ones",
        "kernel_regularizer": "l2",
        "bias_regularizer": "l1",
        "activity_regularizer": "l2",
        "kernel_constraint": "non_neg",
        "bias_constraint": "unit_norm",
        "use_gate": True,
        "seed": 7,
        "name": "a",
        "dtype": "mixed_bfloat16",
        "trainable": False,
    }
    config = GroupQueryAttention(**options).get_config()
    assert config == keras.layers.GroupQueryAttention(**options).get_config()
    assert GroupQueryAttention.from_config(config).get_config() == config
    for name in ("num_key_value_heads", "sliding_window", "use_gate", "seed"):
        assert config[name] == options[name]


def test_symbolic_shapes_are_the_eager_shapes():
    layer = make()
    inputs = [keras.Input(batch_shape=s) for s in SHAPES.values()]
    symbolic = layer(*inputs, return_attention_scores=True)
    eager = layer(*map(np.ones, SHAPES.values()), return_attention_scores=True)
    assert [x.shape for x in symbolic] == [tuple(x.shape) for x in eager]


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="must be divisible"):
        make(num_key_value_heads=3)


def test_queries_beyond_the_reach_of_a_window_get_what_keras_gives(rng):
    """Nine queries, five keys: the last three see none. Zeros, because of dropout."""
    shapes = {"query": (2, 9, 8), "value": (2, 5, 8)}
    made = layers({"sliding_window": 2, "dropout": 0.3, "use_bias": False}, shapes)
    tensors = make_tensors(rng, shapes)
    assert_equals_keras(made, tensors, training=False)
    output = made[0](**tensors).numpy()
    np.testing.assert_array_equal(output[:, 6:], 0)
