"""`hw3tf.layers.MultiHeadAttention` against `keras.layers.MultiHeadAttention`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from checks import run_python

from hw3tf.layers import MultiHeadAttention
from hw3tf.ops.attention.call import AttentionCall

# Outputs are of size 1 and sums over 16 features: float32 rounds at 1e-7 each.
ATOL = 3e-6


def pair(*args, shape=(2, 9, 16), **kwargs):
    """Our layer and Keras's with the same weights, built on `shape`."""
    ours = MultiHeadAttention(*args, **kwargs)
    theirs = keras.layers.MultiHeadAttention(*args, **kwargs)
    x = np.zeros(shape, np.float32)
    ours(x, x), theirs(x, x)
    weights = [
        np.random.default_rng(1).standard_normal(w.shape) / 4 for w in ours.weights
    ]
    ours.set_weights(weights), theirs.set_weights(weights)
    return ours, theirs


def masked(x, mask):
    """A fresh tensor with a Keras mask: Keras's layer takes it off what it gets."""
    x = tf.identity(x)
    if mask is not None:
        x._keras_mask = tf.constant(mask)
    return x


@pytest.fixture
def fused_calls(monkeypatch):
    """Counts the calls of the op by the layer."""
    calls, run = [], AttentionCall.run

    def counting(call, *args, **kwargs):
        calls.append(call)
        return run(call, *args, **kwargs)

    monkeypatch.setattr(AttentionCall, "run", counting)
    return calls


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"value_dim": 3},
        {"use_bias": False},
        {"output_shape": 5},
        {"output_shape": (2, 3)},
        {"dropout": 0.4},
        {"use_gate": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("use_causal_mask", [False, True], ids=["full", "causal"])
def test_result_and_gradients_are_those_of_keras(
    options, use_causal_mask, path, fused_calls, rng
):
    ours, theirs = pair(4, 8, **options)
    query, value = (rng.standard_normal((2, n, 16), np.float32) for n in (9, 12))
    fused_calls.clear()
    results = []
    for layer in (ours, theirs):
        with tf.GradientTape() as tape:
            y = layer(query, value, use_causal_mask=use_causal_mask, training=False)
            loss = tf.reduce_sum(y**2)
        results.append([y, *tape.gradient(loss, layer.trainable_weights)])
    assert len(fused_calls) == 1
    for x, y in zip(*results, strict=True):
        # Gradients of sums over 2 x 9 positions: as far as they are large.
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=20 * ATOL)


