"""Overflows in every method by which Keras runs the layer: each raises."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hw3tf import ops
from hw3tf.layers import IntegerRNN

WHERE = r"the recurrence overflows int32 in batch entry 1 at timestep 1\."
X = np.ones((8, 2, 1), "int32")
X[5] = 2**30  # in the third batch of two, twice is one too many
Y = np.ones((8, 1), "float32")
ERRORS = (OverflowError, tf.errors.InvalidArgumentError, tf.errors.InternalError)


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)


def pairs():
    """A generator of Python."""
    yield from zip(X.reshape(4, 2, 2, 1), Y.reshape(4, 2, 1), strict=True)


RUNS = {
    "predict": lambda m: m.predict(X, batch_size=2, verbose=0),
    "predict of a dataset": lambda m: m.predict(dataset(), verbose=0),
    "predict_on_batch": lambda m: m.predict_on_batch(X[4:6]),
    "evaluate": lambda m: m.evaluate(X, Y, batch_size=2, verbose=0),
    "evaluate of a dataset": lambda m: m.evaluate(dataset(), verbose=0),
    "test_on_batch": lambda m: m.test_on_batch(X[4:6], Y[4:6]),
    "fit": lambda m: m.fit(X, Y, batch_size=2, shuffle=False, verbose=0),
    "fit of a dataset": lambda m: m.fit(dataset(), shuffle=False, verbose=0),
    "fit of a generator": lambda m: m.fit(pairs(), shuffle=False, verbose=0),
    "fit with steps": lambda m: m.fit(
        dataset().repeat(), steps_per_epoch=4, epochs=2, shuffle=False, verbose=0
    ),
    "train_on_batch": lambda m: m.train_on_batch(X[4:6], Y[4:6]),
    "validation": lambda m: m.fit(
        X[:4], Y[:4], validation_data=(X, Y), batch_size=2, verbose=0
    ),
    "validation of a dataset": lambda m: m.fit(
        X[:4], Y[:4], validation_data=dataset(), verbose=0
    ),
}
FEW = ("predict", "evaluate of a dataset", "fit", "validation")
METHODS = {
    "graph": {"jit_compile": False},
    "several steps": {"jit_compile": False, "steps_per_execution": 3},
    "eager": {"run_eagerly": True},
}


def make_model(**options):
    """An integer recurrence with a float head."""
    inputs = keras.Input((None, 1), dtype="int32")
    outputs = keras.layers.Dense(1)(IntegerRNN(1)(inputs))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse", **options)
    # Else the training step is traced twice: it would create these variables.
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture(autouse=True, scope="module")
def _iterators_end_at_once():
    """TensorFlow tunes the iterators of datasets in a thread. An iterator that is
    deleted waits for that thread, at times for as long as it has lived: up to 60 s of
    this file, since runs that raise keep theirs until Python's collector comes."""
    iterate, options = tf.data.Dataset.__iter__, tf.data.Options()
    options.autotune.enabled = False

    def untuned(dataset):
        return iterate(dataset.with_options(options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.data.Dataset, "__iter__", untuned)
        yield


@pytest.mark.parametrize("method", METHODS)
def test_whatever_keras_runs_raises(method, path):
    model = make_model(**METHODS[method])
    # Each function of the reference takes TensorFlow a second or more to make.
    few = path == "reference" and method != "eager"
    for run in [RUNS[name] for name in FEW] if few else RUNS.values():
        with pytest.raises(ERRORS, match=WHERE):
            run(model)


# Keras makes one function for each of predicting, testing and training; XLA takes 2 s
# for each run of one, since shapes differ.
@pytest.mark.parametrize(
    ("steps", "names"),
    [
        pytest.param(1, RUNS, id="all", marks=pytest.mark.slow),
        pytest.param(1, ("predict", "test_on_batch", "validation"), id="one step"),
        pytest.param(3, ("predict", "evaluate", "fit"), id="several steps"),
    ],
)
def test_what_xla_compiles_raises(steps, names, monkeypatch):
    monkeypatch.delenv("HW3TF_PATH", raising=False)
    model = make_model(jit_compile=True, steps_per_execution=steps)
    assert model.jit_compile  # the layer does not turn it off
    for name in names:
        with pytest.raises(tf.errors.InternalError, match=WHERE):
            RUNS[name](model)
    assert model.predict(X[:4], verbose=0).shape == (4, 1)


@pytest.mark.parametrize("forced", ["pybind", "reference"])
def test_xla_is_turned_off_where_it_could_not_raise(forced, monkeypatch):
    monkeypatch.setenv("HW3TF_PATH", forced)
    with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
        model = make_model(jit_compile=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match=WHERE):
        model.predict(X, batch_size=2, verbose=0)


def test_a_dataset_that_maps_the_layer_raises(path):
    """A loop that stops at the end of the data raises, too."""
    layer = IntegerRNN(1)
    layer.build((None, None, 1))
    data = tf.data.Dataset.from_tensor_slices(X).batch(2).map(layer)
    rows = 0

    def loop():
        nonlocal rows
        try:
            for batch in data:
                rows += len(batch)
        except tf.errors.OutOfRangeError:
            pass

    with pytest.raises(tf.errors.InvalidArgumentError, match=WHERE):
        loop()
    assert rows == 4


def test_eagerly_only_an_overflow_becomes_one(monkeypatch):
    """What else is wrong is told as TensorFlow tells it."""
    monkeypatch.setenv("HW3TF_PATH", "op")
    one = np.ones((1, 1), "int32")
    with pytest.raises(OverflowError, match=WHERE) as caught:
        ops.integer_rnn(X[4:6], one, one)
    assert "[Op:" not in str(caught.value)
    run = ops.load_op_library().hw3tf_integer_rnn

    def refused(*args, **options):
        return run(*args[:2], np.ones((2, 2), "int32"), *args[3:], **options)

    monkeypatch.setattr(ops.load_op_library(), "hw3tf_integer_rnn", refused)
    with pytest.raises(tf.errors.InvalidArgumentError, match="`recurrent_kernel`"):
        ops.integer_rnn(X[4:6], one, one)
