"""Output in place: the op writes it over a query that has no other reader."""

import numpy as np
import pytest
import tensorflow as tf

from hw3tf import ops

# (batch, queries, keys, heads, key heads, size), dtype: one for every path through
# the kernel.
PATHS = {
    "tiles": ((2, 70, 90, 4, 2, 16), "float32"),
    "columns": ((2, 70, 90, 2, 2, 20), "float32"),
    "few-rows": ((3, 7, 30, 2, 2, 20), "float32"),
    "16-bit": ((2, 70, 90, 2, 2, 16), "bfloat16"),
    "plain": ((2, 9, 20, 4, 2, 8), "float64"),
    "parts-of-keys": ((1, 20, 3000, 2, 2, 16), "float32"),
    "decode": ((2, 1, 700, 4, 2, 16), "float32"),
}


def make_query_key_value(rng, sizes, dtype):
    batch, queries, keys, heads, kv_heads, size = sizes
    shapes = ((queries, heads), (keys, kv_heads), (keys, kv_heads))
    return [
        tf.cast(rng.standard_normal((batch, *shape, size)), dtype) for shape in shapes
    ]


@pytest.mark.parametrize("name", PATHS)
def test_layers_in_a_row_give_the_bits_of_eager(name, kernel_path, rng):
    """In the graph the query of the second and third layer has no other reader; an
    eager tensor always has one, the variable that holds it."""
    query, key, value = make_query_key_value(rng, *PATHS[name])
    # A query of the second batch entry that sees nothing: the mean of the values.
    seen = np.ones((key.shape[0], query.shape[1]), bool)
    seen[-1, 0] = query.shape[1] == 1

    def layers(query, keep):
        kept = []
        for _ in range(3):
            query = ops.dot_product_attention(query, key, value, query_mask=seen)
            if keep:
                kept.append(query)
        return kept or [query]

    eager = layers(query, keep=True)
    np.testing.assert_array_equal(
        tf.function(layers, autograph=False)(query, keep=False)[0], eager[-1]
    )


@pytest.mark.parametrize("name", PATHS)
def test_a_query_that_others_read_stays(name, kernel_path, rng):
    query, key, value = make_query_key_value(rng, *PATHS[name])

    @tf.function(autograph=False)
    def run(query):
        inner = query * 2
        output = ops.dot_product_attention(inner, key, value)
        with tf.control_dependencies([output]):
            return output, inner + 0

    output, inner = run(query)
    np.testing.assert_array_equal(inner, query * 2)
    np.testing.assert_array_equal(
        output, ops.dot_product_attention(query * 2, key, value)
    )
