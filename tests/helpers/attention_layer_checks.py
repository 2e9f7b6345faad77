"""Checks that the tests of the attention layers share."""

import keras
import numpy as np
import tensorflow as tf
from checks import assert_as_close_as_keras

NONE = {}  # no masks


def with_mask(x, mask):
    """A fresh tensor with a Keras mask: Keras's layer takes it off what it gets."""
    x = tf.identity(x)
    if mask is not None:
        x._keras_mask = tf.constant(mask)
    return x


def results(layer, tensors, masks=NONE, **call):
    """Output, scores if any, gradients of `tensors` and of the weights, as arrays.

    Args:
        tensors: Dict of arrays, `query`, `value` and maybe `key`.
        masks: Dict of the Keras masks of some of them.
    """
    tensors = {k: tf.cast(x, layer.compute_dtype) for k, x in tensors.items()}
    with tf.GradientTape() as tape:
        tape.watch(list(tensors.values()))
        given = {k: with_mask(x, masks.get(k)) for k, x in tensors.items()}
        got = layer(**given, **call)
        got = list(got) if isinstance(got, tuple) else [got]
        loss = tf.reduce_sum(got[0] * tf.cos(got[0]))
    sources = [*tensors.values(), *(w.value for w in layer.trainable_weights)]
    return [
        tf.cast(x, "float64").numpy() for x in (*got, *tape.gradient(loss, sources))
    ]


def trio(ours, theirs, options, shapes):
    """Our layer, Keras's, and Keras's in float64, with the same weights.

    Args:
        ours, theirs: The classes.
        options: Their arguments.
        shapes: Dict of the shapes of `query`, `value` and maybe `key`.
    """
    float64 = {**options, "dtype": "float64"}
    made = ours(**options), theirs(**options), theirs(**float64)
    rng = np.random.default_rng(1)
    for layer in made:
        layer.build(**{f"{k}_shape": shape for k, shape in shapes.items()})
    weights = [rng.standard_normal(w.shape) / 3 for w in made[0].weights]
    for layer in made:
        layer.set_weights(weights)
    return made


def make_tensors(rng, shapes):
    return {k: rng.standard_normal(shape, np.float32) for k, shape in shapes.items()}


def assert_equals_keras(layers, tensors, masks=NONE, theirs=None, **call):
    """The error of every result against float64 is at most twice that of Keras.

    Args:
        layers: As `trio` returns them.
        tensors, masks, call: As for `results`.
        theirs: Arguments for Keras instead of `masks`, if they mean something else
            there.
    """
    ours, plain, judge = layers
    got = results(ours, tensors, masks, **call)
    calls = call if theirs is None else {**call, **theirs}
    masks = masks if theirs is None else NONE
    exact, stock = (results(x, tensors, masks, **calls) for x in (judge, plain))
    assert len(got) == len(exact)
    for i, (x, truth, other) in enumerate(zip(got, exact, stock, strict=True)):
        # Gradients are sums over up to 18 positions, of both sides of a projection,
        # of terms that cancel.
        terms = 1.0 if i == 0 else 8.0
        assert_as_close_as_keras([x], [truth], [other], f"result {i}", terms)


def largest_tensor(function, *specs):
    """Number of elements of the largest tensor in a graph, of those of known shape."""
    graph = tf.function(function, input_signature=specs).get_concrete_function().graph
    shapes = [t.shape for op in graph.get_operations() for t in op.outputs]
    known = [s.as_list() for s in shapes if s.rank is not None]
    return max(np.prod(s) for s in known if None not in s)


def model_of(layer, features, causal=True):
    """A model of the layer alone, of unknown batch and length, padding from zeros."""
    x = keras.Input((None, features))
    y = keras.layers.Masking(0.0)(x)
    return keras.Model(x, layer(y, y, use_causal_mask=causal))


def assert_drawn_anew_with_the_mean(call, x, kept, copies=20, calls=20):
    """Checks dropout of half the attention weights: each call draws its own, so does
    each batch entry, and the mean over many is the output without dropout.

    Args:
        call: Function of `copies` of `x`, one behind the other, to their outputs.
        x: Array.
        kept: The output of `x` without dropout.

    Returns:
        The outputs, `(copies * calls, *kept.shape)`.
    """
    many = np.concatenate([x] * copies)
    draws = np.array([call(many) for _ in range(calls)])
    draws = draws.reshape(calls, copies, *kept.shape)
    first = draws[..., 0, 0, 0]
    for one in (first[0], first[:, 0]):  # the entries of a call; the calls of an entry
        assert len(np.unique(one)) > len(one) / 2
    draws = draws.reshape(-1, *kept.shape)
    spread = draws.std(axis=0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - kept) <= 5 * spread + 1e-6).all()
    return draws
