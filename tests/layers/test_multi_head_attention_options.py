"""`hw3tf.layers.MultiHeadAttention`: every option on the kernel, against Keras."""

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
    results,
    trio,
)

from hw3tf.layers import MultiHeadAttention

SHAPES = {"query": (2, 7, 8), "value": (2, 9, 8)}
PADDING = {
    "query": np.arange(7) < np.array([[7], [4]]),
    "value": np.arange(9) < np.array([[5], [9]]),
}
EMPTY = {"value": np.arange(9) < np.array([[0], [9]])}
# (2, 7, 9), and per head: some query of it sees no key
SQUARE = (np.arange(2 * 7 * 9).reshape(2, 7, 9) % 5 > 1) & (np.arange(7) != 3)[:, None]
PER_HEAD = np.stack([SQUARE, ~SQUARE], axis=1)

OPTIONS = {
    "plain": {},
    "dropout": {"dropout": 0.3, "value_dim": 3, "output_shape": (2, 3)},
    "window": {"sliding_window": 2},
    "window, gate": {"sliding_window": 3, "use_gate": True, "dropout": 0.3},
}
CALLS = {
    "plain": {},
    "causal": {"use_causal_mask": True},
    "padded": {"masks": PADDING},
    "empty": {"masks": EMPTY},
    "mask": {"attention_mask": SQUARE},
    "mask without batch": {"attention_mask": SQUARE[0]},
    "mask per head": {"attention_mask": PER_HEAD.astype("int32")},
    "all": {"attention_mask": SQUARE, "masks": PADDING, "use_causal_mask": True},
    "scores": {"return_attention_scores": True, "masks": PADDING},
    "scores, causal": {"return_attention_scores": True, "use_causal_mask": True},
    "scores, mask": {"return_attention_scores": True, "attention_mask": SQUARE},
}


def layers(options, shapes=SHAPES):
    options = {"num_heads": 2, "key_dim": 4, **options}
    return trio(MultiHeadAttention, keras.layers.MultiHeadAttention, options, shapes)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("options", OPTIONS)
def test_result_is_as_exact_as_that_of_keras(options, call, rng, kernel_calls):
    made = layers(OPTIONS[options])
    assert_equals_keras(made, make_tensors(rng, SHAPES), training=False, **CALLS[call])
    assert len(kernel_calls) == 1


def test_paths_agree_with_everything_asked_for(path, rng):
    """Queries without a key, heads, scores, gate: on every path as in Keras."""
    made = layers({"dropout": 0.2, "use_gate": True, "sliding_window": 4})
    call = {"attention_mask": SQUARE, "return_attention_scores": True}
    assert_equals_keras(made, make_tensors(rng, SHAPES), masks=PADDING, **call)


def test_explicit_masks_and_key_are_respected(rng, kernel_calls):
    """Keras ignores an explicit query mask: it is given to Keras in the attention
    mask, where it means the same."""
    shapes = {**SHAPES, "key": (2, 9, 5)}
    masks = {
        "query_mask": PADDING["query"],
        "value_mask": PADDING["value"],
        "key_mask": np.arange(9) != 2,
    }
    masks["key_mask"] = np.broadcast_to(masks["key_mask"], (2, 9))
    joined = masks["query_mask"][:, :, None] & masks["value_mask"][:, None]
    theirs = {"attention_mask": joined & masks["key_mask"][:, None]}
    theirs |= dict.fromkeys(masks)
    made = layers({}, shapes)
    assert_equals_keras(made, make_tensors(rng, shapes), theirs=theirs, **masks)
    assert len(kernel_calls) == 1


def test_head_masks_and_padding_are_both_applied(rng):
    """Keras aligns the masks at the right, and so the heads of one with the batch of
    the other; here the batch entries are 3, the heads 2, and it fails."""
    made = layers({}, {"query": (3, 7, 8), "value": (3, 9, 8)})
    tensors = make_tensors(rng, {"query": (3, 7, 8), "value": (3, 9, 8)})
    padding = np.arange(9) < np.array([[5], [9], [1]])
    heads = PER_HEAD[:1]
    call = {"attention_mask": heads, "value_mask": padding}
    theirs = {"attention_mask": heads & padding[:, None, None], "value_mask": None}
    assert_equals_keras(made, tensors, theirs=theirs, **call)
    with pytest.raises(Exception, match=r"[Ii]ncompatible|[Bb]roadcast|[Dd]imensions"):
        made[1](**tensors, **call)


