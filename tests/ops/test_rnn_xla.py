"""The recurrent layers under XLA, `tf.function(jit_compile=True)`: custom calls."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from rnn_checks import CELLS, compute, kernel, make_arrays
from rnn_checks import specification as in_keras

from hw3tf import ops
from hw3tf.ops.fronts import reference as reference_front
from hw3tf.ops.rnn.call import RnnCall
from hw3tf.ops.rnn.options import RnnOptions


@pytest.fixture
def _kernel(monkeypatch):
    """A call that takes the reference fails."""

    def refuse(*args, **kwargs):
        raise AssertionError("the reference ran")

    monkeypatch.delenv("HW3TF_PATH", raising=False)
    monkeypatch.setattr(reference_front, "rnn", refuse)


EVERYTHING = {
    "mask": "holes",
    "lengths": True,
    "input_dropout": "each",
    "recurrent_dropout": "one",
}


# All pairs of two.
@pytest.mark.parametrize(
    ("cell", "dtype", "sequences"),
    [
        (cell, dtype, (i + j) % 2 == 0)
        for i, cell in enumerate(CELLS)
        for j, dtype in enumerate(["float32", "float64", "float16", "bfloat16"])
    ],
)
@pytest.mark.usefixtures("_kernel")
def test_bits_are_those_of_the_op(cell, dtype, sequences, rng):
    arrays = make_arrays(rng, cell, **EVERYTHING)
    options = {
        "reverse": True,
        "zero_output_for_mask": True,
        "return_sequences": sequences,
    }
    want = compute(kernel, cell, arrays, options, dtype)
    got = compute(kernel, cell, arrays, options, dtype, "xla")
    for name, x in want.items():
        np.testing.assert_array_equal(got[name], x, name)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.usefixtures("_kernel")
def test_sizes_that_are_not_known_when_the_graph_is_made(cell, rng):
    """One graph, which XLA compiles for each batch size and number of timesteps; all
    axes of the kernels but the units are open, too."""
    arrays = make_arrays(rng, cell, biases=False, states=False)
    k, r = (
        tf.constant(arrays[name], "float32") for name in ("kernel", "recurrent_kernel")
    )

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, None]),
            tf.TensorSpec([None, None]),
            tf.TensorSpec([4, None]),
            tf.TensorSpec([None, None], "bool"),
        ],
        jit_compile=True,
    )
    def train(x, k, r, mask):
        with tf.GradientTape() as tape:
            tape.watch([x, k, r])
            outputs, *states = getattr(ops, cell)(
                x, k, r, mask=mask, return_sequences=True, return_state=True
            )
            loss = tf.reduce_sum(outputs**2) + tf.reduce_sum(states[-1])
        return [outputs, *states, *tape.gradient(loss, [x, k, r])]

    for batch, timesteps in ((3, 7), (1, 1), (8, 2), (0, 4)):
        x = tf.constant(rng.standard_normal((batch, timesteps, 5)), "float32")
        mask = tf.constant(rng.random((batch, timesteps)) < 0.7)
        got, want = train(x, k, r, mask), train.python_function(x, k, r, mask)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("_kernel")
def test_errors_have_the_message_of_the_kernel(rng):
    x, k, r = tf.zeros((2, 5, 3)), tf.zeros((3, 16)), tf.zeros((4, 16))
    spec = tf.TensorSpec([None, None], "bool")

    @tf.function(jit_compile=True, input_signature=[spec])
    def masked(mask):
        return ops.lstm(x, k, r, mask=mask)

    with pytest.raises(
        tf.errors.InternalError, match=r"`mask` must have shape \(2, 5\)"
    ):
        masked(tf.zeros((2, 4), "bool"))

    @tf.function(jit_compile=True)
    def cut(lengths):
        return ops.lstm(x, k, r, lengths=lengths)

    message = r"`lengths` must be between 0 and the length of `inputs`, 5. Received: le"
    with pytest.raises(tf.errors.InternalError, match=message):
        cut(tf.constant([5, 6]))


@pytest.mark.usefixtures("_kernel")
def test_sizes_that_depend_on_values_are_refused():
    k, r = tf.zeros((3, 16)), tf.zeros((4, 16))

    @tf.function(jit_compile=True)
    def call(x, keep):
        return ops.lstm(tf.boolean_mask(x, keep, axis=1), k, r)

    with pytest.raises(tf.errors.OpError, match=r"dynamic dimension|depend on values"):
        call(tf.zeros((2, 2, 3)), tf.constant([True, False]))


def test_units_that_are_not_known_are_left_to_keras(monkeypatch):
    monkeypatch.delenv("HW3TF_PATH", raising=False)
    paths = []

    @tf.function(
        jit_compile=True,
        input_signature=[tf.TensorSpec(s) for s in ((2, 3, 5), (5, 16), (None, 16))],
    )
    def call(x, k, r):
        tensors = {"inputs": x, "kernel": k, "recurrent_kernel": r}
        paths.append(RnnCall("lstm", tensors, RnnOptions()).path)
        return x

    call.get_concrete_function()
    (path,) = paths
    assert path.path == "reference"
    assert path.reason == "XLA must know the units when the graph is made"


@pytest.mark.usefixtures("_kernel")
def test_fit_and_predict(rng):
    """A whole training step is compiled, the gradient of the inputs among it."""

    class Recurrent(keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 12), name="kernel")
            self.recurrent_kernel = self.add_weight(shape=(4, 12), name="recurrent")

        def call(self, x):
            return ops.gru(x, self.kernel, self.recurrent_kernel, return_sequences=True)

    found = []
    for jit in (False, True):
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [keras.Input((7, 5)), Recurrent(), Recurrent(), keras.layers.Flatten()]
        )
        model.compile("sgd", "mse", jit_compile=jit)
        # Else the training step is traced twice: it would create these variables.
        model.optimizer.build(model.trainable_variables)
        x, y = rng.standard_normal((4, 7, 5), "float32"), np.ones((4, 28))
        rng = np.random.default_rng(0)
        history = model.fit(np.ones_like(x), y, epochs=3, verbose=0)
        found.append(history.history["loss"])
        model.predict(x, verbose=0)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def test_the_reference_has_gradients_under_xla(rng, monkeypatch):
    """Also where timesteps are open: what calls fall back on."""
    monkeypatch.setenv("HW3TF_PATH", "reference")
    for cell in CELLS:
        arrays = make_arrays(rng, cell, **EVERYTHING)
        want = compute(in_keras, cell, arrays, {"return_sequences": True}, "float64")
        got = compute(
            kernel, cell, arrays, {"return_sequences": True}, "float64", "xla"
        )
        for name, x in want.items():
            np.testing.assert_allclose(got[name], x, rtol=0, atol=1e-12)
