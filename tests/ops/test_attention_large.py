"""Large values: finite inputs give finite results where Keras's are finite, and
infinite numbers cost no more than finite ones."""

import numpy as np
import pytest
import tensorflow as tf
from checks import run_python

from hw3tf import _core, ops, reference

# With weights of up to 2**24 before they are divided by their sum, values from 2e31 on
# leave float32.
LARGEST = {"float32": 3.3e38, "bfloat16": 3.3e38, "float64": 1.7e308}


def rising(rng, query_length, key_length, dtype):
    """A call whose later scores are up to 16 higher than the first: the kernel does not
    raise its maximum for that little."""
    query = np.ones((1, query_length, 2, 4))
    key = np.zeros((1, key_length, 2, 4))
    key[..., 0] = np.linspace(0, 32, key_length)[None, :, None]
    value = rng.uniform(0.5, 1.0, (1, key_length, 2, 8)) * LARGEST[dtype]
    value[..., 5:] = rng.standard_normal((1, key_length, 2, 3))
    return [tf.constant(x, dtype) for x in (query, key, value)]


CASES = {
    "lanes": (40, 300, {}),
    "few": (3, 33, {}),
    "terms": (40, 300, {"dropout_rate": 0.5, "dropout_seed": 1}),
    "causal": (300, 300, {"is_causal": True}),
    "split": (8, 3000, {}),
    "decode": (1, 1500, {}),
    "sees-nothing": (5, 7, {"key_mask": np.zeros((1, 7), bool)}),
}


@pytest.mark.parametrize("dtype", LARGEST)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_large_values_give_finite_outputs(case, dtype, kernel_path, rng):
    query_length, key_length, options = case
    inputs = rising(rng, query_length, key_length, dtype)
    if dtype == "float64":
        # The judge of float64: the same in values 2**-100 times as large.
        small = [*inputs[:2], inputs[2] * 2.0**-100]
        want = reference.dot_product_attention(*small, **options) * 2.0**100
    else:
        wide = [tf.cast(x, "float64") for x in inputs]
        want = reference.dot_product_attention(*wide, **options)
    want = tf.cast(want, "float64").numpy()
    got = tf.cast(ops.dot_product_attention(*inputs, **options), "float64").numpy()
    if "dropout_rate" in options:  # twice the largest number may be no number
        fits = np.abs(want) < LARGEST[dtype]
        assert fits.any()
        got, want = got[fits], want[fits]
    assert np.isfinite(got).all()
    eps = {"float32": 2.0**-23, "bfloat16": 2.0**-7, "float64": 2.0**-52}[dtype]
    np.testing.assert_allclose(got, want, rtol=64 * eps, atol=64 * eps)


def test_what_sees_an_infinity_is_infinite(kernel_path, rng):
    """Computing again changes nothing where the values are not finite themselves."""
    query, key, value = rng.standard_normal((3, 1, 40, 2, 8), "float32")
    value[0, 11, :, 3] = np.inf
    value[0, 20, :, 4] = np.nan
    got = ops.dot_product_attention(query, key, value, is_causal=True).numpy()
    assert np.isposinf(got[0, 11:, :, 3]).all()
    assert np.isnan(got[0, 20:, :, 4]).all()
    finite = np.isfinite(got)
    assert finite[0, :11].all()
    assert finite[..., [0, 1, 2, 5, 6, 7]].all()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("options", [{"is_causal": True}, {"window_before": 40}])
def test_infinite_upstream_gradients_reach_what_is_seen(bad, options, rng):
    """A float16 loss scale that overflows: the values that a query sees get it, in
    every feature that has it, and no others; block by block, at the edges of tiles."""
    length, row = 300, 130
    query, key, value = rng.standard_normal((3, 1, length, 1, 20), "float32")
    output, statistics, _ = _core.attention_forward(
        query, key, value, scale=0.2, **options
    )
    grad = rng.standard_normal(output.shape, "float32")
    plain = _core.attention_backward(
        query, key, value, output, statistics, grad, scale=0.2, **options
    )
    grad[0, row:, :, 7] = bad
    *_, grad_value, _ = _core.attention_backward(
        query, key, value, output, statistics, grad, scale=0.2, **options
    )
    seen = np.arange(length) <= length - 1
    if "window_before" in options:
        seen = np.arange(length) >= row - 40
    assert not np.isfinite(grad_value[0, seen, :, 7]).any()
    assert np.isfinite(grad_value[0, ~seen]).all()
    others = np.arange(20) != 7
    np.testing.assert_array_equal(grad_value[..., others], plain[2][..., others])


def test_padded_batches_pass_check_numerics():
    """TensorFlow's check of every result for infinity and NaN, on all paths."""
    code = """
import os
import numpy as np
import tensorflow as tf
import hw3tf

tf.debugging.enable_check_numerics()
rng = np.random.default_rng(0)
x = tf.constant(rng.standard_normal((2, 6, 8)), "float32")
mask = np.arange(6)[None] < np.array([[6], [0]])
masks = {"query_mask": mask, "value_mask": mask}
heads = tf.reshape(x, (2, 6, 2, 4))
calls = [
    {"key_mask": mask},
    {"key_lengths": [0, 3], "is_causal": True},
    {"key_mask": mask, "dropout_rate": 0.2, "dropout_seed": 3},
    {"key_mask": mask, "return_attention_scores": True},
]
for path in ("op", "pybind", "reference"):
    os.environ["HW3TF_PATH"] = path
    for dropout in (0.0, 0.3):
        for layer in (
            hw3tf.layers.MultiHeadAttention(2, 4, dropout=dropout),
            hw3tf.layers.GroupQueryAttention(4, 4, 2, dropout=dropout),
        ):
            for call in (layer, tf.function(layer)):
                with tf.GradientTape() as tape:
                    output = call(x, x, **masks, training=True)
                tape.gradient(output, layer.trainable_variables)
    for options in calls:
        with tf.GradientTape() as tape:
            tape.watch(heads)
            output = hw3tf.ops.dot_product_attention(heads, heads, heads, **options)
        tape.gradient(output, heads)
    ragged = tf.RaggedTensor.from_row_lengths(heads[0], [4, 0, 2])
    keys = tf.RaggedTensor.from_row_lengths(heads[1], [0, 3, 3])
    hw3tf.ops.ragged_dot_product_attention(ragged, keys, keys)
    # A logsumexp that is asked for may be infinite.
    try:
        hw3tf.ops.dot_product_attention(
            heads, heads, heads, key_mask=mask, return_logsumexp=True
        )
    except tf.errors.InvalidArgumentError:
        print(path)
"""
    assert run_python(code, HW3TF_PATH=None).split() == ["op", "pybind", "reference"]
