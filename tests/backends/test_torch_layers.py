"""Layers, models and recurrent functions with Keras on PyTorch."""

import contextlib

import keras
import numpy as np
import pytest
import torch
from acceleration_checks import check_generation

import hw3tf
from hw3tf import ops

CELLS = ("LSTM", "GRU", "SimpleRNN")
LEFT = np.arange(9) >= np.array([[0], [4], [7]])


@pytest.fixture
def rnn_paths(monkeypatch):
    """The paths of all calls of recurrent layers."""
    from hw3tf.ops.rnn.call import RnnCall

    paths, run = [], RnnCall.run

    def counted(call):
        paths.append(call.path.path)
        return run(call)

    monkeypatch.setattr(RnnCall, "run", counted)
    return paths


def twins(name, *shapes, **options):
    """Our layer and Keras's with the same weights, built for `shapes`."""
    made = [
        getattr(hw3tf.layers, name)(**options),
        getattr(keras.layers, name)(**options),
    ]
    for layer in made:
        layer.build(*shapes)
    made[1].set_weights(made[0].get_weights())
    return made


def run(layer, x, **more):
    """Results and gradients of inputs and weights, as arrays."""
    x = torch.tensor(x, dtype=torch.float32, requires_grad=True)
    got = layer(x, **more)
    got = list(got) if isinstance(got, list | tuple) else [got]
    sources = [x, *(w.value for w in layer.trainable_weights)]
    grads = torch.autograd.grad(sum((y * y.cos()).sum() for y in got), sources)
    return [keras.ops.convert_to_numpy(y) for y in (*got, *grads)]


def close(got, want):
    """Up to the rounding of sums. The gradient of a bias of keys is 0: the sum of terms
    that are as large as the gradient of its kernel, which is the result before it."""
    size = 1.0
    for a, b in zip(got, want, strict=True):
        size = max(1.0, abs(b).max() if abs(b).max() > 1e-5 else size)
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * size)


@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
@pytest.mark.parametrize("backwards", [False, True], ids=["", "backwards"])
@pytest.mark.parametrize("sequences", [False, True], ids=["last", "all"])
@pytest.mark.parametrize("name", CELLS)
def test_recurrent_layers_are_keras(name, sequences, backwards, masked, rng, rnn_paths):
    ours, stock = twins(
        name,
        (3, 9, 5),
        units=4,
        return_sequences=sequences,
        return_state=True,
        go_backwards=backwards,
    )
    x = rng.standard_normal((3, 9, 5))
    more = {"mask": torch.tensor(LEFT)} if masked else {}
    close(run(ours, x, **more), run(stock, x, **more))
    assert rnn_paths == ["torch"]


@pytest.mark.parametrize("name", CELLS)
def test_dropout_draws_what_keras_draws(name, rng, rnn_paths):
    x = rng.standard_normal((3, 9, 5)).astype("float32")
    results = []
    options = {"dropout": 0.4, "recurrent_dropout": 0.2, "seed": 3}
    for layer in twins(name, (3, 9, 5), units=4, **options):
        results.append(run(layer, x, training=True))
    close(*results)
    assert rnn_paths == ["torch"]


def test_gru_without_reset_after_and_other_activations(rng):
    x = rng.standard_normal((3, 9, 5))
    for options in (
        {"reset_after": False},
        {"activation": "relu", "recurrent_activation": "hard_sigmoid"},
        {"use_bias": False},
    ):
        ours, stock = twins("GRU", (3, 9, 5), units=4, **options)
        close(run(ours, x), run(stock, x))


