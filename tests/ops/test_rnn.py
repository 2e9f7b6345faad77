"""`lstm`, `gru` and `simple_rnn`: their numbers on every path, and what people have
asked for."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from rnn_checks import (
    CELLS,
    ULPS,
    assert_as_exact,
    check,
    compute,
    eps_of,
    judge,
    kernel,
    make_arrays,
    specification,
)
from rnn_oracle import ROWS, WEIGHTS, oracle, upstream

from hw3tf import ops

SIZES = [(1, 1), (1, 256), (2, 16), (2, 127), (5, 31), (37, 16), (37, 127)]
FUNCTIONS = {"lstm": ops.lstm, "gru": ops.gru, "simple_rnn": ops.simple_rnn}
LAYERS = {
    "lstm": keras.layers.LSTM,
    "gru": keras.layers.GRU,
    "simple_rnn": keras.layers.SimpleRNN,
}


def arguments(arrays, dtype=None):
    """The arrays of `make_arrays` as arguments of the public functions."""
    given = {
        name: tf.constant(x, dtype if dtype and x.dtype.kind == "f" else x.dtype)
        for name, x in arrays.items()
        if not name.startswith("grad_")
    }
    states = [given.pop(n) for n in ("initial_h", "initial_c") if n in given]
    if states:
        given["initial_state"] = states if len(states) > 1 else states[0]
    if "recurrent_bias" in given:
        given["bias"] = tf.stack([given["bias"], given.pop("recurrent_bias")])
    return given


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("way", ["eager", "graph", "xla"])
def test_masks_give_the_sums_that_are_known(cell, row, way, kernel_path):
    """Whole numbers, which the kernel may not round."""
    if way == "xla" and kernel_path == "pybind":
        return  # XLA cannot call Python
    arrays, options, wanted = oracle(cell, row)
    dtypes = ("float32", "float64", "bfloat16")
    # Graphs take time to make, and call the same kernels: one cell for each row, each
    # cell with several dtypes.
    number = list(ROWS).index(row)
    if way != "eager":
        if number % len(CELLS) != CELLS.index(cell):
            return
        dtypes = dtypes[number // len(CELLS) % len(dtypes) :][:1]
    for dtype in dtypes:
        got = compute(kernel, cell, arrays | upstream(cell), options, dtype, way)
        for name, x in wanted.items():
            np.testing.assert_array_equal(got[name], x, f"{name} {dtype}")
        last = options | {"return_sequences": False}
        got = compute(kernel, cell, arrays | upstream(cell), last, dtype, way)
        np.testing.assert_array_equal(got["outputs"], wanted["outputs"][:, -1:])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("row", ROWS)
def test_lengths_are_masks(cell, row, kernel_path):
    """Beside a mask, too."""
    arrays, options, wanted = oracle(cell, row)
    mask = arrays["mask"][0]
    length = int(np.flatnonzero(mask)[-1]) + 1 if mask.any() else 0
    mask[length:] = True
    arrays["lengths"] = np.array([length], "int32")
    got = compute(kernel, cell, arrays | upstream(cell), options, "float64")
    for name, x in wanted.items():
        np.testing.assert_array_equal(got[name], x, name)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("timesteps", [1, 31, 97])
def test_numbers_are_as_exact_as_keras(cell, timesteps):
    """By the largest error, too: over several seeds, because that of Keras itself
    depends on the order of its sums. That order is the one of a graph, as in `fit`."""
    worst = {}
    for seed in range(4):
        rng = np.random.default_rng(seed)
        arrays = make_arrays(rng, cell, 5, timesteps, 13, 29)
        arrays = {name: np.float32(x).astype("float64") for name, x in arrays.items()}
        truth, own, got = (
            compute(function, cell, arrays, {"return_sequences": True}, dtype, way)
            for function, dtype, way in (
                (judge, "float64", "eager"),
                (specification, "float32", "graph"),
                (kernel, "float32", "eager"),
            )
        )
        assert_as_exact(got, own, truth, what=f"seed {seed}")
        for name, x in truth.items():
            size = np.abs(x).max()
            errors = [np.abs(y[name] - x).max() / size for y in (got, own)]
            worst[name] = np.maximum(worst.get(name, 0), errors)
    for name, (error, of_keras) in worst.items():
        assert error <= 2 * of_keras + ULPS * eps_of("float32"), name


@pytest.mark.parametrize("cell", CELLS)
def test_a_thousand_steps(cell, rng):
    arrays = make_arrays(rng, cell, 3, 1000, 5, 17, mask="holes")
    arrays = {
        name: np.float32(x).astype("float64") if x.dtype.kind == "f" else x
        for name, x in arrays.items()
    }
    truth, own, got = (
        compute(function, cell, arrays, {"return_sequences": True}, dtype, way)
        for function, dtype, way in (
            (judge, "float64", "eager"),
            (specification, "float32", "graph"),
            (kernel, "float32", "eager"),
        )
    )
    assert_as_exact(got, own, truth)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("batch", "units"), SIZES)
def test_sizes(cell, batch, units, rng):
    """Primes, powers of two, more units than a panel and than a block of products."""
    arrays = make_arrays(rng, cell, batch, 5, 19, units, mask="holes")
    check(cell, arrays, {"return_sequences": True})


@pytest.mark.parametrize("cell", CELLS)
def test_wide_inputs(cell, rng):
    arrays = make_arrays(rng, cell, 3, 4, 1031, 8)
    check(cell, arrays, {})


@functools.cache  # for all paths
def by_layer_of_keras(cell, mask, backwards):
    """Arguments, and what a layer of Keras makes of them."""
    given = arguments(make_arrays(np.random.default_rng(1), cell, mask=mask))
    layer = LAYERS[cell](
        4,
        return_sequences=True,
        return_state=True,
        go_backwards=backwards,
        dtype="float64",
    )
    layer.build(given["inputs"].shape)
    layer.set_weights([given[n] for n in ("kernel", "recurrent_kernel", "bias")])
    return given, layer(
        given["inputs"],
        initial_state=given["initial_state"],
        mask=given.get("mask"),
    )


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("mask", [None, "left", "right", "holes"])
@pytest.mark.parametrize("backwards", [False, True])
def test_functions_compute_what_the_layers_of_keras_do(cell, mask, backwards, path):
    given, want = by_layer_of_keras(cell, mask, backwards)
    got = FUNCTIONS[cell](
        **given, return_sequences=True, return_state=True, go_backwards=backwards
    )
    assert len(got) == len(want)
    for x, y in zip(got, want, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=2**-46)
    last = FUNCTIONS[cell](**given, go_backwards=backwards)
    np.testing.assert_array_equal(last, got[0][:, -1])


@pytest.mark.parametrize("cell", CELLS)
def test_what_may_be_left_out_is_zeros(cell, path, rng):
    arrays = make_arrays(rng, cell, biases=False, states=False)
    given = arguments(arrays, "float32")
    zeros = {
        name: tf.zeros_like(x)
        for name, x in arguments(make_arrays(rng, cell), "float32").items()
        if name == "bias"
    }
    states = [tf.zeros((3, 4))] * (2 if cell == "lstm" else 1)
    zeros["initial_state"] = states if cell == "lstm" else states[0]
    got, want = FUNCTIONS[cell](**given), FUNCTIONS[cell](**given, **zeros)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("cell", CELLS)
def test_states_as_layers_return_them(cell, path, rng):
    """One call over all steps is two calls over halves."""
    given = arguments(make_arrays(rng, cell), "float32")
    states = {"return_state": True, "return_sequences": True}
    whole = FUNCTIONS[cell](**given, **states)
    inputs = given.pop("inputs")
    first = FUNCTIONS[cell](inputs[:, :3], **given, **states)
    given["initial_state"] = first[1:]  # a tuple of one for GRU and simple RNN
    second = FUNCTIONS[cell](inputs[:, 3:], **given, **states)
    outputs = np.concatenate([first[0], second[0]], axis=1)
    # The products over the inputs may be cut elsewhere.
    np.testing.assert_allclose(outputs, whole[0], rtol=0, atol=1e-6)
    for x, y in zip(second[1:], whole[1:], strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["input_dropout", "recurrent_dropout"])
def test_one_dropout_mask_serves_all_gates(name, path, rng):
    given = arguments(make_arrays(rng, "lstm", **{name: "one"}), "float32")
    want = ops.lstm(**given)
    given[name] = given[name][0]
    np.testing.assert_array_equal(ops.lstm(**given), want)
    given[name] = tf.stack([given[name]] * 4)
    np.testing.assert_allclose(ops.lstm(**given), want, rtol=0, atol=1e-6)


def test_arguments_of_other_kinds(path):
    """Lists, NumPy arrays, numbers as masks, lengths of 64 bits, dtypes that differ."""
    x, k, r = np.ones((2, 3, 1)), [[0.5]], np.float32([[0.25]])
    want = ops.simple_rnn(x, np.array(k), r, mask=[[True] * 3, [True, False, False]])
    assert want.dtype == "float64"
    got = ops.simple_rnn(x, np.array(k), r, mask=[[1.5, 1, 2], [1, 0, 0]])
    np.testing.assert_array_equal(got, want)
    for lengths in ([3, 1], np.array([3, 1]), tf.constant([3, 1], "int64")):
        got = ops.simple_rnn(x, np.array(k), r, lengths=lengths)
        np.testing.assert_array_equal(got, want)
    assert ops.simple_rnn(tf.ones((2, 3, 1), "float16"), k, r).dtype == "float32"
    variables = [tf.Variable(k), keras.Variable(r)]
    got = ops.simple_rnn(tf.cast(x, "float32"), *variables, lengths=[3, 1])
    np.testing.assert_allclose(got, want, rtol=1e-6)


ACTIVATIONS = {
    "tanh": [keras.activations.tanh, keras.ops.tanh, tf.tanh, tf.nn.tanh],
    "sigmoid": [keras.activations.sigmoid, keras.ops.sigmoid, tf.sigmoid],
    "relu": [keras.activations.relu, keras.ops.relu, tf.nn.relu],
    "linear": [keras.activations.linear, None],
    "hard_sigmoid": [keras.activations.hard_sigmoid, keras.ops.hard_sigmoid],
}


@pytest.mark.parametrize("word", ACTIVATIONS)
def test_activations_have_several_names(word, rng, monkeypatch):
    monkeypatch.delenv("HW3TF_PATH", raising=False)
    given = arguments(make_arrays(rng, "gru"), "float32")
    options = {"recurrent_activation": word, "activation": word}
    assert ops.gru_path(**given, **options).path == "op"
    want = ops.gru(**given, **options)
    for function in ACTIVATIONS[word]:
        both = {"recurrent_activation": function, "activation": function}
        assert ops.gru_path(**given, **both).path == "op", function
        np.testing.assert_array_equal(ops.gru(**given, **both), want)


@pytest.mark.parametrize("activation", ["elu", keras.ops.elu, lambda x: tf.nn.elu(x)])
def test_other_activations_run_in_keras_and_say_so(activation, rng, monkeypatch):
    monkeypatch.delenv("HW3TF_PATH", raising=False)
    arrays = make_arrays(rng, "simple_rnn")
    given = arguments(arrays)
    path = ops.simple_rnn_path(**given, activation=activation)
    assert path.path == "reference"
    name = "<lambda>" if "lambda" in str(activation) else "elu"
    assert path.reason == f"the kernel does not cover the activation {name}"
    layer = keras.layers.SimpleRNN(4, activation="elu", dtype="float64")
    layer.build(given["inputs"].shape)
    layer.set_weights([given[n] for n in ("kernel", "recurrent_kernel", "bias")])
    want = layer(given["inputs"], initial_state=given["initial_state"])
    got = ops.simple_rnn(**given, activation=activation)
    np.testing.assert_allclose(got, want, rtol=0, atol=2**-46)


def test_the_simple_rnn_ignores_the_activation_of_gates(monkeypatch):
    """Its layer has none: what an object of options says there does not matter."""
    from hw3tf.ops.rnn.call import RnnCall
    from hw3tf.ops.rnn.options import RnnOptions

    monkeypatch.delenv("HW3TF_PATH", raising=False)
    tensors = {"inputs": np.ones((1, 2, 1)), "kernel": [[1.0]]}
    tensors["recurrent_kernel"] = [[1.0]]
    options = RnnOptions(recurrent_activation=None)
    assert RnnCall("simple_rnn", tensors, options).path.path == "op"


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_an_empty_batch(cell, dtype, path, rng):
    """Results without elements, and gradients of the weights that are zero."""
    arrays = make_arrays(rng, cell, batch=2, mask="left", lengths=True)
    of_batch = {"inputs", "initial_h", "initial_c", "mask", "lengths"}
    arrays = {
        name: x[:0] if name in of_batch or name.startswith("grad_") else x
        for name, x in arrays.items()
    }
    for sequences in (False, True):
        options = {"return_sequences": sequences}
        got = compute(kernel, cell, arrays, options, dtype)
        assert got["outputs"].shape == (0, 7 if sequences else 1, 4)
        assert got["gradient of inputs"].shape == (0, 7, 5)
        for name in ("kernel", "recurrent_kernel", "bias"):
            x = got[f"gradient of {name}"]
            assert x.shape == arrays[name].shape
            assert not x.any(), name


def test_an_initial_state_without_a_valid_step(path):
    """The output is zero, and the state is what it was."""
    outputs, h, c = ops.lstm(
        np.ones((1, 2, 1)),
        **{name: np.array(x) for name, x in WEIGHTS["lstm"].items()},
        initial_state=(np.array([[3.0]]), np.array([[4.0]])),
        mask=[[False, False]],
        return_state=True,
    )
    assert (outputs[0, 0], h[0, 0], c[0, 0]) == (0.0, 3.0, 4.0)


def test_nan_and_infinity(path, rng):
    """NaN that takes part gives NaN from there on, in its own batch entry; what is
    masked reaches nothing."""
    arrays = make_arrays(rng, "lstm", batch=3)
    clean = arguments(arrays, "float32")
    want = ops.lstm(**clean, return_sequences=True).numpy()
    arrays["inputs"][1, 4, 2] = np.nan
    got = ops.lstm(**arguments(arrays, "float32"), return_sequences=True).numpy()
    np.testing.assert_array_equal(got[[0, 2]], want[[0, 2]])
    np.testing.assert_array_equal(got[1, :4], want[1, :4])
    assert np.isnan(got[1, 4:]).all()
    arrays["mask"] = np.ones((3, 7), "bool")
    arrays["mask"][1, 4] = False
    masked = compute(kernel, "lstm", arrays, {"return_sequences": True})
    assert all(np.isfinite(x).all() for x in masked.values())
    arrays["inputs"][1, 4, 2] = 0.0
    again = compute(kernel, "lstm", arrays, {"return_sequences": True})
    for name, x in masked.items():
        np.testing.assert_array_equal(again[name], x, name)


# What people have reported or asked for.


def test_tensorflow_33138(path):
    """The LSTM that was five times slower than on a GPU, and its numbers."""
    x, k, r = tf.ones((1, 3, 1)), [[0.5] * 4], [[0.25] * 4]
    got = ops.lstm(x, k, r, [0.0, 1.0, 0.0, 0.0], return_sequences=True)
    want = [0.17426972, 0.31693833, 0.42237569]
    np.testing.assert_allclose(got[0, :, 0], want, rtol=2e-7)


def test_tensorflow_46515(path):
    """A GRU with a recurrent bias, and the reset gate after and before."""
    x, k, r = tf.ones((1, 3, 1)), [[0.5] * 3], [[0.25] * 3]
    got = ops.gru(x, k, r, [[0.0] * 3, [0.0, 0.0, 1.0]], return_sequences=True)
    want = [0.30521243, 0.4941265, 0.615875]
    np.testing.assert_allclose(got[0, :, 0], want, rtol=2e-7)
    got = ops.gru(x, k, r, [0.0, 0, 1], reset_after=False, return_sequences=True)
    want = [0.34173028, 0.54663141, 0.67583628]
    np.testing.assert_allclose(got[0, :, 0], want, rtol=2e-7)


def test_keras_17596(path):
    """Zeros for masked steps without return_sequences."""
    arrays, _, _ = oracle("simple_rnn", "11100")
    given = arguments(arrays)
    got = ops.simple_rnn(**given, activation=None, zero_output_for_mask=True)
    assert got.numpy().tolist() == [[0.0]]
    assert ops.simple_rnn(**given, activation=None).numpy().tolist() == [[16.0]]


def test_keras_4192(path):
    """1, 2, 3, padded on either side: the sum is 6 in both directions."""
    for values, mask in (([1, 2, 3, 0, 0], "11100"), ([0, 0, 1, 2, 3], "00111")):
        x = np.reshape(np.array(values, "float32"), (1, 5, 1))
        mask = [[bit == "1" for bit in mask]]
        for backwards in (False, True):
            got = ops.simple_rnn(
                x, [[1.0]], [[1.0]], mask=mask, activation=None, go_backwards=backwards
            )
            assert got.numpy().tolist() == [[6.0]]


def test_tensorflow_45035():
    """A mask of another length is refused by its name."""
    x, w = np.ones((1, 6, 1)), np.ones((1, 1))
    with pytest.raises(
        ValueError, match=r"`mask` must have shape \(1, 6\). Received: "
    ):
        ops.simple_rnn(x, w, w, mask=np.ones((1, 5), "bool"))


def test_tensorflow_15952(rng):
    """Eager calls give the bits of graphs and of XLA."""
    for cell in CELLS:
        arrays = make_arrays(rng, cell, mask="holes")
        eager, graph, xla = (
            compute(kernel, cell, arrays, {"return_sequences": True}, way=way)
            for way in ("eager", "graph", "xla")
        )
        for name, x in eager.items():
            np.testing.assert_array_equal(graph[name], x, name)
            np.testing.assert_array_equal(xla[name], x, name)


def test_none_counts_as_false(kernel_path, rng):
    """Not as the default of an op, which is True for `reset_after`."""
    x, k, r = (rng.standard_normal(shape) for shape in ((2, 3, 5), (5, 12), (4, 12)))
    got, want = (ops.gru(x, k, r, reset_after=value) for value in (None, False))
    np.testing.assert_array_equal(got, want)
    assert np.any(np.asarray(got) != np.asarray(ops.gru(x, k, r)))
