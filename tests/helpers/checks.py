"""Checks that more than one test file uses."""

import keras
import numpy as np
import processes
import tensorflow as tf

from hw3tf import _core, reference

TILES = _core.attention_tiles()
# 1; around the query tile, the key tile and the key chunk; primes; hundreds.
LENGTHS = sorted(
    {1, 2, 7, 101, 200, 331}
    | {
        TILES[name] + d
        for name in ("query_tile", "key_tile", "key_chunk")
        for d in (-1, 0, 1)
    }
)


def make_inputs(rng, batch, query_length, key_length, heads, kv_heads, size, value_dim):
    """Standard normal float32 arrays query, key, value and grad_output."""

    def normal(*shape):
        return rng.standard_normal(shape, dtype=np.float32)

    return (
        normal(batch, query_length, heads, size),
        normal(batch, key_length, kv_heads, size),
        normal(batch, key_length, kv_heads, value_dim),
        normal(batch, query_length, heads, value_dim),
    )


def with_gradients(function, query, key, value, grad_output, **options):
    """[output, grad_query, grad_key, grad_value] of `function` as arrays."""
    inputs = [tf.constant(x) for x in (query, key, value)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        output = function(*inputs, **options)
        loss = tf.reduce_sum(output * tf.constant(grad_output, output.dtype))
    return [x.numpy() for x in (output, *tape.gradient(loss, inputs))]


def exact(query, key, value, grad_output, **options):
    """The judge: the reference in float64."""
    arrays = (x.astype("float64") for x in (query, key, value, grad_output))
    return with_gradients(reference.dot_product_attention, *arrays, **options)


def keras_float32(query, key, value, grad_output, **options):
    """Keras's own attention. It refuses a single key/value head for many query heads
    and warns of a single key: then the reference, the same arithmetic, is used."""
    own = key.shape[1] > 1 and (key.shape[2] > 1 or query.shape[2] == 1)
    function = (keras.ops if own else reference).dot_product_attention
    return with_gradients(function, query, key, value, grad_output, **options)


NAMES = ("output", "grad_query", "grad_key", "grad_value")
# Where Keras happens to hit the exact value (one key: softmax is 1), twice its
# error is no bound: a few units in the last place of float32 are allowed always.
ULPS = 4 * np.finfo(np.float32).eps


def assert_as_close_as_keras(got, exact_values, keras_values, what="", terms=1.0):
    """The error against float64 is at most twice that of Keras's own float32:
    the bound follows the inputs, because rounding grows with the lengths.

    `terms`: the size of the terms whose differences the results are, if they may
    be much larger than the results.
    """
    for name, x, truth, plain in zip(
        NAMES, got, exact_values, keras_values, strict=False
    ):
        assert x.shape == truth.shape, f"{name}: {x.shape}, not {truth.shape}"
        if not x.size:
            continue
        error = np.abs(x - truth).max()
        size = max(terms, np.abs(truth).max())
        bound = 2 * np.abs(plain - truth).max() + ULPS * size
        assert error <= bound, f"{name} {what}: error {error:.2e} > {bound:.2e}"


def run_python(code, **options):
    """Runs `code` in a new process; returns its standard output.

    `options`: as `processes.run` takes them, variables of the environment among them.
    """
    done = processes.run(["-c", code], **options)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def attributes(graph, op, name):
    """Of all ops of this type in a graph and in the functions that it calls."""
    graphs = [graph, *(f.graph for f in getattr(graph, "_functions", {}).values())]
    found = []
    for one in graphs:
        found += [o.get_attr(name) for o in one.get_operations() if o.type == op]
    return found
