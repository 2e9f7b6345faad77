"""Graphs of constants: TensorFlow runs the ops outside of any session, when it
optimizes a graph and when it infers shapes during tracing."""

import pytest
from checks import run_python

CALLS = {
    "attention": "ops.dot_product_attention(*[c(1, 4, 1, 8)] * 3)",
    "integer_rnn": "ops.integer_rnn(*[tf.constant(1, shape=s) for s in INTS])",
    "lstm": "ops.lstm(c(2, 3, 5), c(5, 16), c(4, 16))",
    "gru": "ops.gru(c(2, 3, 5), c(5, 12), c(4, 12))",
    "simple_rnn": "ops.simple_rnn(c(2, 3, 5), c(5, 4), c(4, 4))",
}


CODE = """
import numpy as np, tensorflow as tf
from hw3tf import ops
INTS = (1, 3, 1), (1, 1), (1, 1)
c = lambda *shape: tf.constant(0.5, shape=shape)
def call():
    return {call}
def shape():
    first = tf.reshape(tf.nest.flatten(call())[0], [-1])[:1]
    return tf.zeros(tf.cast(first, tf.int32) + 3)
print(np.array_equal(tf.function({function})(), {function}()))
"""


@pytest.mark.parametrize("function", ["call", "shape"])
@pytest.mark.parametrize("call", CALLS)
def test_a_graph_of_constants(call, function):
    """In a process of its own, because it crashed."""
    code = CODE.format(call=CALLS[call], function=function)
    assert run_python(code, HW3TF_PATH="op").endswith("True\n")
