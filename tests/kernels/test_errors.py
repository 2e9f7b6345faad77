"""Errors of both paths into the kernels, in the same words: they name the argument,
what was expected and what came. hw3tf.ops checks arguments before. These errors are for
direct calls of the module or the op, and for shapes that are known only when a graph
runs."""

import numpy as np
import pytest
import tensorflow as tf
from kernel_paths import backward, forward

PATHS = ("core", "op")
LONG = 2**30  # a sequence of this length is just too long
INFINITY, NAN = float("inf"), float("nan")


def zeros(*shape, dtype="float32"):
    """Zeros of any shape in a few bytes."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def array(*values, dtype="int32"):
    return np.array(values, dtype)


def splits(*values):
    return np.array(values, "int64")


DENSE = {
    "query": np.zeros((2, 5, 4, 8), "float32"),
    "key": np.zeros((2, 7, 2, 8), "float32"),
    "value": np.zeros((2, 7, 2, 6), "float32"),
    "scale": 1.0,
}
PACKED = {
    "query": np.zeros((5, 4, 8), "float32"),
    "key": np.zeros((7, 2, 8), "float32"),
    "value": np.zeros((7, 2, 6), "float32"),
    "query_splits": splits(0, 2, 5),
    "key_splits": splits(0, 7, 7),
    "scale": 1.0,
}

# what is changed -> the message
BAD = [
    ({"query": zeros(5, 4, 8)}, "`query` must have 4 axes: (batch, query_length"),
    ({"key": zeros(2, 7, 2, 8, 1)}, "`key` must have 4 axes: (batch, key_length"),
    ({"value": zeros(2, 7, 12)}, "`value` must have 4 axes: (batch, key_length"),
    ({"query": zeros(2, 5, 4, 0)}, "`query` must have at least one head of at least"),
    ({"query": zeros(2, 5, 0, 8)}, "`query` must have at least one head of at least"),
    ({"key": zeros(3, 7, 2, 8)}, "`key` must have the batch size of `query`, 2"),
    ({"key": zeros(2, 7, 3, 8)}, "`key` must have a number of heads that divides"),
    ({"key": zeros(2, 7, 0, 8)}, "`key` must have a number of heads that divides"),
    ({"key": zeros(2, 7, 2, 9)}, "`key` must have the head size of `query`, 8"),
    ({"value": zeros(2, 8, 2, 6)}, "`value` must have the length and heads of `key`"),
    ({"value": zeros(2, 7, 1, 6)}, "`value` must have the length and heads of `key`"),
    ({"value": zeros(2, 7, 2, 0)}, "`value` must have at least one feature"),
    ({"bias": zeros(2, 4, 5, 6)}, "`bias` must broadcast to (batch, num_heads, que"),
    ({"bias": zeros(2, 2, 5, 7)}, "key_length) = (2, 4, 5, 7). Received: bias.shape"),
    ({"bias": zeros(1, 2, 4, 5, 7)}, "`bias` must broadcast to"),
    ({"bias": zeros(2, 0, 5, 7)}, "`bias` must broadcast to"),
    ({"mask": zeros(3, 1, 1, 7, dtype="bool")}, "`mask` must broadcast to"),
    ({"mask": zeros(5, 6, dtype="bool")}, "`mask` must broadcast to"),
    ({"query_mask": zeros(2, 7, dtype="bool")}, "`query_mask` must have shape (2, 5)"),
    ({"key_mask": zeros(7, dtype="bool")}, "`key_mask` must have shape (2, 7)"),
    ({"query_lengths": array(1, 2, 3)}, "`query_lengths` must have shape (2,)"),
    (
        {"query_lengths": array(0, 6)},
        "length of `query`, 5. Received: query_lengths[1]",
    ),
    ({"query_lengths": array(-1, 5)}, "must be between 0 and the length of `query`"),
    ({"key_lengths": array([1, 2], [3, 4])}, "`key_lengths` must have shape (2,)"),
    ({"key_lengths": array(8, 7)}, "`key`, 7. Received: key_lengths[0]=8"),
    ({"key_lengths": array(7, -(2**31))}, "key_lengths[1]=-2147483648"),
    ({"scale": INFINITY}, "`scale` must be a finite float32. Received: scale=inf"),
    ({"scale": NAN}, "`scale` must be a finite float32"),
    ({"scale": -1e300}, "`scale` must be a finite float32"),
    ({"soft_cap": -1.0}, "`soft_cap` must be 0 (none) or a positive, finite float32"),
    ({"soft_cap": INFINITY}, "`soft_cap` must be 0 (none) or a positive"),
    ({"soft_cap": NAN}, "`soft_cap` must be 0 (none) or a positive"),
    ({"soft_cap": 1e-60}, "`soft_cap` must be 0 (none) or a positive"),
    ({"dropout_rate": 1.0}, "`dropout_rate` must be at least 0 and below 1. Received"),
    ({"dropout_rate": -0.1}, "`dropout_rate` must be at least 0 and below 1"),
    ({"dropout_rate": NAN}, "`dropout_rate` must be at least 0 and below 1"),
    ({"window_before": -2}, "`window_before` must be a number of positions, or -1"),
    ({"window_after": -(2**63)}, "`window_after` must be a number of positions, or"),
    ({"query_splits": splits(0, 5)}, "`query_splits` must have `key_splits` beside it"),
    ({"key_splits": splits(0, 5)}, "`key_splits` must have `query_splits` beside it"),
]
BAD_PACKED = [
    ({"query": zeros(1, 5, 4, 8)}, "`query` must have 3 axes in a packed call: (total"),
    ({"key": zeros(7, 8)}, "`key` must have 3 axes in a packed call: (total_key_len"),
    ({"value": zeros(7)}, "`value` must have 3 axes in a packed call"),
    ({"key": zeros(7, 3, 8)}, "`key` must have a number of heads that divides the 4"),
    ({"key": zeros(7, 2, 9)}, "`key` must have the head size of `query`, 8"),
    ({"value": zeros(6, 2, 6)}, "`value` must have the rows and heads of `key`"),
    ({"query_splits": splits([0, 2, 5])}, "`query_splits` must have shape (batch + 1,"),
    ({"key_splits": splits(0, 7)}, "`key_splits` must have shape (3,)"),
    ({"query_splits": splits(1, 2, 5)}, "must be ascending from 0. Received: query_sp"),
    ({"query_splits": splits(-1, 2, 5)}, "must be ascending from 0. Received: query_s"),
    ({"query_splits": splits(0, 6, 5)}, "must be ascending. Received: query_splits[1]"),
    ({"query_splits": splits(0, 2, 6)}, "the number of rows of `query`, 5. Received"),
    ({"query_splits": splits(0, 2, 4)}, "the number of rows of `query`, 5. Received"),
    ({"key_splits": splits(0, -3, 7)}, "must be ascending. Received: key_splits[0]=0"),
    ({"key_splits": splits(0, 7, 2**62)}, "the number of rows of `key`, 7. Received"),
    ({"key_splits": splits(0, 2**63 - 1, 7)}, "`key_splits` must be ascending"),
    ({"bias": zeros(2, 4, 5, 7)}, "(2, 4, 3, 7). Received: bias.shape=(2, 4, 5, 7)"),
    ({"mask": zeros(2, 1, 3, 6, dtype="bool")}, "`mask` must broadcast to"),
    ({"key_mask": zeros(2, 7, dtype="bool")}, "`key_mask` must have no place in a pac"),
    ({"query_mask": zeros(2, 3, dtype="bool")}, "`query_mask` must have no place in a"),
    ({"key_lengths": array(7, 0)}, "`key_lengths` must have no place in a packed"),
    ({"query_lengths": array(2, 3)}, "`query_lengths` must have no place in a packed"),
]


def refused(path, function, message, *arguments, **options):
    error = ValueError if path == "core" else tf.errors.InvalidArgumentError
    with pytest.raises(error) as caught:
        function(path, *arguments, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("base", "change", "message"),
    [(DENSE, *x) for x in BAD] + [(PACKED, *x) for x in BAD_PACKED],
)
def test_bad_input_is_refused(base, change, message, path):
    call = {
        k: np.ascontiguousarray(v) if k != "scale" and np.ndim(v) else v
        for k, v in {**base, **change}.items()
    }
    refused(path, forward, message, **call)
    names = ("query", "key", "value")
    shape = np.shape(call["query"])
    arguments = [call.pop(n) for n in names]
    result = np.zeros(shape, "float32")
    refused(path, backward, message, *arguments, result, result, result, **call)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("base", [DENSE, PACKED], ids=["dense", "packed"])
def test_results_of_another_call_are_refused(base, path):
    call = dict(base)
    output, statistics, logsumexp = forward(path, **call)
    arguments = [call.pop(name) for name in ("query", "key", "value")]
    good = {
        "output": output,
        "statistics": statistics,
        "grad_output": output,
        "grad_logsumexp": logsumexp,
    }
    backward(path, *arguments, **good, **call)
    for name, x in good.items():
        for wrong in (x[1:], x[..., 1:], x[None], x.ravel()):
            results = {**good, name: np.ascontiguousarray(wrong)}
            message = f"`{name}` must have shape {x.shape}"
            refused(path, backward, message, *arguments, **results, **call)


@pytest.mark.parametrize("base", [DENSE, PACKED], ids=["dense", "packed"])
def test_sizes_that_cannot_be_computed_with_are_refused(base):
    """Arrays of strides 0 reach any size; TensorFlow has none."""
    packed = base is PACKED
    for sizes, message in [
        ({"query": (2, LONG, 4, 8)}, "at most 1073741823 positions"),
        ({"key": (2, LONG, 2, 8), "value": (2, LONG, 2, 6)}, "at most 1073741823"),
        ({"value": (2, 7, 2, 2**40)}, "at most 1073741823 features per head"),
        ({"query": (2, 2**29, 4, 8), "value": (2, 7, 2, 2**29)}, "fit into 64 bits"),
        (
            {"query": (2, 2**29, 2**10, 1), "key": (2, 2**29, 1, 1)}
            | {"value": (2, 2**29, 1, 1)},
            "fit into 64 bits",
        ),
    ]:
        call = dict(base)
        for name, shape in sizes.items():
            call[name] = zeros(*(shape[1:] if packed else shape))
            if packed and name != "value":
                call[f"{name}_splits"] = splits(0, 0, shape[1])
        refused("core", forward, message, **call)


def test_numbers_and_seed_of_the_op_have_their_shapes():
    from hw3tf import ops

    run = ops.load_op_library().hw3tf_attention
    x, none = tf.zeros((1, 3, 2, 4)), [tf.zeros([0])] + [tf.zeros([0], "bool")] * 3
    none += [tf.zeros([0], "int32")] * 2 + [tf.zeros([0], "int64")] * 2
    seed, numbers = tf.zeros([], "int64"), tf.zeros([3], "float64")
    run(x, x, x, *none, seed, numbers)
    with pytest.raises(tf.errors.InvalidArgumentError, match="`dropout_seed` must"):
        run(x, x, x, *none, seed[None], numbers)
    for bad in (numbers[:2], numbers[None], numbers[0]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="`numbers` must have"):
            run(x, x, x, *none, seed, bad)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bias_of_another_precision_is_refused(dtype):
    other = {"float32": "float64", "float64": "float32"}[dtype]
    call = {k: v if k == "scale" else v.astype(dtype) for k, v in DENSE.items()}
    call["bias"] = np.zeros((1, 1, 5, 7), other)
    message = f"`bias` must have dtype {dtype}, which goes with query.dtype={dtype}"
    with pytest.raises(TypeError) as caught:
        forward("core", **call)
    assert message in str(caught.value)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        forward("op", **call)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "dtype", "message"),
    [
        ("query", "int32", "dtype float32, float64, float16 or bfloat16. Received: "),
        ("query", ">f4", "float64, float16 or bfloat16. Received: query.dtype=>f4"),
        ("query", "longdouble", "float16 or bfloat16. Received: query.dtype=float128"),
        ("query", "V2", "float16 or bfloat16"),
        ("key", "float64", "dtype float32, as `query`. Received: key.dtype=float64"),
        ("value", ">f4", "dtype float32, as `query`. Received: value.dtype=>f4"),
        ("bias", "float16", "`bias` must have dtype float32, which goes with"),
        ("mask", "float32", "`mask` must have dtype bool. Received: mask.dtype=float"),
        ("query_mask", "int8", "`query_mask` must have dtype bool"),
        ("key_mask", "uint8", "`key_mask` must have dtype bool"),
        ("query_lengths", "int64", "`query_lengths` must have dtype int32"),
        ("key_lengths", "uint32", "`key_lengths` must have dtype int32"),
        ("query_splits", "int32", "`query_splits` must have dtype int64"),
        ("key_splits", "uint64", "`key_splits` must have dtype int64"),
    ],
)
def test_wrong_dtype_is_refused_not_converted(name, dtype, message):
    shapes = {"bias": (5, 7), "mask": (5, 7), "query_mask": (2, 5), "key_mask": (2, 7)}
    call = dict(DENSE)
    call[name] = np.zeros(shapes.get(name, np.shape(call.get(name, (0,)))), dtype)
    with pytest.raises(TypeError) as caught:
        forward("core", **call)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["query", "mask", "key_lengths", "query_splits"])
def test_what_is_no_array_is_refused(name):
    with pytest.raises(TypeError, match="incompatible function arguments"):
        forward("core", **{**DENSE, name: [1.0, 2.0]})


def test_layouts_that_no_kernel_can_read_are_refused():
    half = np.zeros((2, 7, 2, 16), "float32")[..., ::2]
    apart = np.zeros((5, 7), [("x", "float32"), ("y", "int8")])["x"]
    odd = np.frombuffer(bytearray(4 * 80 * 8 + 1), "float32", 80 * 4, 1)
    columns = np.zeros((2, 14), bool)[:, ::2]
    for name, x, message in (
        ("key", half, "`key` must be contiguous along its last axis"),
        ("query", odd.reshape(2, 5, 4, 8), "`query` must be aligned"),
        ("bias", apart, "`bias` must be "),
        ("key_mask", columns, "`key_mask` must be C-contiguous"),
        ("key_lengths", np.zeros(4, "int32")[::2], "must be C-contiguous"),
    ):
        refused("core", forward, message, **{**DENSE, name: x})


@pytest.mark.parametrize("shape", [(1, 2, 3), (1, 2, 3, -4), (2**40, 2**40, 1, 1)])
def test_dropout_mask_of_no_scores_is_refused(shape):
    from hw3tf import _core

    with pytest.raises(ValueError, match="`shape` must be 4 sizes") as caught:
        _core.attention_dropout_mask(shape, rate=0.5, seed=0)
    assert str(shape) in str(caught.value)
    with pytest.raises(ValueError, match="`rate` must be at least 0 and below 1"):
        _core.attention_dropout_mask((1, 1, 1, 1), rate=1.0, seed=0)
