"""Accelerated models in graphs: compiled by XLA, of unknown sizes, inside others."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from acceleration_checks import assert_equal_up_to_rounding, outputs, randomize
from backbones import BACKBONES

import hw3tf

NAMES = ("bert", "llama", "esm")  # by `_compute_attention`, with groups, by `call`


@pytest.fixture(params=NAMES)
def case(request, rng):
    """An accelerated model, its inputs, the results of stock Keras."""
    build, make_inputs, _ = BACKBONES[request.param]
    model, inputs = build(), make_inputs()
    randomize(model, rng)
    stock = outputs(model, inputs)
    hw3tf.accelerate(model)
    return model, inputs, stock


def arrays(results):
    return [np.asarray(x, "float32") for x in keras.tree.flatten(results)]


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_predict_equals_stock(case, jit_compile, kernel_calls):
    model, inputs, stock = case
    model.compile(jit_compile=jit_compile)
    assert_equal_up_to_rounding(arrays(model.predict(inputs, verbose=0)), stock)


def test_functional_model_around_it_equals_stock(case, kernel_calls):
    model, inputs, stock = case
    symbols = {k: keras.Input((None,), dtype="int32", name=k) for k in inputs}
    outer = keras.Model(symbols, model(symbols))
    traced = len(kernel_calls)
    assert_equal_up_to_rounding(outputs(outer, inputs), stock)
    assert len(kernel_calls) == traced + 2


def test_graph_of_unknown_sizes_equals_stock(case, kernel_calls):
    model, inputs, stock = case
    spec = {k: tf.TensorSpec((None, None), "int32") for k in inputs}
    graph = tf.function(model, input_signature=[spec])
    given = {k: tf.constant(x, "int32") for k, x in inputs.items()}
    assert_equal_up_to_rounding(arrays(graph(given)), stock)
    assert len(kernel_calls) == 2
