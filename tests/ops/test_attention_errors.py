"""Errors for bad input: they name the argument, what was expected and what came."""

import numpy as np
import pytest
import tensorflow as tf

from hw3tf import ops

GOOD = {
    "query": (2, 5, 4, 8),
    "key": (2, 7, 2, 8),
    "value": (2, 7, 2, 6),
    "query_mask": (2, 5),
    "key_mask": (2, 7),
}

# argument -> a shape that does not fit, and the message
BAD_SHAPES = [
    ("query", (5, 4, 8), "query` must have 4 axes"),
    ("key", (2, 7, 2, 8, 1), "key` must have 4 axes"),
    ("value", (2, 7, 12), "value` must have 4 axes"),
    ("query", (2, 5, 4, 0), "query` must have at least one head of at least one"),
    ("query", (2, 5, 0, 8), "query` must have at least one head"),
    ("key", (3, 7, 2, 8), "key` must have the batch size of `query`, 2, or 1"),
    ("value", (3, 7, 2, 6), "value` must have the batch size of `query`, 2, or 1"),
    ("key", (2, 7, 3, 8), "key` must have a number of heads that divides the 4"),
    ("key", (2, 7, 0, 8), "key` must have a number of heads that divides the 4"),
    ("key", (2, 7, 2, 9), "key` must have the head size of `query`, 8"),
    ("value", (2, 8, 2, 6), "value` must have the length and heads"),
    ("value", (2, 7, 1, 6), "value` must have the length and heads"),
    ("value", (2, 7, 2, 0), "value` must have at least one feature"),
    ("query_mask", (2, 6), "query_mask` must have shape (2, 5)"),
    ("key_mask", (3, 7), "key_mask` must have shape (2, 7)"),
]


def zeros(**shapes):
    return {
        name: tf.zeros(shape, "bool" if "mask" in name else "float32")
        for name, shape in {**GOOD, **shapes}.items()
    }


@pytest.mark.parametrize(("name", "shape", "message"), BAD_SHAPES)
def test_bad_shape_is_refused(name, shape, message, path):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        ops.dot_product_attention(**zeros(**{name: shape}))
    assert message in str(caught.value)
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [case for case in BAD_SHAPES if len(case[1]) == len(GOOD[case[0]])],
)
def test_bad_shape_is_refused_when_the_graph_runs(name, shape, message, kernel_path):
    """Unknown axes pass the static check; the kernel's own check stops them."""
    arguments = zeros(**{name: shape})
    unknown = [
        tf.TensorSpec([None] * len(GOOD[n]), x.dtype) for n, x in arguments.items()
    ]

    @tf.function(input_signature=unknown)
    def run(query, key, value, query_mask, key_mask):
        return ops.dot_product_attention(
            query, key, value, scale=1.0, query_mask=query_mask, key_mask=key_mask
        )

    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        run(*arguments.values())
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_integer_input_is_refused(name, path):
    arguments = zeros()
    arguments[name] = tf.cast(arguments[name], "int32")
    with pytest.raises(ValueError, match=f"`{name}` must be of a floating-point dtype"):
        ops.dot_product_attention(**arguments)


@pytest.mark.parametrize("name", ["mask", "bias"])
@pytest.mark.parametrize("shape", [(2, 1, 1, 6), (3, 1, 1, 7), (1, 2, 4, 5, 7), (5, 6)])
def test_what_does_not_broadcast_is_refused(name, shape, path):
    arguments = {k: v for k, v in zeros().items() if "mask" not in k}
    arguments[name] = np.ones(shape, "float32")
    with pytest.raises(ValueError, match=f"`{name}` must broadcast") as caught:
        ops.dot_product_attention(**arguments)
    assert str(shape) in str(caught.value)