@pytest.mark.parametrize("name", ["MultiHeadAttention", "GroupQueryAttention"])
def test_attention_layers_are_keras(name, rng, monkeypatch):
    options = {"num_heads": 4, "key_dim": 3}
    if name == "GroupQueryAttention":
        options = {"head_dim": 3, "num_query_heads": 4, "num_key_value_heads": 2}
    ours, stock = twins(name, (3, 9, 5), (3, 9, 5), **options)
    x = rng.standard_normal((3, 9, 5))
    for more in (
        {},
        {"use_causal_mask": True},
        # Queries that see no key get a gradient from Keras, which adds to scores.
        {"value_mask": torch.tensor(LEFT)},
        {"return_attention_scores": True},
    ):
        y = torch.tensor(rng.standard_normal((3, 9, 5)), dtype=torch.float32)
        got, want = (run(layer, x, value=y, **more) for layer in (ours, stock))
        close(got, want)


def data(rng):
    x = rng.standard_normal((6, 9, 5)).astype("float32")
    x[1:3, 5:] = 0
    return x, x[:, :, :3].copy()


def stock_model(policy=None):
    inputs = keras.Input((None, 5))
    x = keras.layers.Masking()(inputs)
    with _policy(policy):
        x = keras.layers.MultiHeadAttention(2, 4, seed=1)(x, x, use_causal_mask=True)
        x = keras.layers.GroupQueryAttention(4, 4, 2, seed=2)(x, x)
        x = keras.layers.Bidirectional(
            keras.layers.LSTM(3, return_sequences=True, seed=3)
        )(x)
        x = keras.layers.GRU(3, return_sequences=True, seed=4)(x)
        x = keras.layers.SimpleRNN(3, return_sequences=True, seed=5)(x)
    return keras.Model(inputs, x)


@contextlib.contextmanager
def _policy(name):
    """Layers that are made inside have the policy `name`."""
    before = keras.config.dtype_policy()
    if name:
        keras.config.set_dtype_policy(name)
    yield
    keras.config.set_dtype_policy(before)


# Keras's own warning of its `GroupQueryAttention`.
@pytest.mark.filterwarnings("ignore:[^`]*does not support masking")
@pytest.mark.parametrize("policy", [None, "mixed_bfloat16"])
def test_accelerated_model_learns_as_keras(policy, rng):
    x, y = data(rng)
    losses, predictions = [], []
    for accelerated in (False, True):
        keras.utils.set_random_seed(1)
        model = stock_model(policy)
        if accelerated:
            report = hw3tf.accelerate(model)
            assert report.num_fused == 6, report
            assert "torch (the kernel covers the call)" in str(report)
        model.compile("sgd", "mse")
        losses.append(model.fit(x, y, epochs=3, batch_size=3, verbose=0).history)
        predictions.append(np.asarray(model.predict(x, verbose=0), "float32"))
        if accelerated:
            hw3tf.restore(model)
    tolerance = 1e-5 if policy is None else 2e-2
    np.testing.assert_allclose(losses[1]["loss"], losses[0]["loss"], rtol=tolerance)
    np.testing.assert_allclose(predictions[1], predictions[0], atol=tolerance)
    assert losses[1]["loss"][-1] < losses[1]["loss"][0]


# Keras's own warning of its `GroupQueryAttention`.
@pytest.mark.filterwarnings("ignore:[^`]*does not support masking")
def test_measured_before_and_after(rng):
    found = hw3tf.accelerate(stock_model(None)).measure(data(rng)[0], 0)
    assert [layer.calls for layer in found.layers] == [1] * 6
    assert min(found.stock, found.accelerated) > 0


def test_generation_is_on_the_kernel():
    check_generation([])  # there is no XLA


@pytest.mark.parametrize("policy", [None, "mixed_bfloat16", "mixed_float16"])
def test_saved_and_loaded(policy, rng, tmp_path):
    x, y = data(rng)
    inputs = keras.Input((None, 5))
    with _policy(policy):
        z = hw3tf.layers.MultiHeadAttention(2, 4, dropout=0.1)(inputs, inputs)
        z = hw3tf.layers.GroupQueryAttention(4, 4, 2)(z, z)
        for name in CELLS:
            z = getattr(hw3tf.layers, name)(3, return_sequences=True)(z)
    model = keras.Model(inputs, z)
    model.compile("adam", "mse")
    history = model.fit(x, y, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        model.predict(x, verbose=0), loaded.predict(x, verbose=0)
    )


