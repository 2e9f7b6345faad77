"""LSTM, GRU, simple RNN and the integer recurrence on JAX."""

import functools

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from integer_formula import integer_rnn as formula
from jax_checks import assert_same_bits, numpy, results_and_grads

import hw3tf
from hw3tf import _core, ops
from hw3tf.ops.operations import RNN

GATES = {"lstm": 4, "gru": 3, "simple_rnn": 1}
B, T, F, U = 3, 7, 5, 6
MASK = np.arange(T) < np.array([[T], [2], [0]])
OPTIONS = {
    "all": {"return_sequences": True},
    "last": {},
    "backwards": {"go_backwards": True, "return_sequences": True},
    "mask": {"mask": MASK, "return_sequences": True},
    "zeros": {"mask": MASK, "return_sequences": True, "zero_output_for_mask": True},
    "lengths": {"lengths": np.array([T, 2, 0])},
    "relu": {"activation": "relu", "return_sequences": True},
}


def make(rng, cell):
    columns = GATES[cell] * U
    arrays = {
        "inputs": rng.standard_normal((B, T, F)),
        "kernel": rng.standard_normal((F, columns)),
        "recurrent_kernel": rng.standard_normal((U, columns)) / 3,
        "bias": rng.standard_normal((2, columns) if cell == "gru" else (columns,)),
    }
    states = 2 if cell == "lstm" else 1
    arrays |= {f"state_{i}": rng.standard_normal((B, U)) for i in range(states)}
    return arrays


def run_cell(cell, options, state_0, state_1=None, **tensors):
    state = state_0 if state_1 is None else (state_0, state_1)
    results = getattr(ops, cell)(
        **tensors, initial_state=state, return_state=True, **options
    )
    return tuple(jax.tree.leaves(results))


def by_core(cell, arrays, upstream, options, dtype):
    """What `results_and_grads` returns, by the kernel itself."""
    narrow = {k: np.asarray(jnp.asarray(x, dtype)) for k, x in arrays.items()}
    for name, state in (("initial_h", "state_0"), ("initial_c", "state_1")):
        if state in narrow:
            narrow[name] = narrow.pop(state)
    if cell == "gru":
        narrow["bias"], narrow["recurrent_bias"] = narrow["bias"]
    if "go_backwards" in options:
        options = {"reverse": True, "return_sequences": True}
    if "lengths" in options:
        options = options | {"lengths": options["lengths"].astype("int32")}
    forward, backward = (
        getattr(_core, f"{cell}_{name}") for name in ("forward", "backward")
    )
    *results, kept = forward(**narrow, **options, keep=True)
    upstream = [np.asarray(jnp.asarray(x, dtype)) for x in upstream]
    if not options.get("return_sequences"):
        upstream[0] = upstream[0][:, None]
    names = ("grad_outputs", "grad_last_h", "grad_last_c")
    grads = backward(
        **narrow,
        outputs=results[0],
        kept=kept,
        **dict(zip(names, upstream, strict=False)),
        **options,
    )
    operands = [x.name for x in RNN[cell].operands if x.name in narrow]
    grads = dict(zip(operands, (g for g in grads if g is not None), strict=False))
    if cell == "gru":
        grads["bias"] = np.stack([grads["bias"], grads.pop("recurrent_bias")])
    if not options.get("return_sequences"):
        results[0] = results[0][:, 0]
    order = ["inputs", "kernel", "recurrent_kernel", "bias", "initial_h", "initial_c"]
    return [*results, *(grads[name] for name in order if name in grads)]


def check(cell, options, rng, dtype="float32"):
    arrays = make(rng, cell)
    run = functools.partial(run_cell, cell, options)
    specs = {k: jax.ShapeDtypeStruct(x.shape, dtype) for k, x in arrays.items()}
    shapes = [x.shape for x in jax.eval_shape(lambda x: run(**x), specs)]
    upstream = [rng.standard_normal(shape) for shape in shapes]
    got = results_and_grads(run, arrays, upstream, dtype)
    assert_same_bits(got, by_core(cell, arrays, upstream, options, dtype))


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("cell", GATES)
def test_results_and_gradients_are_those_of_the_kernel(cell, name, rng):
    check(cell, OPTIONS[name], rng)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("cell", GATES)
def test_narrow_types(cell, dtype, rng):
    check(cell, {}, rng, dtype)