# arguments that are wrong by themselves, and the message
BAD_OPTIONS = [
    ({"sliding_window": 0}, "`sliding_window` must be None or a positive integer"),
    ({"sliding_window": -3}, "sliding_window=-3"),
    ({"sliding_window": 2.0}, "sliding_window=2.0"),
    ({"sliding_window": True}, "sliding_window=True"),
    ({"attn_logits_soft_cap": 0}, "`attn_logits_soft_cap` must be None or a positive"),
    ({"attn_logits_soft_cap": -1.0}, "attn_logits_soft_cap=-1.0"),
    ({"attn_logits_soft_cap": float("inf")}, "attn_logits_soft_cap=inf"),
    ({"attn_logits_soft_cap": float("nan")}, "attn_logits_soft_cap=nan"),
    ({"dropout_rate": 1.0}, "`dropout_rate` must be a number from 0 to 1, exclusive"),
    ({"dropout_rate": -0.1}, "dropout_rate=-0.1"),
    ({"dropout_rate": float("nan")}, "dropout_rate=nan"),
    ({"dropout_rate": None}, "dropout_rate=None"),
    ({"dropout_rate": 0.1}, "`dropout_seed` must be given where `dropout_rate`"),
    ({"dropout_rate": 0.1, "dropout_seed": 0.5}, "dropout_seed=0.5"),
    ({"dropout_rate": 0.1, "dropout_seed": 2**64}, f"dropout_seed={2**64}"),
    ({"dropout_rate": 0.1, "dropout_seed": np.ones(())}, "dropout_seed.dtype=float64"),
    ({"dropout_rate": 0.1, "dropout_seed": np.ones(2, int)}, "dropout_seed.shape=(2,)"),
    ({"query_lengths": [1.0, 2.0]}, "`query_lengths` must be of an integer dtype"),
    ({"key_lengths": [True, False]}, "key_lengths.dtype=bool"),
    ({"key_lengths": [1, 2, 3]}, "`key_lengths` must have shape (2,)"),
    ({"query_lengths": [[1, 2]]}, "query_lengths.shape=(1, 2)"),
    ({"query_lengths": 3}, "query_lengths.shape=()"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_bad_option_is_refused(options, message, path):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        ops.dot_product_attention(**zeros(), **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["query_lengths", "key_lengths"])
@pytest.mark.parametrize("lengths", [[-1, 2], [3, 8]])
def test_lengths_out_of_range_are_refused(lengths, name, kernel_path):
    errors = (ValueError, tf.errors.InvalidArgumentError)  # pybind11, the op
    with pytest.raises(errors, match=f"`{name}.* between 0"):
        ops.dot_product_attention(**zeros(), **{name: lengths})


@pytest.mark.parametrize("name", ["mask", "bias", "query_lengths", "key_lengths"])
def test_bad_option_is_refused_when_the_graph_runs(name, kernel_path):
    kind = {"mask": "bool", "bias": "float32"}.get(name, "int32")
    good = zeros()

    def run(tensor):
        return ops.dot_product_attention(**good, **{name: tensor})

    rank = 1 if "lengths" in name else 4
    run = tf.function(run, input_signature=[tf.TensorSpec([None] * rank, kind)])
    shape = [3] if "lengths" in name else [2, 4, 5, 6]
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"`{name}` must"):
        run(tf.ones(shape, kind))


def test_wrong_call_of_the_op_from_outside_is_refused():
    """The op is public to TensorFlow. A call without hw3tf.ops gets the kernel's own
    check, gradients included."""
    library = ops.load_op_library()
    x, no_mask = tf.zeros((1, 3, 2, 4)), tf.zeros([0], "bool")
    no_bias, no_lengths = tf.zeros([0]), tf.zeros([0], "int32")
    no_splits = tf.zeros([0], "int64")
    rest = [no_lengths] * 2 + [no_splits] * 2 + [tf.zeros([], "int64")]
    rest.append(tf.constant([1.0, 0.0, 0.0], "float64"))
    inputs = [x, x, x, no_bias, *[no_mask] * 3, *rest]
    output, statistics, _ = library.hw3tf_attention(*inputs)
    error = tf.errors.InvalidArgumentError
    with pytest.raises(error, match="`grad_output` must have"):
        library.hw3tf_attention_grad(
            *inputs, output, statistics, tf.zeros((1, 3, 2, 5)), no_bias
        )
    with pytest.raises(error, match="`statistics` must have"):
        library.hw3tf_attention_grad(
            *inputs, output, statistics[..., :1], output, no_bias
        )
    inputs[6] = tf.zeros([3], "bool")
    with pytest.raises(error, match="`key_mask` must have"):
        library.hw3tf_attention(*inputs)
