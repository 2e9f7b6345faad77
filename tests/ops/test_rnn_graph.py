"""The recurrent layers in graphs, models and saved models; what is kept for gradients;
paths."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from checks import attributes, run_python
from rnn_checks import CELLS, compute, kernel, make_arrays

from hw3tf import ops
from hw3tf.ops import tapes
from hw3tf.reference.rnn import GATES

UNITS = 4


def weights(rng, cell="lstm", features=5):
    """Kernel and recurrent kernel."""
    columns = GATES[cell] * UNITS
    shapes = (features, columns), (UNITS, columns)
    return [tf.constant(rng.standard_normal(s), "float32") for s in shapes]


def inputs(rng, timesteps=7):
    return tf.constant(rng.standard_normal((3, timesteps, 5)), "float32")


@pytest.mark.parametrize("cell", CELLS)
def test_static_shapes(cell, kernel_path, rng):
    run = getattr(ops, cell)
    given = [tf.TensorSpec(x.shape) for x in weights(rng, cell)]
    states = 2 if cell == "lstm" else 1
    for shape in ([3, 7, 5], [None, 7, 5], [3, None, 5], [None, None, 5], [None] * 3):
        for sequences in (False, True):

            def call(*tensors, sequences=sequences):
                return run(*tensors, return_sequences=sequences, return_state=True)

            graph = tf.function(call, [tf.TensorSpec(shape), *given])
            shapes = [x.shape.as_list() for x in graph.get_concrete_function().outputs]
            want = [shape[0], shape[1], 4] if sequences else [shape[0], 4]
            assert shapes == [want, *[[shape[0], 4]] * states]


def test_gradients_have_the_shapes_of_their_tensors(kernel_path, rng):
    """Also where an op says nothing of them."""
    k, r = weights(rng)

    @tf.function(input_signature=[tf.TensorSpec([None, 7, 5])])
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(ops.lstm(x, k, r))
        return tape.gradient(loss, x)

    assert run.get_concrete_function().outputs[0].shape.as_list() == [None, 7, 5]


def gradient_of(run, x, k):
    with tf.GradientTape() as tape:
        tape.watch(k)
        loss = run(x, k)
    return tape.gradient(loss, k)


def loss_of(rng, **options):
    _, r = weights(rng)
    return lambda x, k: tf.reduce_sum(ops.lstm(x, k, r, **options) ** 2)


def test_nothing_is_kept_without_a_tape(rng, monkeypatch):
    """Inference writes neither gates nor states."""
    monkeypatch.setenv("HW3TF_PATH", "op")
    x, (k, _) = inputs(rng), weights(rng)
    loss = loss_of(rng)
    graph = tf.function(loss).get_concrete_function(x, k).graph
    assert attributes(graph, "Hw3tfLstm", "keep") == [False]
    train = tf.function(lambda x, k: gradient_of(loss, x, k))
    graph = train.get_concrete_function(x, k).graph
    assert attributes(graph, "Hw3tfLstm", "keep") == [True]
    kept = []
    library = ops.load_op_library()
    forward = library.hw3tf_lstm

    class Watched:
        def __getattr__(self, name):
            return getattr(library, name)

        def hw3tf_lstm(self, *args, keep, **kwargs):
            kept.append(keep)
            return forward(*args, keep=keep, **kwargs)

    monkeypatch.setattr("hw3tf.ops.fronts.tensorflow_op.load_op_library", Watched)
    loss(x, k)
    with tf.GradientTape():
        loss(x, k)  # the tape records none of these constants
    with tf.GradientTape() as tape:
        tape.watch(k)
        with tape.stop_recording():
            loss(x, k)
        assert kept == [False] * 3
        loss(x, k)
    variable = tf.Variable(k)
    with tf.GradientTape():
        loss(x, variable)
        loss(x, keras.Variable(k))
    assert kept == [False] * 3 + [True] * 3


def test_the_gradient_of_the_inputs_is_skipped_where_nobody_wants_it(rng, monkeypatch):
    monkeypatch.setenv("HW3TF_PATH", "op")
    x, (k, _) = inputs(rng), weights(rng)
    loss = loss_of(rng)

    def both(x, k):
        with tf.GradientTape() as tape:
            tape.watch([x, k])
            value = loss(x, k)
        return tape.gradient(value, [x, k])

    skipped = []
    for train in (lambda x, k: gradient_of(loss, x, k), both):
        graph = tf.function(train).get_concrete_function(x, k).graph
        skipped += attributes(graph, "Hw3tfLstmGrad", "skip_grad_inputs")
    assert skipped == [True, False]
    np.testing.assert_array_equal(gradient_of(loss, x, k), both(x, k)[1])
    assert both(x, k)[0].shape == x.shape


WAYS = ("eager", "graph", "called under a tape", "tf.gradients", "cond", "while")
MORE_WAYS = ("recomputed", "xla", "xla under a tape")


@pytest.mark.parametrize("way", [*WAYS, *MORE_WAYS])
@pytest.mark.parametrize("tells", [True, False], ids=["tells", "does not tell"])
def test_a_gradient_comes_from_every_way_to_ask(
    way, tells, kernel_path, rng, monkeypatch
):
    """Where the tape is seen, where it is not there yet when the graph is made, and in
    a TensorFlow that does not tell: the same bits."""
    if "xla" in way and kernel_path == "pybind":
        return  # XLA cannot call Python
    if not tells:
        monkeypatch.setattr(tapes, "_tapes", lambda: None)
    x, (k, _) = inputs(rng), weights(rng)
    loss = loss_of(rng, return_sequences=True)
    want = gradient_of(loss, x, k)
    if way in ("eager", "graph", "xla"):
        run = lambda x, k: gradient_of(loss, x, k)  # noqa: E731
        if way != "eager":
            run = tf.function(run, jit_compile=way == "xla")
        got = run(x, k)
    elif "under a tape" in way:
        run = tf.function(loss, jit_compile="xla" in way)
        run(x, k)  # traced without a tape
        got = gradient_of(run, x, k)
    elif way == "tf.gradients":
        got = tf.function(lambda x, k: tf.gradients(loss(x, k), k)[0])(x, k)
    elif way == "recomputed":
        got = gradient_of(lambda x, k: tf.recompute_grad(lambda k: loss(x, k))(k), x, k)
    elif way == "cond":

        def run(x, k, flag):
            return tf.cond(flag, lambda: loss(x, k), lambda: 0.0)

        asked = tf.function(
            lambda x, k, f: gradient_of(lambda x, k: run(x, k, f), x, k)
        )
        got = asked(x, k, tf.constant(True))
    else:

        def run(x, k):
            total = 0.0
            for _ in tf.range(2):
                total += loss(x, k)
            return total

        got = tf.function(lambda x, k: gradient_of(run, x, k))(x, k) / 2
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("unused", ["outputs", "states"])
def test_results_that_nobody_uses(cell, unused, kernel_path, rng):
    """Their gradients are zero."""
    arrays = make_arrays(rng, cell)
    want = {
        name: np.zeros_like(x)
        if name.startswith("grad_" + ("outputs" if unused == "outputs" else "last"))
        else x
        for name, x in arrays.items()
    }
    want = compute(kernel, cell, want, {"return_sequences": True})
    run = getattr(ops, cell)
    given = {k: tf.constant(arrays[k], "float32") for k in ("inputs", "kernel")}
    given["recurrent_kernel"] = tf.constant(arrays["recurrent_kernel"], "float32")
    states = [
        tf.constant(arrays[n], "float32")
        for n in ("initial_h", "initial_c")[: 2 if cell == "lstm" else 1]
    ]
    bias = arrays["bias"]
    if cell == "gru":
        bias = np.stack([bias, arrays["recurrent_bias"]])
    with tf.GradientTape() as tape:
        tape.watch(given)
        outputs, *last = run(
            **given,
            bias=tf.constant(bias, "float32"),
            initial_state=states if cell == "lstm" else states[0],
            return_sequences=True,
            return_state=True,
        )
        used = last if unused == "outputs" else [outputs]
        names = ["last_h", "last_c"] if unused == "outputs" else ["outputs"]
        loss = sum(
            tf.reduce_sum(x * tf.constant(arrays["grad_" + name], "float32"))
            for x, name in zip(used, names, strict=False)
        )
    for name, x in tape.gradient(loss, given).items():
        np.testing.assert_array_equal(x, want["gradient of " + name], name)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("sequences", [False, True], ids=["last", "all"])
def test_a_functional_model_has_shapes_and_dtypes(cell, sequences, path, rng, tmp_path):
    k, r = weights(rng, cell)
    x, mask = keras.Input((None, 5)), keras.Input((None,), dtype="bool")
    results = getattr(ops, cell)(
        x,
        k,
        r,
        mask=mask,
        activation="elu",
        go_backwards=True,
        return_sequences=sequences,
        return_state=True,
    )
    assert [y.dtype for y in results] == ["float32"] * (3 if cell == "lstm" else 2)
    assert results[0].shape == ((None, None, 4) if sequences else (None, 4))
    assert all(y.shape == (None, 4) for y in results[1:])
    model = keras.Model([x, mask], results)
    mask = [[1] * 7, [0] * 7, [1, 1, 0, 0, 1, 0, 0]]
    given = [inputs(rng), tf.constant(np.array(mask, "bool"))]
    want = getattr(ops, cell)(
        given[0],
        k,
        r,
        mask=given[1],
        activation="elu",
        go_backwards=True,
        return_sequences=sequences,
        return_state=True,
    )
    operation = model.operations[-1]
    copy = type(operation).from_config(operation.get_config())
    for results in (model(given), copy(given[0], k, r, mask=given[1])):
        for y, z in zip(results, want, strict=True):
            np.testing.assert_array_equal(y, z)


def test_a_functional_model_of_states_and_dropout(path, rng):
    x, h, c = keras.Input((7, 5)), keras.Input((4,)), keras.Input((4,))
    factors = keras.Input((5,))
    k, r = weights(rng)
    y = ops.lstm(x, k, r, initial_state=[h, c], input_dropout=factors)
    given = [inputs(rng), *tf.constant(rng.standard_normal((2, 3, 4), "float32"))]
    given.append(tf.constant(rng.random((3, 5), "float32")))
    got = keras.Model([x, h, c, factors], y)(given)
    want = ops.lstm(given[0], k, r, initial_state=given[1:3], input_dropout=given[3])
    np.testing.assert_array_equal(got, want)


def test_a_model_with_the_function_trains_and_is_saved(path, rng, tmp_path):
    """`fit` with a tape in the graph, `predict` without."""

    @keras.saving.register_keras_serializable(package="tests")
    class Recurrent(keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 16))
            self.recurrent_kernel = self.add_weight(shape=(4, 16))

        def call(self, x):
            return ops.lstm(x, self.kernel, self.recurrent_kernel)

    model = keras.Sequential([keras.Input((7, 5)), Recurrent(), keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=False)
    x, y = inputs(rng), np.ones((3, 1))
    losses = model.fit(x, y, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )


def test_a_saved_model_runs_and_trains_in_a_new_process(rng, tmp_path, monkeypatch):
    """The graph is made without a tape: its gradient keeps what it needs by itself."""
    monkeypatch.setenv("HW3TF_PATH", "op")
    module = tf.Module()
    k, r = weights(rng)
    module.kernel = tf.Variable(k)
    module.run = tf.function(
        lambda x: ops.lstm(x, module.kernel, r, return_sequences=True),
        [tf.TensorSpec([None, None, 5])],
    )
    tf.saved_model.save(module, str(tmp_path))
    x = inputs(rng)
    with tf.GradientTape() as tape:
        outputs = module.run(x)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "outputs.npy", outputs)
    np.save(tmp_path / "gradient.npy", tape.gradient(outputs, module.kernel))
    code = f"""
