"""A small model, trained as large ones are. Tests import it, or run it in a process of
its own where a kind of training changes the whole process."""

import os

import keras
import numpy as np
import tensorflow as tf

import hw3tf
from hw3tf.ops.fronts import tensorflow_op

VOCABULARY, EXAMPLES, BATCH = 20, 16, 4


def build(accelerated, optimizer=None):
    """A compiled classifier of tokens, the same in every process."""
    keras.utils.set_random_seed(0)
    tokens = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(VOCABULARY, 8, mask_zero=True)(tokens)
    x = x + keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    model = keras.Model(tokens, keras.layers.Dense(1, dtype="float32")(x))
    if accelerated:
        assert hw3tf.accelerate(model).num_fused == 1
    model.compile(optimizer or keras.optimizers.SGD(0.05), "mse")
    return model


def batches():
    """Batches of 4 whose lengths differ, padded to the longest: a `tf.data.Dataset`."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 13, EXAMPLES)
    examples = [rng.integers(1, VOCABULARY, n).astype("int32") for n in lengths]
    tokens = tf.ragged.constant([list(x) for x in examples], dtype="int32")
    labels = np.array([[x.mean() / VOCABULARY] for x in examples], "float32")
    dataset = tf.data.Dataset.from_tensor_slices((tokens, labels))
    dataset = dataset.map(lambda x, y: (tf.convert_to_tensor(x), y))
    return dataset.padded_batch(BATCH)


def train(model, epochs=2):
    """The losses of the epochs."""
    return model.fit(batches(), epochs=epochs, shuffle=False, verbose=0).history["loss"]


def train_on_shards(model, epochs=2):
    """As `train`, on every worker's own half of each batch. Keras 3.15's `fit` and
    `train_on_batch` fail under `MultiWorkerMirroredStrategy`, also with stock layers:
    they average batches and scalars as that strategy refuses."""
    strategy, index = tf.distribute.get_strategy(), int(os.environ["WORKER"])

    def replica(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2) / 2
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        return loss

    @tf.function(reduce_retracing=True)
    def step(x, y):
        return strategy.reduce("SUM", strategy.run(replica, args=(x, y)), axis=None)

    def epoch():
        return np.mean([float(step(x[index::2], y[index::2])) for x, y in batches()])

    return [epoch() for _ in range(epochs)]


def count_kernel_calls():
    """A list that grows with every call of the kernel that is traced."""
    calls, run = [], tensorflow_op.attention

    def counted(*args):
        calls.append("op")
        return run(*args)

    tensorflow_op.attention = counted
    return calls


def train_under(strategy, train=train):
    """Trains both kinds under `strategy`; returns losses and the last weights."""
    found = {}
    for kind in ("stock", "accelerated"):
        calls = count_kernel_calls()
        with strategy.scope():
            model = build(kind == "accelerated")
            losses = train(model)
        assert bool(calls) == (kind == "accelerated"), (kind, calls)
        found[kind] = losses, [np.array(w) for w in model.weights]
    return found


def assert_equal(found):
    """Both kinds learned the same: four steps of rounding, numbers of size 1."""
    (stock, expected), (ours, weights) = found["stock"], found["accelerated"]
    assert stock[-1] < stock[0], stock
    np.testing.assert_allclose(ours, stock, rtol=1e-5)
    for x, y in zip(weights, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)
