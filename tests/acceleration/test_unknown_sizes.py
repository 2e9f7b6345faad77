"""`enable()` in graphs that do not know all sizes: Keras computes calls whose scores
are broadcast to a larger mask or bias."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import hw3tf

UNKNOWN = tf.TensorSpec([None, None, 2, 8])
KNOWN = tf.TensorSpec([None, 4, 2, 8])


def results(q, k, v, mask=None, bias=None, **options):
    """The output of Keras's function and the gradients of its tensors."""
    tensors = [q, k, v] + ([] if bias is None else [bias])
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        output = keras.ops.dot_product_attention(
            q, k, v, mask=mask, bias=bias, **options
        )
        loss = tf.reduce_sum(output * tf.cos(output))
    return [output, *tape.gradient(loss, tensors)]


def both(tensors, specs, **options):
    """Results in a graph of `specs` with hw3tf enabled, and of Keras eagerly."""
    names = list(tensors)

    def call(*values):
        return results(**dict(zip(names, values, strict=True)), **options)

    with hw3tf.enable():
        got = tf.function(call, input_signature=specs)(*tensors.values())
    return got, results(**tensors, **options)


def inputs(rng, queries=1, keys=6, **more):
    def normal(*shape):
        return tf.constant(rng.standard_normal(shape), "float32")

    tensors = {"q": normal(3, queries, 2, 8)}
    tensors |= {name: normal(3, keys, 2, 8) for name in "kv"}
    return tensors | {k: normal(*s) for k, s in more.items()}


def assert_close(got, want):
    for x, y in zip(got, want, strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


SHAPES = {
    "one query, longer": (1, (3, 1, 4, 6)),
    "one query, longer, of heads": (1, (1, 2, 4, 6)),
    "fits": (4, (3, 1, 4, 6)),
    "keys only": (4, (3, 1, 1, 6)),
    "rank 2": (1, (4, 6)),
}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["mask", "bias"])
@pytest.mark.parametrize("shape", SHAPES)
def test_mask_and_bias_larger_than_the_scores(shape, name, causal, rng):
    queries, sizes = SHAPES[shape]
    tensors = inputs(rng, queries, **{name: sizes})
    dtype = "float32"
    if name == "mask":
        tensors["mask"], dtype = tensors["mask"] > -0.5, "bool"
    specs = [UNKNOWN] * 3 + [tf.TensorSpec([None] * len(sizes), dtype)]
    assert_close(*both(tensors, specs, is_causal=causal))


def test_mask_that_fits_nothing_raises_the_error_of_keras(rng):
    tensors = inputs(rng, 4) | {"mask": tf.ones((3, 1, 5, 6), "bool")}
    specs = [UNKNOWN] * 3 + [tf.TensorSpec([None] * 4, "bool")]
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"[Ii]ncompatible|[Bb]cast"
    ):
        both(tensors, specs)


def test_value_of_other_heads_than_the_query_is_not_mixed_up(rng):
    """A mask of two heads, where query and key have one: Keras refuses, too."""
    tensors = inputs(rng, 4)
    tensors["q"], tensors["k"] = (tensors[n][:, :, :1] for n in "qk")
    tensors["mask"] = tf.ones((3, 2, 4, 6), "bool")
    specs = [tf.TensorSpec([None, None, None, 8])] * 3
    specs.append(tf.TensorSpec([None] * 4, "bool"))
    assert_close(*both(tensors, specs))


def test_no_keys_in_a_graph(rng):
    assert_close(*both(inputs(rng, 4, 0), [UNKNOWN] * 3))


@pytest.mark.parametrize(
    ("spec", "mask", "conditions"),
    [
        (KNOWN, [None, 1, 4, 4], 0),
        (KNOWN, [None, 1, 1, None], 1),
        (UNKNOWN, [None, 1, 1, 6], 1),
        (UNKNOWN, [None, 1, None, None], 1),
        (UNKNOWN, None, 0),
    ],
)
def test_condition_is_made_only_where_sizes_are_unknown(spec, mask, conditions):
    specs = [spec] * 3 + ([] if mask is None else [tf.TensorSpec(mask, "bool")])

    @tf.function(input_signature=specs)
    def call(q, k, v, mask=None):
        return keras.ops.dot_product_attention(q, k, v, mask=mask)

    with hw3tf.enable():
        operations = call.get_concrete_function().graph.get_operations()
    assert sum(x.type in ("If", "StatelessIf") for x in operations) == conditions