import hw3tf, numpy as np, tensorflow as tf
module = tf.saved_model.load(r"{tmp_path}")
x = tf.constant(np.load(r"{tmp_path}/x.npy"))
with tf.GradientTape() as tape:
    outputs = module.run(x)
gradient = tape.gradient(outputs, module.kernel)
print(np.array_equal(np.load(r"{tmp_path}/outputs.npy"), outputs))
print(np.array_equal(np.load(r"{tmp_path}/gradient.npy"), gradient))
"""
    assert run_python(code, HW3TF_PATH=None).split()[-2:] == ["True", "True"]


@pytest.mark.parametrize("cell", CELLS)
def test_path_is_told_and_logged(cell, path, rng, caplog):
    k, r = weights(rng, cell)
    tell, run = getattr(ops, f"{cell}_path"), getattr(ops, cell)
    assert tell(inputs(rng), k, r, return_state=True).path == path
    with caplog.at_level(logging.DEBUG, "hw3tf"):
        run(inputs(rng), k, r)
    assert f"{cell} takes the path {path} (" in caplog.text
    with pytest.raises(TypeError, match="missing a required argument"):
        tell(inputs(rng))
    with pytest.raises(ValueError, match="`kernel` must have"):
        tell(inputs(rng), k[:3], r)


def test_check_numerics_finds_nothing(rng, monkeypatch):
    """What the kernel does not write, of masked steps, is no number to TensorFlow."""
    monkeypatch.setenv("HW3TF_PATH", "op")
    arrays = make_arrays(rng, "lstm", 17, 31, 5, 33, mask="none valid")
    tf.debugging.enable_check_numerics()
    try:
        compute(kernel, "lstm", arrays, {"return_sequences": True})
        compute(kernel, "lstm", arrays, {"return_sequences": True}, way="graph")
    finally:
        tf.debugging.disable_check_numerics()