@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "graph"])
def test_dropout_in_training_is_fused_drawn_anew_and_keeps_the_mean(
    in_graph, rng, kernel_calls
):
    """The mean over many calls is the output without dropout. In the batch, the
    padded queries get zeros in every call, as in Keras."""
    layer = MultiHeadAttention(2, 4, dropout=0.5, seed=1)
    x, mask = rng.standard_normal((2, 7, 8), np.float32), PADDING["query"]
    kept = layer(x, x, query_mask=mask, value_mask=mask, training=False).numpy()

    def call(x):
        masks = np.tile(mask, (len(x) // len(mask), 1))
        return layer(x, x, query_mask=masks, value_mask=masks, training=True)

    call = tf.function(call) if in_graph else call
    draws = assert_drawn_anew_with_the_mean(call, x, kept)
    assert len(kernel_calls) == (2 if in_graph else 21)
    assert kernel_calls[-1][3].dropout_rate == 0.5
    assert (draws[:, 1, 4:] == layer.output_dense.bias.numpy()).all()


def test_seed_decides_dropout(rng):
    x = rng.standard_normal((1, 7, 8), np.float32)

    def draw(seed):
        keras.utils.set_random_seed(3)
        layer = MultiHeadAttention(2, 4, dropout=0.5, seed=seed)
        return layer(x, x, training=True).numpy()

    np.testing.assert_array_equal(draw(5), draw(5))
    assert (draw(5) != draw(6)).any()


def test_dropout_of_everything_leaves_the_bias_and_gradients_of_zero(rng):
    """Keras's gives the weights no gradients at all, of which optimizers warn."""
    ours, theirs, _ = layers({"dropout": 1.0, "use_bias": False})
    tensors = make_tensors(rng, SHAPES)
    output, *gradients = results(ours, tensors, training=True)
    np.testing.assert_array_equal(output, theirs(**tensors, training=True))
    assert len(gradients) == 2 + 4
    assert not any(x.any() for x in gradients)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_other_dtypes_are_fused_and_as_exact(policy, rng, kernel_calls):
    judge = MultiHeadAttention(2, 4, dtype="float64", sliding_window=3)
    x = rng.standard_normal((2, 7, 8))
    call = {"attention_mask": SQUARE[..., :7], "return_attention_scores": True}
    exact = [y.numpy() for y in judge(x, x, **call)]
    errors = []
    for make in (MultiHeadAttention, keras.layers.MultiHeadAttention):
        layer = make(2, 4, dtype=policy, sliding_window=3)
        layer.build(x.shape, x.shape)
        layer.set_weights(judge.get_weights())
        got = layer(
            tf.cast(x, layer.compute_dtype), tf.cast(x, layer.compute_dtype), **call
        )
        assert {y.dtype.name for y in got} == {layer.compute_dtype}
        got = [tf.cast(y, "float64").numpy() for y in got]
        errors.append([np.abs(y - z).max() for y, z in zip(got, exact, strict=True)])
    assert len(kernel_calls) == 2
    assert (np.array(errors[0]) <= 2 * np.array(errors[1]) + 1e-15).all()


def test_quantized_layer_is_fused_and_equals_keras(rng, kernel_calls):
    made = layers({})[:2]
    for layer in made:
        for part in layer._flatten_layers(include_self=False):
            if isinstance(part, keras.layers.EinsumDense):
                part.quantize("int8")
    tensors = make_tensors(rng, SHAPES)
    got, want = (layer(**tensors, use_causal_mask=True).numpy() for layer in made)
    assert made[0].query_dense.quantization_mode == "int8"
    assert len(kernel_calls) == 1
    # The output projection rounds its input to int8 as well: by one step at most.
    np.testing.assert_allclose(got, want, atol=0.02)


def test_flash_attention_excludes_dropout_and_scores(rng):
    with pytest.raises(ValueError, match="Dropout is not supported"):
        MultiHeadAttention(2, 4, flash_attention=True, dropout=0.1)
    layer, x = MultiHeadAttention(2, 4, flash_attention=True), np.ones((1, 3, 8))
    assert layer(x, x).shape == (1, 3, 8)
    with pytest.raises(ValueError, match="Returning attention scores is not supported"):
        layer(x, x, return_attention_scores=True)


class OwnMask(MultiHeadAttention):
    def _compute_attention_mask(self, query, value, **kwargs):
        return super()._compute_attention_mask(query, value, **kwargs) & SQUARE


class OwnSoftmax(MultiHeadAttention):
    def _masked_softmax(self, scores, attention_mask=None):
        return 2 * super()._masked_softmax(scores, attention_mask)


def test_subclass_with_its_own_mask_keeps_it_and_is_fused(rng, caplog, kernel_calls):
    layer = OwnMask(2, 4)
    tensors = make_tensors(rng, SHAPES)
    with caplog.at_level(logging.DEBUG, "hw3tf"):
        got = layer(**tensors, use_causal_mask=True)
    assert "`OwnMask` overrides `_compute_attention_mask`" in caplog.text
    assert len(kernel_calls) == 1
    plain = MultiHeadAttention.from_config(layer.get_config())
    plain.build(**{f"{k}_shape": v.shape for k, v in tensors.items()})
    plain.set_weights(layer.get_weights())
    want = plain(**tensors, attention_mask=SQUARE, use_causal_mask=True)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_subclass_with_its_own_softmax_runs_as_in_keras(rng, caplog, kernel_calls):
    layer, x = OwnSoftmax(2, 4, dropout=0.1, name="a"), rng.random((1, 7, 8))
    plain = MultiHeadAttention(2, 4)
    with caplog.at_level(logging.DEBUG, "hw3tf"):
        got = layer(x, x)
    assert not kernel_calls
    assert "a builds scores as in Keras: `OwnSoftmax` overrides" in caplog.text
    plain.build(x.shape, x.shape)
    plain.set_weights(layer.get_weights())
    # Twice the weights: twice the output, which has a bias of 0.
    np.testing.assert_allclose(got, 2 * plain(x, x), rtol=1e-5, atol=1e-6)


def test_padding_causality_window_and_dropout_build_no_square_matrix():
    """At length 2048, in training, with gradients: all tensors of the graph stay far
    below length x length."""
    layer = MultiHeadAttention(2, 8, dropout=0.1, sliding_window=100)

    def step(x, mask):
        with tf.GradientTape() as tape:
            y = layer(
                x,
                x,
                query_mask=mask,
                value_mask=mask,
                use_causal_mask=True,
                training=True,
            )
        return tape.gradient(y, layer.trainable_weights)

    specs = tf.TensorSpec([1, 2048, 16]), tf.TensorSpec([1, 2048], "bool")
    assert largest_tensor(step, *specs) <= 2 * 2048 * 16


def test_model_of_unknown_sizes_trains_and_is_saved(tmp_path, rng, kernel_calls):
    """With padding and dropout: `train_on_batch` lowers the loss, and a loaded model
    gives the same predictions."""
    layer = MultiHeadAttention(2, 4, dropout=0.1, sliding_window=5, use_gate=True)
    model = model_of(layer, 8)
    x, y = rng.standard_normal((2, 16, 7, 8)).astype("float32")
    x[:, 5:] = 0
    model.compile(keras.optimizers.Adam(0.01), "mse")
    losses = [float(model.train_on_batch(x, y)) for _ in range(8)]
    assert losses[-1] < losses[0]
    assert kernel_calls[0][3].dropout_rate == 0.1
    assert kernel_calls[0][3].key_mask is not None
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.layers[-1]) is MultiHeadAttention
    np.testing.assert_array_equal(again.predict_on_batch(x), model.predict_on_batch(x))


def test_every_argument_survives_the_config():
    options = {
        "num_heads": 3,
        "key_dim": 5,
        "value_dim": 2,
        "dropout": 0.1,
        "use_bias": False,
        "output_shape": (2, 3),
        "attention_axes": (1,),
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
    config = MultiHeadAttention(**options).get_config()
    assert config == keras.layers.MultiHeadAttention(**options).get_config()
    assert MultiHeadAttention.from_config(config).get_config() == config
    for name in ("num_heads", "output_shape", "sliding_window", "use_gate", "seed"):
        assert config[name] == options[name]


def test_queries_beyond_the_reach_of_a_window_get_what_keras_gives(rng):
    """Nine queries, five keys: the last three see none. Zeros, because of dropout."""
    shapes = {"query": (2, 9, 8), "value": (2, 5, 8)}
    made = layers({"sliding_window": 2, "dropout": 0.3, "use_bias": False}, shapes)
    tensors = make_tensors(rng, shapes)
    assert_equals_keras(made, tensors, training=False)
    np.testing.assert_array_equal(results(made[0], tensors)[0][:, 6:], 0)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_call_of_the_layer_may_be_a_part_of_a_functional_model(dropout, rng):
    """Not the layer itself: `call` then computes with symbols."""
    x = rng.standard_normal((2, 6, 8), np.float32)
    layer = MultiHeadAttention(2, 4, dropout=dropout)
    mask = np.arange(6) < np.array([[4], [0]])
    want = layer(x, x, value_mask=mask)
    inputs, symbol = keras.Input((6, 8)), keras.Input((6,), dtype="bool")
    outputs = layer.call(inputs, inputs, value_mask=symbol)
    model = keras.Model([inputs, symbol], outputs)
    np.testing.assert_allclose(model([x, mask]), want, atol=1e-6)