def test_enabled_function_takes_the_kernel(monkeypatch):
    from hw3tf.ops.fronts import torch_ops

    calls, attention = [], torch_ops.attention

    def counted(*args):
        calls.append(args)
        return attention(*args)

    monkeypatch.setattr(torch_ops, "attention", counted)
    x = torch.randn(2, 5, 2, 4)
    before = keras.ops.dot_product_attention(x, x, x, is_causal=True)
    assert not calls
    with hw3tf.enable():
        after = keras.ops.dot_product_attention(x, x, x, is_causal=True)
        assert len(calls) == 1
        keras.ops.dot_product_attention(x, x, x, flash_attention=False)
        assert len(calls) == 1
    torch.testing.assert_close(after, before)
    keras.ops.dot_product_attention(x, x, x)
    assert len(calls) == 1


# ONNX's exporter and Keras's use what PyTorch, NumPy and Python will take away.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True], ids=["traced", "dynamo"])
def test_exported_to_onnx(dynamo, rng, tmp_path):
    """Which knows no op of hw3tf."""
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    if dynamo:
        pytest.importorskip("onnxscript")
    inputs = keras.Input((9, 5))
    x = hw3tf.layers.MultiHeadAttention(2, 4)(inputs, inputs, use_causal_mask=True)
    model = keras.Model(inputs, hw3tf.layers.GRU(3)(x))
    x = rng.standard_normal((2, 9, 5)).astype("float32")
    expected = model.predict(x, verbose=0)
    file = str(tmp_path / "model.onnx")
    if dynamo:
        torch.onnx.export(model.eval(), (torch.tensor(x),), file, dynamo=True)
    else:
        torch.onnx.export(model.eval(), (torch.tensor(x),), file, dynamo=False)
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [y.name for y in session.get_inputs()]
    (got,) = session.run(None, {names[0]: x})
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_integers_are_not_exported_to_onnx(tmp_path):
    pytest.importorskip("onnx")
    inputs = keras.Input((3, 1), dtype="int32")
    model = keras.Model(inputs, hw3tf.layers.IntegerRNN(1, dtype="int32")(inputs))
    x = torch.ones(2, 3, 1, dtype=torch.int32)
    model(x)
    with pytest.raises(Exception, match="integer recurrence cannot be exported"):
        torch.onnx.export(model.eval(), (x,), str(tmp_path / "m.onnx"), dynamo=False)


