"""The functions of ours that a call passes on its way from a layer to the op."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from hw3tf import layers
from hw3tf.ops.fronts import tensorflow_op

X = tf.constant(np.random.default_rng(0).standard_normal((1, 4, 8)), tf.float32)
LAYERS = {
    "multi-head": lambda **options: layers.MultiHeadAttention(2, 4, **options),
    "grouped": lambda **options: layers.GroupQueryAttention(4, 2, 1, **options),
}
CALLS = {
    "plain": ({}, {}),
    "causal": ({}, {"use_causal_mask": True}),
    "masked": ({}, {"value_mask": np.array([[True, True, False, True]])}),
    "scores": ({}, {"return_attention_scores": True}),
    "dropout": ({"dropout": 0.5}, {"training": True}),
}


def functions_of_ours():
    """Names of the functions on the stack that are hw3tf's, the outermost first."""
    names, frame = [], sys._getframe(1)
    while frame is not None:
        if (frame.f_globals.get("__name__") or "").startswith("hw3tf."):
            names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names[::-1]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", LAYERS)
def test_from_projections_to_the_op_at_most_five_functions_are_passed(
    kind, call, monkeypatch
):
    monkeypatch.delenv("HW3TF_PATH", raising=False)
    options, arguments = CALLS[call]
    layer = LAYERS[kind](**options)
    layer.build(X.shape, X.shape)
    library, found = tensorflow_op.load_op_library(), {}

    class Watched:
        """The op library, with a look at who calls."""

        def __getattr__(self, name):
            found["op"] = functions_of_ours()
            return getattr(library, name)

    project = layer._query_dense.call

    def projected(x, **options):
        found["projection"] = functions_of_ours()
        return project(x, **options)

    monkeypatch.setattr(tensorflow_op, "load_op_library", Watched)
    monkeypatch.setattr(layer._query_dense, "call", projected)
    layer(X, X, **arguments)
    projection, op = found["projection"], found["op"]
    assert op[: len(projection)] == projection, (projection, op)
    assert len(op) - len(projection) <= 5, op[len(projection) :]