@pytest.mark.parametrize("use_causal_mask", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("masks", ["query", "value", "both", "key"])
def test_keras_masks_are_those_of_keras(masks, use_causal_mask, path, fused_calls, rng):
    ours, theirs = pair(4, 8)
    query, value, key = (rng.standard_normal((2, 9, 16), np.float32) for _ in range(3))
    query_mask, value_mask, key_mask = (
        (rng.random((2, 9)) < 0.7) | (np.arange(9) == 0) for _ in range(3)
    )
    query_mask = query_mask if masks in ("query", "both") else None
    value_mask = value_mask if masks in ("value", "both", "key") else None
    key_mask = key_mask if masks == "key" else None

    def call(layer):
        return layer(
            masked(query, query_mask),
            masked(value, value_mask),
            key=masked(key, key_mask),
            use_causal_mask=use_causal_mask,
        )

    fused_calls.clear()
    got, want = call(ours), call(theirs)
    assert len(fused_calls) == 1
    np.testing.assert_allclose(got, want, atol=ATOL)
    passed_on = getattr(got, "_keras_mask", None)
    if query_mask is None:
        assert passed_on is None
    else:
        np.testing.assert_array_equal(passed_on, query_mask)


def test_explicit_query_mask_is_respected(path, rng):
    """Keras ignores the argument; a mask on the tensor means the same to both. The
    output has the mask of the query, then, too."""
    ours, theirs = pair(2, 4)
    x = rng.standard_normal((2, 9, 16), np.float32)
    mask = np.arange(9) < np.array([[4], [9]])
    got, want = ours(x, x, query_mask=mask), theirs(masked(x, mask), x)
    np.testing.assert_allclose(got, want, atol=ATOL)
    np.testing.assert_array_equal(got._keras_mask, want._keras_mask)


def test_input_keeps_its_mask(rng):
    x = masked(
        rng.standard_normal((2, 9, 16), np.float32), np.arange(9)[None] < [[4], [9]]
    )
    layer = MultiHeadAttention(2, 4)
    first = layer(x, x)
    np.testing.assert_array_equal(layer(x, x), first)


def test_no_square_mask_is_built_in_a_graph():
    """Padding and causality at length 4096: every constant and every output shape
    of the graph stays far below length x length."""
    layer = MultiHeadAttention(2, 8)

    @tf.function(
        input_signature=[tf.TensorSpec([1, 4096, 16]), tf.TensorSpec([1, 4096], "bool")]
    )
    def run(x, mask):
        return layer(x, x, query_mask=mask, value_mask=mask, use_causal_mask=True)

    sizes = [
        np.prod(t.shape.as_list())
        for op in run.get_concrete_function().graph.get_operations()
        for t in op.outputs
        if t.shape.rank is not None and None not in t.shape.as_list()
    ]
    assert max(sizes) <= 4096 * 16 * 2


def test_layer_learns_in_fit(path, rng):
    """One step in a compiled model: the loss falls, graph = eager."""
    inputs = keras.Input((None, 8))
    layer = MultiHeadAttention(2, 4)
    model = keras.Model(inputs, layer(inputs, inputs, use_causal_mask=True))
    x, y = rng.standard_normal((2, 16, 7, 8)).astype("float32")
    model.compile("adam", "mse")
    np.testing.assert_allclose(model.predict(x, verbose=0), model(x), atol=1e-6)
    losses = model.fit(x, y, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_mixed_precision_runs(rng):
    x = rng.standard_normal((2, 9, 16), np.float32)
    ours, theirs = pair(2, 4, dtype="mixed_bfloat16")
    got = ours(x, x)
    assert got.dtype == "bfloat16"
    np.testing.assert_allclose(
        tf.cast(got, "float32"), tf.cast(theirs(x, x), "float32"), atol=3e-2
    )  # bfloat16 has 8 bits


def test_config_is_that_of_keras():
    options = {
        "num_heads": 3,
        "key_dim": 5,
        "value_dim": 2,
        "dropout": 0.1,
        "name": "a",
    }
    ours, theirs = (
        MultiHeadAttention(**options),
        keras.layers.MultiHeadAttention(**options),
    )
    ours_config, theirs_config = ours.get_config(), theirs.get_config()
    assert ours_config == theirs_config
    again = MultiHeadAttention.from_config(ours_config)
    assert again.get_config() == ours_config


@pytest.mark.parametrize("direction", ["to-keras", "from-keras"])
def test_weights_files_interchange(direction, tmp_path, rng):
    def model(layer_class, seed):
        keras.utils.set_random_seed(seed)
        x = keras.Input((None, 8))
        return keras.Model(x, layer_class(2, 4, name="attention")(x, x))

    classes = [MultiHeadAttention, keras.layers.MultiHeadAttention]
    if direction == "from-keras":
        classes.reverse()
    source, target = model(classes[0], 1), model(classes[1], 2)
    source.save_weights(tmp_path / "a.weights.h5")
    target.load_weights(tmp_path / "a.weights.h5")
    x = rng.standard_normal((2, 5, 8), np.float32)
    np.testing.assert_allclose(source(x), target(x), atol=ATOL)


def test_saved_and_exported_models_run_in_a_fresh_process(tmp_path, rng):
    x = keras.Input((None,), dtype="int32")
    y = keras.layers.Embedding(20, 8, mask_zero=True)(x)
    model = keras.Model(x, MultiHeadAttention(2, 4)(y, y))
    tokens = rng.integers(0, 20, (3, 11)).astype("int32")
    np.savez(tmp_path / "data.npz", tokens=tokens, want=model(tokens))
    model.save(tmp_path / "model.keras")
    model.export(tmp_path / "exported", verbose=False)
    code = f"""
import keras, numpy as np, tensorflow as tf
import hw3tf
data = np.load(r"{tmp_path / "data.npz"}")
loaded = keras.models.load_model(r"{tmp_path / "model.keras"}")
assert type(loaded.layers[-1]).__module__.startswith("hw3tf.layers")
np.testing.assert_array_equal(loaded(data["tokens"]), data["want"])
exported = tf.saved_model.load(r"{tmp_path / "exported"}")
# TensorFlow rewrites its own projections in a graph: the last bit may differ.
np.testing.assert_allclose(exported.serve(data["tokens"]), data["want"], atol=1e-6)
print("equal")
"""
    assert run_python(code).endswith("equal\n")


@pytest.mark.parametrize("name", ["num_heads", "key_dim"])
def test_sizes_that_are_no_positive_integers_are_refused(name):
    with pytest.raises(ValueError, match=name):
        MultiHeadAttention(**{"num_heads": 2, "key_dim": 4, name: 0})


def test_symbolic_shape_is_the_eager_shape():
    layer = MultiHeadAttention(2, 4, value_dim=3, output_shape=5)
    symbolic = layer(keras.Input((7, 8)), keras.Input((9, 8)))
    eager = layer(np.zeros((2, 7, 8), "float32"), np.zeros((2, 9, 8), "float32"))
    assert symbolic.shape == (None, *eager.shape[1:])
