"""Our attention layers with a batch of 1 beside a larger one, in query, value and key,
against the repeated batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from attention_layer_checks import results

import hw3tf

BATCH, QUERIES, KEYS, SIZE = 3, 4, 6, 8
PAIRS = {
    "heads": (
        hw3tf.layers.MultiHeadAttention,
        keras.layers.MultiHeadAttention,
        (2, 4),
    ),
    "grouped": (
        hw3tf.layers.GroupQueryAttention,
        keras.layers.GroupQueryAttention,
        (4, 4, 2),
    ),
}
CALLS = {
    "plain": {},
    "causal": {"use_causal_mask": True},
    "scores": {"return_attention_scores": True},
    "padded": {"value_mask": np.arange(KEYS) < np.array([[6], [4], [0]])},
    "shared padding": {"value_mask": np.arange(KEYS)[None] < 4},
    "mask": {"attention_mask": np.arange(72).reshape(3, 4, 6) % 5 > 1},
}
BATCHES = {
    "one query": {"query": 1, "value": BATCH},
    "one value": {"query": BATCH, "value": 1},
    "one key": {"query": BATCH, "value": BATCH, "key": 1},
    "one value and query": {"query": 1, "value": 1, "key": BATCH},
}
LENGTHS = {"query": QUERIES, "value": KEYS, "key": KEYS}


@pytest.fixture(params=PAIRS)
def pair(request):
    ours, theirs, arguments = PAIRS[request.param]
    made = ours(*arguments), theirs(*arguments, dtype="float64")
    for layer in made:
        layer.build((None, None, SIZE), (None, None, SIZE))
    made[1].set_weights(made[0].get_weights())
    return made


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("batches", BATCHES)
def test_batch_of_one_is_as_if_repeated(batches, call, pair, rng, kernel_calls):
    ours, judge = pair
    tensors = {
        name: rng.standard_normal((size, LENGTHS[name], SIZE))
        for name, size in BATCHES[batches].items()
    }
    repeated = {k: np.repeat(x, BATCH // len(x), 0) for k, x in tensors.items()}
    got = results(ours, tensors, **CALLS[call])
    want = results(judge, repeated, **CALLS[call])
    assert len(kernel_calls) == 1
    first = len(want) - len(tensors) - len(judge.trainable_weights)
    for i, x in enumerate(tensors.values(), first):
        if len(x) == 1:
            want[i] = want[i].sum(axis=0, keepdims=True)
    for x, y in zip(got, want, strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batches", BATCHES)
def test_symbolic_shape_and_graph_of_unknown_batch_are_the_eager_ones(
    batches, pair, rng
):
    layer = pair[0]
    tensors = {
        name: rng.standard_normal((size, LENGTHS[name], SIZE), np.float32)
        for name, size in BATCHES[batches].items()
    }
    call = {"return_attention_scores": True}
    want = layer(**tensors, **call)
    symbols = {k: keras.Input(batch_shape=x.shape) for k, x in tensors.items()}
    assert [x.shape for x in layer(**symbols, **call)] == [x.shape for x in want]
    specs = {k: tf.TensorSpec([None, None, SIZE]) for k in tensors}
    graph = tf.function(lambda x: layer(**x, **call), input_signature=[specs])
    for x, y in zip(graph(tensors), want, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)


def test_batches_that_differ_are_refused(pair):
    with pytest.raises(ValueError, match="`value` must have the shape of `query`"):
        pair[0](np.ones((2, QUERIES, SIZE)), np.ones((3, KEYS, SIZE)))
