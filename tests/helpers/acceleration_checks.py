"""Checks that the tests of `hw3tf.acceleration` share."""

import keras
import numpy as np
import pytest

import hw3tf

EPS = np.finfo(np.float32).eps


def randomize(model, rng):
    """Gives all weights values that make attention far from uniform, unlike KerasHub's
    initial weights."""
    for weight in model.weights:
        if not keras.backend.is_float_dtype(weight.dtype):
            continue
        values = rng.standard_normal(weight.shape)
        if len(weight.shape) > 1:
            rows = weight.shape[-2] if len(weight.shape) == 2 else weight.shape[0]
            weight.assign(values * 2 / np.sqrt(rows))
        else:
            weight.assign(keras.ops.convert_to_numpy(weight) + 0.1 * values)


def outputs(model, inputs, **kwargs):
    """All results of a call, as arrays of float32."""
    flat = keras.tree.flatten(model(inputs, **kwargs))
    arrays = (keras.ops.convert_to_numpy(x) for x in flat if x is not None)
    return [x.astype("float32") for x in arrays]


def gradients(model, inputs):
    """Gradients of the sum of squares of all results, as arrays; None without one."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        flat = keras.tree.flatten(model(inputs, training=False))
        loss = sum(tf.reduce_sum(x * x) for x in flat if x.dtype.is_floating)
    found = tape.gradient(loss, model.trainable_weights)
    return [tf.convert_to_tensor(g).numpy() for g in found if g is not None]


def moved_by_rounding(model, inputs, rng, before, results=outputs):
    """The change of the results, which were `before`, when every weight moves by one
    rounding: the size of the errors that another order of summation may cause in this
    model."""
    weights = model.get_weights()
    for weight in model.weights:
        if keras.backend.is_float_dtype(weight.dtype):
            factors = 1 + EPS * rng.choice([-1, 1], weight.shape)
            weight.assign(keras.ops.convert_to_numpy(weight) * factors)
    after = results(model, inputs)
    model.set_weights(weights)
    return [np.abs(x - y).max() for x, y in zip(before, after, strict=True)]


def assert_equal_up_to_rounding(got, expected, moved=None, what="", terms=0.0):
    """The difference is at most 4 times what one rounding of the weights does, and
    16 units in the last place of the largest number. `terms`: the size of the terms
    that the numbers are sums of, if they may cancel each other."""
    for i, (x, y) in enumerate(zip(got, expected, strict=True)):
        assert x.shape == y.shape
        bound = 16 * EPS * max(terms, np.abs(y).max()) + (4 * moved[i] if moved else 0)
        error = np.abs(x - y).max()
        assert error <= bound, f"{what}[{i}]: {error:.2e} > {bound:.2e}"


def check_generation(notes):
    """An accelerated GPT-2 generates the tokens of the stock model; the report has
    `notes`."""
    models = pytest.importorskip("keras_hub").models  # .ci/matrix.py has none
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 12}
    backbone = models.GPT2Backbone(vocabulary_size=13, **sizes)
    model = models.GPT2CausalLM(backbone, preprocessor=None)
    model.compile(sampler="greedy")
    ids = np.pad(np.arange(32).reshape(8, 4) % 12 + 1, [(0, 0), (0, 3)])
    given = {"token_ids": ids, "padding_mask": (ids > 0).astype("int32")}
    want = model.generate(dict(given), stop_token_ids=None)["token_ids"]
    report = hw3tf.accelerate(model)
    assert (report.num_fused, report.notes) == (2, notes)
    got = model.generate(dict(given), stop_token_ids=None)["token_ids"]
    np.testing.assert_array_equal(got, want)
