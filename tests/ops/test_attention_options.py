"""Each option of `hw3tf.ops.dot_product_attention` by itself, on all paths."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from option_checks import (
    assert_threads_change_no_bit,
    check,
    make_arrays,
    run,
    scores_shape,
)

from hw3tf import ops, reference

SIZES = (2, 23, 41, 4, 2, 8, 6)
BATCH, QUERIES, KEYS = SIZES[:3]


def options_named(name, rng):
    arrays = {
        "mask": rng.random((1, 4, QUERIES, KEYS)) < 0.7,
        "query_mask": rng.random((BATCH, QUERIES)) < 0.7,
        "key_mask": rng.random((BATCH, KEYS)) < 0.7,
        "query_lengths": np.array([0, 20]),
        "key_lengths": np.array([0, 17], "int64"),
    }
    numbers = {
        "is_causal": True,
        "sliding_window": 5,
        "attn_logits_soft_cap": 1.5,
        "scale": 0.4,
    }
    if name == "dropout":
        return {"dropout_rate": 0.4, "dropout_seed": 11}
    if name in ("bias", "logsumexp"):
        return {}
    return {name: {**arrays, **numbers}[name]}


OPTIONS = [
    "bias",
    "mask",
    "query_mask",
    "key_mask",
    "query_lengths",
    "key_lengths",
    "is_causal",
    "sliding_window",
    "attn_logits_soft_cap",
    "scale",
    "dropout",
    "logsumexp",
]


def all_options(rng):
    options = {}
    for name in OPTIONS:
        options |= options_named(name, rng)
    return options


@pytest.mark.parametrize("name", OPTIONS)
def test_option_is_as_exact_as_keras_and_has_an_effect(name, path, rng):
    arrays = make_arrays(rng, *SIZES)
    if name == "bias":
        arrays["bias"] = rng.standard_normal((4, 1, KEYS))
    if name != "logsumexp":
        del arrays["grad_logsumexp"]
    got = check(arrays, options=options_named(name, rng))
    arrays = {n: x for n, x in arrays.items() if n not in ("bias", "grad_logsumexp")}
    without = run(ops.dot_product_attention, arrays, "float32", {})
    assert not np.allclose(got["grad_query"], without["grad_query"], atol=1e-3)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_dtype_is_as_exact_as_keras(dtype, path, rng):
    arrays = make_arrays(rng, *SIZES)
    if path == "reference":
        del arrays["grad_logsumexp"]  # there it is as inexact as its scores
    check(arrays, dtype, {"is_causal": True})


# Of all kinds of float64: keys in more than one tile, or in rows 4 KiB apart, which are
# copied; heads that share keys; few queries; sizes that no vector divides.
@pytest.mark.parametrize(
    "sizes",
    [
        (1, 37, 300, 8, 8, 64, 64),
        (2, 20, 140, 8, 4, 128, 128),
        (2, 130, 30, 4, 2, 19, 33),
        (3, 2, 40, 2, 2, 8, 5),
    ],
    ids=str,
)
@pytest.mark.parametrize("options", ["none", "masks", "dropout", "bias"])
def test_float64_of_any_size_is_as_exact_as_keras(sizes, options, kernel_path, rng):
    arrays = make_arrays(rng, *sizes)
    batch, queries, keys, heads = sizes[:4]
    given = {}
    if options == "masks":
        mask = rng.random((batch, 1, queries, keys)) < 0.5
        mask[:, :, queries // 2] = False  # this query sees nothing
        padding = np.arange(keys) < rng.integers(keys // 2, keys, (batch, 1))
        given = {"mask": mask, "key_mask": padding, "is_causal": keys < queries}
    elif options == "dropout":
        given = {"dropout_rate": 0.3, "dropout_seed": 7}
    elif options == "bias":
        arrays["bias"] = rng.standard_normal((heads, queries, keys))
    check(arrays, "float64", given)


# Scores of 1e6 and 1e20, whose roundings are 1e-10 and 1e4: forward and backward must
# round them alike.
@pytest.mark.parametrize("size", [1e3, 1e10])
@pytest.mark.parametrize("queries", [1, 2, 5, 19])
@pytest.mark.parametrize("bias", [False, True])
def test_huge_scores_in_float64_have_exact_weights(bias, queries, size, kernel_path):
    """One key has the whole weight, so that its value gets the whole gradient."""
    rng = np.random.default_rng(1)
    arrays = make_arrays(rng, 1, queries, 1, 2, 2, 64, 64)
    arrays = {name: x for name, x in arrays.items() if name != "grad_logsumexp"}
    arrays["query"], arrays["key"] = size * arrays["query"], size * arrays["key"]
    if bias:
        arrays["bias"] = rng.standard_normal((2, queries, 1))
    got = run(ops.dot_product_attention, arrays, "float64", {})
    np.testing.assert_array_equal(got["output"][0, 0], arrays["value"][0, 0])
    want = arrays["grad_output"].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(got["grad_value"], want, rtol=1e-12, atol=1e-12)


def test_lengths_are_masks(path, rng):
    """To the last bit: the same keys in the same order."""
    arrays = make_arrays(rng, *SIZES)
    query_lengths, key_lengths = np.array([20, 3]), np.array([9, 41])
    got, want = (
        run(ops.dot_product_attention, arrays, "float32", options)
        for options in (
            {"query_lengths": query_lengths, "key_lengths": key_lengths},
            {
                "query_mask": np.arange(QUERIES) < query_lengths[:, None],
                "key_mask": np.arange(KEYS) < key_lengths[:, None],
            },
        )
    )
    for name, x in got.items():
        np.testing.assert_array_equal(x, want[name], name)


def test_window_is_that_of_the_layers_of_keras(path, rng):
    x = rng.standard_normal((2, 30, 16)).astype("float32")
    layer = keras.layers.MultiHeadAttention(2, 8, sliding_window=4)
    want = layer(x, x, use_causal_mask=True)
    query, key, value = (
        getattr(layer, f"{name}_dense")(x) for name in ("query", "key", "value")
    )
    got = ops.dot_product_attention(query, key, value, is_causal=True, sliding_window=4)
    # Outputs of size 1, sums over 16 features in float32.
    np.testing.assert_allclose(layer.output_dense(got), want, atol=3e-6)


@pytest.mark.parametrize("window", [10**9, 2**31 - 1, 2**31, 2**70])
def test_window_longer_than_everything_is_none(window, path, rng):
    q, k, v, *_ = make_arrays(rng, *SIZES).values()
    np.testing.assert_array_equal(
        ops.dot_product_attention(q, k, v, sliding_window=window),
        ops.dot_product_attention(q, k, v),
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("names", [[], OPTIONS[:-1]], ids=["plain", "all-options"])
def test_attention_scores_are_the_softmax(names, dtype, path, rng):
    """Against the reference in float64, with gradients. Without dropout, as in
    Keras; a query that sees nothing has equal weights."""
    arrays = make_arrays(rng, *SIZES)
    options = all_options(rng) if names else {}
    bias = rng.standard_normal((4, 1, KEYS)) if "bias" in names else None
    factor = rng.standard_normal(scores_shape(arrays))

    def scores(function, dtype):
        tensors = [tf.cast(arrays[n], dtype) for n in ("query", "key", "value")]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            output, logsumexp, weights = function.dot_product_attention(
                *tensors,
                None if bias is None else tf.cast(bias, dtype),
                **options,
                return_logsumexp=True,
                return_attention_scores=True,
            )
        assert weights.dtype == output.dtype == dtype
        assert logsumexp.shape == weights.shape[:3] == scores_shape(arrays)[:3]
        grads = tape.gradient(
            weights, tensors[:2], output_gradients=tf.cast(factor, dtype)
        )
        return [tf.cast(x, "float64").numpy() for x in (weights, *grads)]

    # Weights at most 1; gradients are sums over 41 keys or 23 queries of terms of
    # size 1: in 16 bits Keras's own logits are wrong by one part in 256.
    atol = {"float32": (1e-6, 1e-5), "bfloat16": (2e-2, 0.2), "float64": (1e-14, 1e-13)}
    got, want = scores(ops, dtype), scores(reference, "float64")
    for x, y, bound in zip(got, want, (*atol[dtype], atol[dtype][1]), strict=True):
        np.testing.assert_allclose(x, y, atol=bound)
    if names:
        np.testing.assert_allclose(got[0][0, 0, 0], 1 / KEYS, atol=atol[dtype][0])


def test_returned_tuples_are_in_order(path, rng):
    q, k, v, *_ = make_arrays(rng, *SIZES).values()
    both = ops.dot_product_attention(
        q, k, v, return_logsumexp=True, return_attention_scores=True
    )
    assert [len(x.shape) for x in both] == [4, 3, 4]
    one = ops.dot_product_attention(q, k, v, return_attention_scores=True)
    assert [x.shape for x in one] == [both[0].shape, both[2].shape]
    alone = ops.dot_product_attention(q, k, v)
    np.testing.assert_array_equal(alone, both[0])


def test_logsumexp_of_a_query_without_keys_is_minus_infinity(path, rng):
    arrays = make_arrays(rng, *SIZES)
    mask = np.ones((BATCH, 1, QUERIES, KEYS), bool)
    mask[1, 0, 4] = False
    got = run(ops.dot_product_attention, arrays, "float32", {"mask": mask})
    assert np.isneginf(got["logsumexp"][1, :, 4]).all()
    assert np.isneginf(got["logsumexp"]).sum() == 4
    assert np.isfinite(got["grad_query"]).all()
    assert not got["grad_query"][1, 4].any()


def test_bias_is_rounded_to_the_dtype_of_the_inputs(path, rng):
    """As in Keras, where the bias becomes bfloat16 with them."""
    q, k, v = (
        tf.cast(x, "bfloat16") for x in (*make_arrays(rng, *SIZES).values(),)[:3]
    )
    bias = tf.constant(rng.standard_normal((QUERIES, KEYS)), "float32")
    np.testing.assert_array_equal(
        ops.dot_product_attention(q, k, v, bias),
        ops.dot_product_attention(q, k, v, tf.cast(bias, "bfloat16")),
    )


def test_bias_gradient_has_the_shape_and_dtype_of_the_bias(path, rng):
    q, k, v, *_ = make_arrays(rng, *SIZES).values()
    for shape, dtype in [((), "float32"), ((KEYS,), "float64"), ((2, 1, 1, 1), "half")]:
        bias = tf.constant(rng.standard_normal(shape), dtype)
        with tf.GradientTape() as tape:
            tape.watch(bias)
            output = ops.dot_product_attention(q, k, v, bias)
        grad = tape.gradient(output, bias)
        assert grad.shape == shape
        assert grad.dtype == dtype


def test_graph_of_unknown_sizes_is_as_exact_as_keras(path, rng):
    """All options at once; the pairwise test has the others on the kernel."""
    arrays = make_arrays(rng, *SIZES)
    arrays["bias"] = rng.standard_normal((4, 1, KEYS))
    check(arrays, options=all_options(rng), graph=True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_threads_and_repeats_do_not_change_a_bit(dtype, kernel_path, rng):
    arrays = make_arrays(rng, 2, 90, 150, 4, 2, 16, 16)
    arrays["bias"] = rng.standard_normal((4, 1, 150))
    options = {
        "mask": rng.random((1, 4, 90, 150)) < 0.7,
        "key_lengths": np.array([140, 61]),
        "sliding_window": 60,
        "attn_logits_soft_cap": 2.0,
        "dropout_rate": 0.3,
        "dropout_seed": 5,
    }
    assert_threads_change_no_bit(arrays, dtype, options)


def test_xla_gives_the_same_numbers(rng):
    """All options at once, dropout included, compiled by XLA."""
    q, k, v, *_ = (x.astype("float32") for x in make_arrays(rng, *SIZES).values())
    options = all_options(rng) | {
        "bias": rng.standard_normal((4, 1, KEYS)).astype("float32")
    }

    @tf.function(jit_compile=True)
    def compiled(q, k, v):
        return ops.dot_product_attention(q, k, v, **options, return_logsumexp=True)

    for x, y in zip(
        compiled(q, k, v),
        ops.dot_product_attention(q, k, v, **options, return_logsumexp=True),
        strict=True,
    ):
        np.testing.assert_allclose(x, y, atol=2e-6)  # size 1, 41 keys, float32


FUNCTIONAL = {
    "attn_logits_soft_cap": 2.0,
    "sliding_window": 5,
    "dropout_rate": 0.3,
    "return_logsumexp": True,
    "return_attention_scores": True,
}


def functional_model(rng):
    """All options, those that are tensors as inputs of the model."""
    heads = keras.Input((None, 4, 8))
    tensors = {
        "mask": keras.Input((1, None, None), dtype="bool"),
        "key_mask": keras.Input((None,), dtype="bool"),
        "query_lengths": keras.Input((), dtype="int32"),
        "dropout_seed": keras.Input(batch_shape=(), dtype="int64"),
    }
    bias = rng.standard_normal((4, 1, 1)).astype("float32")
    outputs = ops.dot_product_attention(
        heads,
        heads,
        heads,
        bias,
        **FUNCTIONAL,
        **tensors,
    )
    model = keras.Model([heads, *tensors.values()], list(outputs))
    return model, bias


def test_functional_model_with_all_options_saves_and_loads(path, rng, tmp_path):
    model, bias = functional_model(rng)
    assert [x.shape for x in model.outputs] == [
        (None, None, 4, 8),
        (None, 4, None),
        (None, 4, None, None),
    ]
    x = rng.standard_normal((2, 9, 4, 8), np.float32)
    tensors = {
        "mask": rng.random((2, 1, 9, 9)) < 0.8,
        "key_mask": rng.random((2, 9)) < 0.8,
        "query_lengths": np.array([9, 4], "int32"),
        "dropout_seed": np.array(7, "int64"),
    }
    want = ops.dot_product_attention(
        x,
        x,
        x,
        bias,
        **FUNCTIONAL,
        **tensors,
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    inputs = [tf.constant(y) for y in (x, *tensors.values())]
    for some in (model, loaded):
        for a, b in zip(some(inputs), want, strict=True):
            np.testing.assert_array_equal(a, b)


def test_symbolic_options_are_checked():
    x = keras.Input((9, 2, 8))
    for options, message in [
        ({"key_lengths": keras.Input((2,), dtype="int32")}, "`key_lengths` must have"),
        ({"query_lengths": keras.Input(())}, "`query_lengths` must be of an integer"),
        ({"sliding_window": 0}, "`sliding_window` must be"),
        ({"dropout_rate": 0.5}, "`dropout_seed` must be given"),
    ]:
        with pytest.raises(ValueError, match=message):
            ops.dot_product_attention(x, x, x, **options)
