"""`hw3tf.jax`: the functions of `jax.nn` on the kernels."""

import functools
import inspect

import formula
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hw3tf.jax

# Before, jax.nn did not hide what windows and lengths hide.
pytestmark = pytest.mark.skipif(
    "return_residual" not in inspect.signature(jax.nn.dot_product_attention).parameters,
    reason="the jax.nn to compare with is that of JAX 0.8 and later",
)
B, T, S, N, K, H = 2, 9, 11, 4, 2, 8
LENGTHS = jnp.array([T, 4], "int32")
MASK = jnp.asarray(np.random.default_rng(3).random((B, N, T, S)) > 0.3)
OPTIONS = {
    "plain": {},
    "scale": {"scale": -0.3},
    "causal": {"is_causal": True},
    "bias": {"bias": jnp.asarray(np.random.default_rng(4).random((B, 1, T, S)))},
    "mask": {"mask": MASK},
    "query-lengths": {"query_seq_lengths": LENGTHS},
    "key-lengths": {"key_value_seq_lengths": jnp.array([3, S], "int32")},
    "window": {"local_window_size": 2},
    "window-before": {"local_window_size": (3, 0)},
    "window-after": {"local_window_size": (1, 4), "is_causal": False},
}


@pytest.fixture
def inputs(rng):
    shapes = (B, T, N, H), (B, S, K, H), (B, S, K, H)
    return [jnp.asarray(rng.standard_normal(s), "float32") for s in shapes]


def close(got, want, atol=2e-6):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        # Two orders of a few dozen float32 additions of numbers up to 10.
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("name", OPTIONS)
def test_values_and_gradients_are_those_of_jax_nn(name, inputs):
    def loss(function, *inputs):
        output = function(*inputs, **OPTIONS[name])
        return jnp.sum(jnp.sin(output)), output

    got, want = (
        jax.value_and_grad(functools.partial(loss, f), (0, 1, 2), has_aux=True)(*inputs)
        for f in (hw3tf.jax.dot_product_attention, jax.nn.dot_product_attention)
    )
    close(got, want, atol=1e-5)


def test_no_batch_and_the_logsumexp(inputs):
    rows = [x[0] for x in inputs]
    got = hw3tf.jax.dot_product_attention(*rows, return_residual=True)
    close(got, jax.nn.dot_product_attention(*rows, return_residual=True))
    assert got[0].shape == (T, N, H)
    assert got[1].shape == (T, N)


def test_second_derivatives_with_a_window_to_one_side(inputs, monkeypatch):
    from hw3tf.ops.fronts import ffi

    monkeypatch.setattr(ffi, "say_once", lambda what: None)

    def squares(function, query):
        def loss(query):
            return jnp.sum(
                jnp.sin(function(query, *inputs[1:], local_window_size=(3, 1)))
            )

        return jnp.sum(jax.grad(loss)(query) ** 2)

    got, want = (
        jax.grad(functools.partial(squares, f))(inputs[0])
        for f in (hw3tf.jax.dot_product_attention, jax.nn.dot_product_attention)
    )
    close(got, want, atol=1e-5)


def test_float64_is_kept_with_x64(rng):
    arrays = rng.standard_normal((3, B, T, N, H))
    with jax.enable_x64(True):
        got = hw3tf.jax.dot_product_attention(*map(jnp.asarray, arrays), is_causal=True)
        assert got.dtype == "float64"
        want, *_ = formula.attention(*arrays, is_causal=True)
        # Two orders of a few dozen additions of numbers up to 10, in float64.
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-13)


def test_another_implementation_is_that_of_jax_nn(inputs):
    got = hw3tf.jax.dot_product_attention(*inputs, implementation="xla")
    want = jax.nn.dot_product_attention(*inputs, implementation="xla")
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"key": jnp.ones((B, S, 3, H))}, "a number of heads that divides"),
        ({"value": jnp.ones((B, S, K, H), "bfloat16")}, "must have one dtype"),
        ({"local_window_size": -1}, "`local_window_size` must be"),
        ({"local_window_size": (1, None)}, "`local_window_size` must be"),
        ({"bias": jnp.ones((3, 1, 1, 1))}, "`bias` must"),
    ],
    ids=lambda x: x if isinstance(x, str) else "-".join(x),
)
def test_wrong_arguments_are_named(wrong, words, inputs):
    arrays = dict(zip(("query", "key", "value"), inputs, strict=True)) | wrong
    with pytest.raises(ValueError, match=words):
        hw3tf.jax.dot_product_attention(**arrays)


def test_exported_functions_name_their_calls(inputs):
    checks = [
        jax.export.DisabledSafetyCheck.custom_call(name)
        for name in hw3tf.jax.EXPORTED_CALLS
    ]
    function = jax.jit(hw3tf.jax.dot_product_attention)
    exported = jax.export.export(function, disabled_checks=checks)(*inputs)
    np.testing.assert_array_equal(exported.call(*inputs), function(*inputs))


def test_the_examples_in_the_docstrings_run():
    import doctest

    failed, tried = doctest.testmod(hw3tf.jax)
    assert tried >= 5
    assert not failed