@pytest.mark.parametrize("cell", GATES)
def test_a_first_layer_takes_no_gradient_of_its_inputs(cell, rng):
    arrays = {k: jnp.asarray(x, "float32") for k, x in make(rng, cell).items()}
    x, weights = arrays["inputs"], (arrays["kernel"], arrays["recurrent_kernel"])

    def total(x, *weights):
        return jnp.sum(jnp.sin(getattr(ops, cell)(x, *weights)))

    some, every = jax.grad(total, (1, 2)), jax.grad(total, (0, 1, 2))
    assert_same_bits(some(x, *weights), every(x, *weights)[1:])
    skips = "skip_grad_inputs = true"
    assert skips in jax.jit(some).lower(x, *weights).as_text()
    assert skips not in jax.jit(every).lower(x, *weights).as_text()


def test_vmap_and_second_derivatives(rng, monkeypatch):
    from hw3tf.ops.fronts import ffi

    monkeypatch.setattr(ffi, "say_once", lambda what: None)
    arrays = {k: jnp.asarray(x, "float32") for k, x in make(rng, "lstm").items()}
    sequences = jnp.stack([arrays["inputs"], -arrays["inputs"]])
    weights = arrays["kernel"], arrays["recurrent_kernel"]

    def total(x, *weights):
        return jnp.sum(jnp.sin(ops.lstm(x, *weights)))

    for function in (lambda x, *w: ops.lstm(x, *w), jax.grad(total)):
        got = jax.vmap(function, (0, None, None))(sequences, *weights)
        for i in range(2):
            np.testing.assert_array_equal(got[i], function(sequences[i], *weights))

    def squares(x, *weights):
        return jnp.sum(jax.grad(total)(x, *weights) ** 2)

    got = jax.grad(squares, (0, 1, 2))(sequences[0], *weights)
    monkeypatch.setenv("HW3TF_PATH", "reference")
    want = jax.grad(squares, (0, 1, 2))(sequences[0], *weights)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


@pytest.mark.parametrize("overflow", ["raise", "wrap", "saturate"])
def test_integers_are_exact(overflow, rng):
    limit = 2**31 - 1 if overflow != "raise" else 10**4
    x = rng.integers(-limit, limit, (2, 5, 3)).astype("int32")
    w, u = (rng.integers(-5, 6, (rows, 2)).astype("int32") for rows in (3, 2))
    assert ops.integer_rnn_path(x, w, u).path == "ffi"
    want = formula(x, w, u, overflow=overflow, return_sequences=True)
    for run in (
        ops.integer_rnn,
        jax.jit(ops.integer_rnn, static_argnames=("overflow", "return_sequences")),
    ):
        got = run(x, w, u, overflow=overflow, return_sequences=True)
        np.testing.assert_array_equal(got, want)


def test_an_overflow_is_an_error():
    x, one = np.full((1, 4, 1), 2**30, "int32"), np.ones((1, 1), "int32")
    words = "overflows int32 in batch entry 0 at timestep 1"
    with pytest.raises(OverflowError, match=words):
        ops.integer_rnn(x, one, one)
    with pytest.raises(Exception, match=words):
        jax.jit(ops.integer_rnn)(x, one, one).block_until_ready()


def test_the_layer_of_the_homework():
    steps = keras.ops.convert_to_tensor([[[5], [3], [4], [1]]])
    layer = hw3tf.layers.IntegerRNN(
        1, recurrent_initializer=keras.initializers.Constant(-1), dtype="int32"
    )
    assert numpy(layer(steps)).tolist() == [[-5]]
    assert layer.supports_jit


def test_integers_of_64_bits_need_x64(rng):
    steps = np.ones((1, 2, 1), "int64")
    with pytest.raises(NotImplementedError, match="JAX_ENABLE_X64=1"):
        ops.integer_rnn(steps, steps[0, :1], steps[0, :1])
    if not hasattr(jax, "enable_x64"):
        pytest.skip("from JAX 0.8 on")
    with jax.enable_x64(True):
        x = rng.integers(-(2**40), 2**40, (2, 4, 1))
        w = np.array([[3]])
        got = ops.integer_rnn(x, w, w)
        assert got.dtype == "int64"
        np.testing.assert_array_equal(got, formula(x, w, w))


@functools.cache
def _layers():
    return {
        "LSTM": hw3tf.layers.LSTM,
        "GRU": hw3tf.layers.GRU,
        "SimpleRNN": hw3tf.layers.SimpleRNN,
    }


@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN"])
def test_layers_are_those_of_keras(name, rng, rnn_calls):
    x = rng.standard_normal((B, T, F)).astype("float32")
    stock = getattr(keras.layers, name)(U, return_sequences=True)
    want = stock(x, mask=jnp.asarray(MASK))
    ours = _layers()[name](U, return_sequences=True)
    ours.build(x.shape)
    ours.set_weights(stock.get_weights())
    got = ours(x, mask=jnp.asarray(MASK))
    assert [call[0] for call in rnn_calls] == ["ffi"]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
