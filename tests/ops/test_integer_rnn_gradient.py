"""Errors for gradients of integers. TensorFlow alone would return None, because it
stops gradients at integer tensors before it calls any op's gradient."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hw3tf import layers, ops

ONES = np.ones((1, 1), "int64")
REFUSED = "integers have no gradient, and a tape is recording what `{}` is made of"


def total(inputs, kernel=ONES, **given):
    return tf.reduce_sum(ops.integer_rnn(inputs, kernel, ONES, **given))


def floats():
    return tf.constant([[[1.0], [2.0]]])


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("name", ["inputs", "kernel", "bias", "initial_state"])
def test_a_cast_of_watched_floats_is_refused(name, graph, path):
    def ask(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            cast = tf.cast(x if name == "inputs" else x[0, :1], "int64")
            if name == "bias":
                cast = tf.cast(x[0, 0], "int64")
            states = total(**{"inputs": ONES[None], name: cast})
        return tape.gradient(tf.cast(states, "float32"), x)

    with pytest.raises(TypeError, match=REFUSED.format(name)):
        (tf.function(ask) if graph else ask)(floats())


def test_a_watched_integer_is_refused():
    x = tf.constant([[[1], [2]]], "int64")
    with tf.GradientTape() as tape:
        tape.watch(x)
        with pytest.raises(TypeError, match=REFUSED.format("inputs")):
            total(x)
        with tape.stop_recording():
            assert total(x) == 3
    assert total(x) == 3


@pytest.mark.parametrize("make", [tf.Variable, keras.Variable], ids=["tf", "keras"])
def test_a_trainable_integer_weight_is_refused(make):
    weight = make(ONES, dtype="int64")
    fixed = make(ONES, dtype="int64", trainable=False)
    assert total(ONES[None], weight) == 1
    with tf.GradientTape():
        assert total(ONES[None], fixed) == 1
        with pytest.raises(TypeError, match="trainable=False for an integer variable"):
            total(ONES[None], weight)


def test_in_a_graph_the_way_back_to_floats_may_be_long():
    """Eagerly one more step loses it: an eager tensor has no history."""

    @tf.function
    def ask(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            cast = tf.concat([tf.cast(x, "int64"), ONES[None]], axis=1) * 2
            return total(tf.reshape(cast, [1, 3, 1]))

    with pytest.raises(TypeError, match=r"Received: inputs from Cast:0, of shape"):
        ask(floats())


def test_a_function_that_is_recorded_is_refused_where_it_casts():
    weight = tf.Variable(floats())
    traced = tf.function(lambda: total(tf.cast(weight, "int64")))
    with (
        tf.GradientTape(),
        pytest.raises(TypeError, match=REFUSED.format("inputs")),
    ):
        traced()


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_a_float_head_trains_where_nothing_is_asked_before_it(graph):
    """Integers that are not watched, floats that are stopped, the shape of floats, a
    mask of floats; and what is watched beside them."""
    head = tf.Variable(3.0)

    def ask(x, sequence):
        with tf.GradientTape() as tape:
            tape.watch(x)
            states = total(sequence) + total(tf.cast(tf.stop_gradient(x), "int64"))
            count = tf.zeros(tf.concat([tf.shape(x)[:1], [1]], 0), "int64")
            states += total(sequence, initial_state=count, mask=x[:, :, 0] > 1.5)
            loss = head * tf.cast(states, "float32") + tf.reduce_sum(x)
        return tape.gradient(loss, [head, x])

    function = tf.function(ask) if graph else ask
    own, before = function(floats(), tf.constant([[[4], [6]]], "int64"))
    assert own == 10 + 3 + 6
    np.testing.assert_array_equal(before, np.ones((1, 2, 1)))


def cast_model(stop):
    x = keras.Input((5, 2))
    hidden = keras.layers.Dense(2)(x)
    hidden = keras.ops.stop_gradient(hidden) if stop else hidden
    states = layers.IntegerRNN(3)(keras.ops.cast(10 * hidden, "int32"))
    y = keras.layers.Dense(1)(keras.ops.cast(states, "float32"))
    model = keras.Model(x, y)
    model.compile("sgd", "mse")
    return model


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_fit_does_not_leave_out_the_weights_before_the_integers(rng):
    """Keras would train the rest and say so in a warning. It predicts, and it trains
    where the model says that nothing flows."""
    x, y = rng.standard_normal((4, 5, 2)), np.ones((4, 1))
    model = cast_model(stop=False)
    assert model.predict(x, verbose=0).shape == (4, 1)
    with pytest.raises(TypeError, match=REFUSED.format("inputs")):
        model.fit(x, y, verbose=0)
    cast_model(stop=True).fit(x, y, verbose=0)