# ------------------------------------------------------------ integer recurrence


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_integers_are_exact(dtype, rng):
    x = rng.integers(-(10**6), 10**6, (3, 7, 2)).astype(dtype)
    w, u = (rng.integers(-3, 4, (rows, 4)).astype(dtype) for rows in (2, 4))
    got = ops.integer_rnn(x, w, u, overflow="wrap", return_sequences=True)
    states = np.zeros((3, 4), object)
    bits = 32 if dtype == "int32" else 64
    for step in range(7):
        sums = x[:, step].astype(object) @ w.astype(object) + states @ u.astype(object)
        states = (sums + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
        np.testing.assert_array_equal(got[:, step], states.astype(dtype))
    path = ops.integer_rnn_path(x, w, u)
    assert str(path) == "torch (the kernel covers the call)"


def test_overflow_raises():
    one = torch.ones(1, 1, dtype=torch.int32)
    x = torch.full((1, 9, 1), 2**30, dtype=torch.int32)
    with pytest.raises(OverflowError, match="int32 in batch entry 0 at timestep 1"):
        ops.integer_rnn(x, one, one)
    layer = hw3tf.layers.IntegerRNN(1, dtype="int32")
    with pytest.raises(OverflowError, match="int32 in batch entry 0 at timestep 1"):
        layer(x)


def test_integer_layer_in_a_model():
    inputs = keras.Input((None, 1), dtype="int32")
    layer = hw3tf.layers.IntegerRNN(2, return_sequences=True, dtype="int32")
    model = keras.Model(inputs, layer(inputs))
    x = np.arange(6, dtype="int32").reshape(1, 6, 1)
    sums = np.cumsum(x, 1)
    np.testing.assert_array_equal(
        model.predict(x, verbose=0), np.concatenate([sums, sums], -1)
    )


# ------------------------------------------------------------------------- errors


def test_errors_of_recurrent_functions():
    x, w, u = torch.ones(2, 3, 4), torch.ones(4, 12), torch.ones(3, 12)
    with pytest.raises(ValueError, match="`kernel` must have"):
        ops.lstm(x, w[:, :8], u)
    with pytest.raises(ValueError, match=r"`(recurrent_)?kernel` must have shape"):
        ops.lstm(x, w, u[:, :2])
    with pytest.raises(ValueError, match="`inputs`"):
        ops.lstm(x[0], w, u)
    with pytest.raises(ValueError, match="dtype"):
        ops.lstm(x.int(), w.int(), u.int())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_types_of_recurrent_functions(dtype, rng):
    torch_type = getattr(torch, dtype)
    arrays = [rng.standard_normal(s) / 2 for s in ((2, 5, 4), (4, 12), (3, 12))]
    x, w, u = (torch.tensor(a, dtype=torch_type) for a in arrays)
    got = ops.lstm(x, w, u)
    assert got.dtype == torch_type
    exact = ops.lstm(*(t.float() for t in (x, w, u)))
    tolerance = {"float32": 0, "bfloat16": 2**-7, "float16": 2**-10}[dtype]
    torch.testing.assert_close(got.float(), exact, rtol=0, atol=tolerance)


def test_nothing_is_kept_without_a_gradient(rng, monkeypatch):
    from hw3tf.ops.fronts import torch_ops

    kernel = torch_ops.RNN_KERNELS["lstm"]
    kept, function = [], kernel.function

    def spied(**given):
        kept.append(given["keep"])
        return function(**given)

    monkeypatch.setattr(kernel, "function", spied)
    x, w, u = torch.ones(2, 3, 4), torch.ones(4, 12), torch.ones(3, 12)
    ops.lstm(x, w, u)
    w.requires_grad_()
    ops.lstm(x, w, u)
    with torch.no_grad():
        ops.lstm(x, w, u)
    assert kept == [False, True, False]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "op"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "simple_rnn"])
def test_a_first_layer_takes_no_gradient_of_its_inputs(
    cell, compiled, rng, monkeypatch
):
    from hw3tf.ops.fronts import torch_ops

    kernels, skipped = torch_ops._CELLS[cell], []
    backward = kernels.backward

    def counted(named):
        skipped.append(named["skip_grad_inputs"])
        return backward(named)

    monkeypatch.setattr(kernels, "backward", counted)
    if compiled:  # what a compiled or exported graph calls
        monkeypatch.setattr(torch_ops.torch.compiler, "is_compiling", lambda: True)
    columns = {"lstm": 20, "gru": 15, "simple_rnn": 5}[cell]
    x = torch.tensor(rng.standard_normal((2, 7, 3)), dtype=torch.float32)
    weights = [
        torch.tensor(rng.standard_normal((n, columns)), dtype=torch.float32)
        for n in (3, 5)
    ]
    for weight in weights:
        weight.requires_grad_()
    grads = []
    for wanted in (False, True):
        x.requires_grad_(wanted)
        output = getattr(ops, cell)(x, *weights)
        sources = [*weights, x] if wanted else weights
        grads.append(torch.autograd.grad(output.sin().sum(), sources))
    assert skipped == [True, False]
    for a, b in zip(grads[0], grads[1][:2], strict=True):
        assert torch.equal(a, b)
    assert grads[1][2].abs().max() > 0
