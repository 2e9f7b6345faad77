"""`hw3tf.ops.ragged_dot_product_attention` against one sequence after the other."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from option_checks import EPS

from hw3tf import ops, reference

HEADS, KV_HEADS, SIZE, VALUE_DIM = 4, 2, 8, 6
# Sequences without queries, without keys, of one position, longer than a tile.
QUERY_LENGTHS = [3, 9, 0, 4, 1, 150]
KEY_LENGTHS = [5, 2, 3, 0, 1, 170]
SCORES = (6, HEADS, 150, 170)


def make_inputs(rng, query_lengths=None, key_lengths=None):
    """float64 arrays of packed query, key, value and grad_output, and lengths."""
    query_lengths = query_lengths or QUERY_LENGTHS
    key_lengths = key_lengths or KEY_LENGTHS
    queries, keys = sum(query_lengths), sum(key_lengths)
    shapes = (
        (queries, HEADS, SIZE),
        (keys, KV_HEADS, SIZE),
        (keys, KV_HEADS, VALUE_DIM),
        (queries, HEADS, VALUE_DIM),
    )
    return [rng.standard_normal(s) for s in shapes], query_lengths, key_lengths


def ragged(values, lengths):
    return tf.RaggedTensor.from_row_lengths(values, lengths)


def run(function, inputs, dtype, bias=None, graph=False, **options):
    """[output, grad_query, grad_key, grad_value, (grad_bias)] of packed arrays."""
    arrays, query_lengths, key_lengths = inputs
    tensors = [tf.cast(x, dtype) for x in arrays]
    if bias is not None:
        tensors.append(tf.cast(bias, dtype))

    def compute(query, key, value, grad_output, *bias):
        watched = [query, key, value, *bias]
        with tf.GradientTape() as tape:
            tape.watch(watched)
            output = function(
                ragged(query, query_lengths),
                ragged(key, key_lengths),
                ragged(value, key_lengths),
                *bias,
                **options,
            ).values
        grads = tape.gradient(output, watched, output_gradients=grad_output)
        return [output, *map(tf.convert_to_tensor, grads)]

    if graph:
        spec = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in tensors]
        compute = tf.function(compute, input_signature=spec)
    return [tf.cast(x, "float64").numpy() for x in compute(*tensors)]


def one_by_one(query, key, value, bias=None, mask=None, dropout_rate=0.0, **options):
    """The judge: `reference.dot_product_attention` of each sequence by itself."""
    seed = options.pop("dropout_seed", None)
    outputs = []
    for b in range(query.shape[0]):
        queries, keys = query[b].shape[0], key[b].shape[0]
        if not keys:
            outputs.append(tf.zeros((queries, HEADS, value.shape[-1]), value.dtype))
            continue
        own = {}
        for name, x in (("bias", bias), ("mask", mask)):
            if x is not None:
                x = tf.convert_to_tensor(x)
                x = x[(None,) * (4 - len(x.shape))]
                x = x[b : b + 1] if x.shape[0] > 1 else x
                own[name] = x[:, :, :queries, :keys]
        if dropout_rate:
            # That of the padded batch: an entry's own mask has another number.
            x = weighted(
                query[b], key[b], value[b], dropout_rate, seed, b, **own, **options
            )
        else:
            x = reference.dot_product_attention(
                query[b][None], key[b][None], value[b][None], **own, **options
            )[0]
        outputs.append(x)
    return query.with_values(tf.concat(outputs, axis=0))


def weighted(query, key, value, rate, seed, b, **options):
    """One sequence with the dropout of batch entry `b`."""
    query, key, value = query[None], key[None], value[None]
    _, logsumexp, weights = reference.dot_product_attention(
        query,
        key,
        value,
        **options,
        return_logsumexp=True,
        return_attention_scores=True,
    )
    keep = ops.attention_dropout_mask(
        b + 1, HEADS, query.shape[1], key.shape[1], rate=rate, seed=seed
    )[b:]
    factor = np.where(np.isneginf(logsumexp)[..., None], 1.0, keep / (1 - rate))
    weights *= tf.cast(factor, weights.dtype)
    value = tf.repeat(value, HEADS // KV_HEADS, axis=2)
    return tf.einsum("bnts,bsnh->btnh", weights, value)[0]


OPTIONS = {
    "plain": {},
    "causal": {"is_causal": True},
    # The last queries of the second sequence are behind all of its keys.
    "window": {"is_causal": True, "sliding_window": 3},
    "cap": {"attn_logits_soft_cap": 1.5, "scale": -0.4},
    "bias": {"bias": (HEADS, 150, 170)},
    "bias-of-batch": {"bias": (6, 1, 1, 170)},
    "mask": {"mask": (6, HEADS, 150, 170)},
    "mask-of-keys": {"mask": (1, 1, 1, 170)},
    "dropout": {"dropout_rate": 0.4, "dropout_seed": 3},
    "all": {
        "bias": (1, HEADS, 150, 1),
        "mask": (6, 1, 1, 170),
        "is_causal": True,
        "sliding_window": 40,
        "attn_logits_soft_cap": 2.0,
        "dropout_rate": 0.4,
        "dropout_seed": -3,
    },
}


def options_named(name, rng):
    options = dict(OPTIONS[name])
    if "bias" in options:
        options["bias"] = rng.standard_normal(options["bias"])
    if "mask" in options:
        options["mask"] = rng.random(options["mask"]) < 0.7
    return options


CASES = [(name, "float32") for name in OPTIONS]
CASES += [
    (name, dtype) for name in ("plain", "all") for dtype in ("bfloat16", "float64")
]


@functools.cache
def case_and_results(name, dtype):
    """Inputs and options; results one by one, exact and in the dtype."""
    rng = np.random.default_rng(0)
    inputs, options = make_inputs(rng), options_named(name, rng)
    arrays = [tf.cast(tf.cast(x, dtype), "float64").numpy() for x in inputs[0]]
    inputs = (arrays, *inputs[1:])
    if "bias" in options:
        bias = tf.cast(tf.cast(options["bias"], dtype), "float64")
        options["bias"] = bias.numpy()
    exact = run(one_by_one, inputs, "float64", **options)
    narrow = "float32" if dtype == "float64" else dtype
    return inputs, options, exact, run(one_by_one, inputs, narrow, **options)


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_result_and_gradients_are_those_of_one_by_one(name, dtype, path):
    """At most twice as wrong as one by one in the same dtype; in bfloat16, up to
    the rounding of its output, which is summed over 6 values and 4 heads."""
    inputs, options, exact, plain = case_and_results(name, dtype)
    got = run(ops.ragged_dot_product_attention, inputs, dtype, **options)
    for x, truth, other in zip(got, exact, plain, strict=True):
        bound = 2 * np.abs(other - truth).max()
        if dtype == "float64":
            bound *= 1.5 * EPS["float64"] / EPS["float32"]
        bound += 4 * EPS[dtype] * max(1.0, np.abs(truth).max())
        assert np.abs(x - truth).max() <= bound


@pytest.mark.parametrize("name", OPTIONS)
def test_graph_of_unknown_sizes_gives_the_bits_of_eager(name, kernel_path, rng):
    inputs, options = make_inputs(rng), options_named(name, rng)
    function = ops.ragged_dot_product_attention
    eager = run(function, inputs, "float32", **options)
    graph = run(function, inputs, "float32", graph=True, **options)
    for x, y in zip(eager, graph, strict=True):
        np.testing.assert_array_equal(x, y)


def test_ragged_arguments_of_a_graph(path, rng):
    """Lengths that are known only when the graph runs; one trace for all."""
    spec = tf.RaggedTensorSpec([None, None, 2, 4], ragged_rank=1)

    @tf.function(input_signature=[spec])
    def step(x):
        y = ops.ragged_dot_product_attention(x, x, x, is_causal=True)
        assert y.shape.as_list() == [None, None, 2, 4]
        return y

    for lengths in ([3, 0, 5], [1], [2, 40]):
        x = ragged(rng.standard_normal((sum(lengths), 2, 4)).astype("float32"), lengths)
        y = step(x)
        np.testing.assert_array_equal(y.row_lengths(), lengths)
        for b, length in enumerate(lengths):
            if length:
                want = ops.dot_product_attention(*[x[b][None]] * 3, is_causal=True)
                np.testing.assert_allclose(y[b], want[0], atol=1e-6)


def test_ragged_is_the_padded_batch_with_lengths(kernel_path, rng):
    """The cost is another, the numbers are not: dropout included."""
    inputs, query_lengths, key_lengths = make_inputs(rng, [3, 9, 5, 40], [5, 2, 30, 8])
    query, key, value = (
        ragged(x.astype("float32"), n)
        for x, n in zip(
            inputs[:3], [query_lengths, key_lengths, key_lengths], strict=True
        )
    )
    options = {"dropout_rate": 0.3, "dropout_seed": 4, "attn_logits_soft_cap": 3.0}
    got = ops.ragged_dot_product_attention(query, key, value, **options)
    want = ops.dot_product_attention(
        query.to_tensor(),
        key.to_tensor(),
        value.to_tensor(),
        key_lengths=key_lengths,
        **options,
    )
    for b, length in enumerate(query_lengths):
        np.testing.assert_allclose(got[b], want[b, :length], atol=1e-6)


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]], ids=str)
def test_batch_without_positions_gives_the_same(lengths, path):
    x = ragged(tf.zeros((0, 2, 4)), tf.constant(lengths, "int64"))
    y = ops.ragged_dot_product_attention(x, x, x)
    np.testing.assert_array_equal(y.row_lengths(), lengths)
    assert y.values.shape == (0, 2, 4)


def test_row_splits_of_32_bits(path, rng):
    values = rng.standard_normal((7, 2, 4)).astype("float32")
    x = ragged(values, [3, 4])
    narrow = x.with_row_splits_dtype("int32")
    y = ops.ragged_dot_product_attention(narrow, narrow, narrow)
    assert y.row_splits.dtype == "int32"
    want = ops.ragged_dot_product_attention(x, x, x)
    np.testing.assert_array_equal(y.values, want.values)


def test_mixed_dtypes_are_promoted(path, rng):
    x = ragged(rng.standard_normal((7, 2, 4)).astype("float16"), [3, 4])
    y = ops.ragged_dot_product_attention(x, tf.cast(x, "float32"), x)
    assert y.dtype == "float32"


X = tf.RaggedTensor.from_row_lengths(tf.ones((7, 2, 4)), [3, 4])
DEEP = tf.RaggedTensor.from_row_lengths(X, [1, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": tf.ones((2, 3, 2, 4))}, "`query` must be a `tf.RaggedTensor`"),
        ({"value": tf.ones((2, 3, 2, 4))}, "`value` must be a `tf.RaggedTensor`"),
        ({"key": DEEP}, "`key` must have one ragged axis"),
        ({"key": X[:1]}, "`key` must have the batch size of `query`, 2"),
        ({"value": X[:1]}, "`value` must have the batch size of `query`, 2"),
        ({"value": ragged(X.values, [4, 3])}, r"the lengths of `key`, \[3, 4\]"),
        ({"query": tf.cast(X, "int32")}, "`query` must be of a floating-point dtype"),
        ({"key": X[..., :3]}, "`key` must have the head size of `query`, 4"),
        ({"value": X[:, :, :1]}, "`value` must have the rows and heads of `key`"),
        ({"bias": tf.zeros((3, 1, 1))}, "`bias` must broadcast"),
        ({"sliding_window": 0}, "`sliding_window` must be"),
        ({"dropout_rate": 0.5}, "`dropout_seed` must be given"),
    ],
)
def test_bad_arguments_are_refused(arguments, message, path):
    with pytest.raises(ValueError, match=message):
        ops.ragged_dot_product_attention(
            **{**dict.fromkeys(["query", "key", "value"], X), **arguments}
        )


def test_bad_sizes_are_refused_when_the_graph_runs(kernel_path):
    spec = tf.RaggedTensorSpec([None, None, 2, 4], ragged_rank=1)

    @tf.function(input_signature=[spec] * 3)
    def step(query, key, value):
        return ops.ragged_dot_product_attention(query, key, value)

    for wrong in (ragged(X.values, [4, 3]), X[:1]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            step(X, X, wrong)
    with pytest.raises(tf.errors.InvalidArgumentError, match="key_splits"):
        step(X, X[:1], X[:1])
