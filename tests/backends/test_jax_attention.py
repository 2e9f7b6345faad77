"""`hw3tf.ops.dot_product_attention` on JAX: options, types, errors.

The kernel is judged by the tests of the other folders. Here it is called once by JAX
and once by `hw3tf._core`: every bit must be the same.
"""

import functools

import formula
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from jax_checks import assert_same_bits, results_and_grads

from hw3tf import _core, ops, reference

B, T, S, N, K, H, V = 2, 37, 41, 4, 2, 16, 24
VISIBLE = np.random.default_rng(7).random((2, 1, T, S)) > 0.4
KEYS, QUERIES = VISIBLE[:, 0, 0].copy(), VISIBLE[:, 0, :, 0].copy()
LENGTHS = {"key_lengths": np.array([S, 7]), "query_lengths": np.array([3, T])}
# Options, and what the kernel gets of them where that differs.
OPTIONS = {
    "plain": ({}, {}),
    "scale": ({"scale": -0.3}, {}),
    "causal": ({"is_causal": True}, {}),
    "soft-cap": ({"attn_logits_soft_cap": 2.0}, {"soft_cap": 2.0}),
    "window": ({"sliding_window": 5}, {"window_before": 4, "window_after": 4}),
    "mask": ({"mask": VISIBLE}, {}),
    "mask-of-keys": ({"mask": VISIBLE[:, :, :1]}, {"key_mask": KEYS}),
    "mask-of-one": ({"mask": VISIBLE[:1]}, {}),
    "key-mask": ({"key_mask": KEYS}, {}),
    "query-mask": ({"query_mask": QUERIES}, {}),
    "lengths": (LENGTHS, {}),
    "nothing-seen": ({"key_lengths": np.array([0, 7])}, {}),
    "dropout": ({"dropout_rate": 0.3, "dropout_seed": 2**40 + 7}, {}),
    "dropout-by-array": (
        {"dropout_rate": 0.3, "dropout_seed": np.int32(-5)},
        {"dropout_seed": -5},
    ),
}
OTHER_NAMES = ("attn_logits_soft_cap", "sliding_window")


def make(rng, batches=(B, B, B), bias=None):
    arrays = {
        "query": rng.standard_normal((batches[0], T, N, H)),
        "key": rng.standard_normal((batches[1], S, K, H)),
        "value": rng.standard_normal((batches[2], S, K, V)),
    }
    if bias:
        arrays["bias"] = rng.standard_normal(bias)
    batch = max(batches)
    upstream = [rng.standard_normal(s) for s in ((batch, T, N, V), (batch, N, T))]
    return arrays, upstream


def by_core(arrays, upstream, options, given, dtype):
    """What `results_and_grads` returns, by the kernel itself."""
    narrow = {k: np.asarray(jnp.asarray(x, dtype)) for k, x in arrays.items()}
    if "bias" in narrow:
        bias = narrow["bias"].astype("float32")
        narrow["bias"] = bias.reshape((1,) * (4 - bias.ndim) + bias.shape)
    options = {k: x for k, x in options.items() if k not in OTHER_NAMES}
    if "mask" in options and "key_mask" in given:
        del options["mask"]
    options = {"scale": H**-0.5} | options | given
    for name in LENGTHS:
        if name in options:
            options[name] = options[name].astype("int32")
    results = _core.attention_forward(**narrow, **options)
    output, statistics, logsumexp = results
    grads = _core.attention_backward(
        **narrow,
        output=output,
        statistics=statistics,
        grad_output=np.asarray(jnp.asarray(upstream[0], dtype)),
        grad_logsumexp=upstream[1].astype("float32"),
        **options,
    )
    grads = [grad for grad in grads if grad is not None]
    if "bias" in arrays:
        grads[3] = grads[3].reshape(arrays["bias"].shape)
        grads[3] = np.asarray(jnp.asarray(grads[3], dtype))
    return [output, logsumexp, *grads]


def check(arrays, upstream, options=None, given=None, dtype="float32"):
    options = options or {}
    run = functools.partial(ops.dot_product_attention, return_logsumexp=True, **options)
    got = results_and_grads(run, arrays, upstream, dtype)
    assert_same_bits(got, by_core(arrays, upstream, options, given or {}, dtype))
    return got


@pytest.mark.parametrize("name", OPTIONS)
def test_options_reach_the_kernel(name, rng):
    arrays, upstream = make(rng)
    assert ops.attention_path(*arrays.values()).path == "ffi"
    options, given = OPTIONS[name]
    output, logsumexp, *_ = check(arrays, upstream, options, given)
    if "dropout" not in name:
        want = formula.attention(**arrays, **options)
        # Sums of at most 41 float32 products of size 1.
        np.testing.assert_allclose(output, want[0], rtol=0, atol=1e-5)
        np.testing.assert_allclose(logsumexp, want[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["plain", "mask", "dropout"])
def test_narrow_types(name, dtype, rng):
    check(*make(rng), *OPTIONS[name], dtype)


@pytest.mark.parametrize(
    "shape", [(B, N, T, S), (1, 1, 1, S), (N, T, S), (T, 1)], ids=str
)
def test_a_bias_has_a_gradient(shape, rng):
    check(*make(rng, bias=shape), {"is_causal": True})


@pytest.mark.parametrize("batches", [(1, B, B), (B, 1, 1), (B, B, 1)], ids=str)
def test_a_batch_of_1_serves_all(batches, rng):
    check(*make(rng, batches))


def test_scores_and_logsumexp_are_returned(rng):
    query, key, value = (jnp.asarray(x, "float32") for x in make(rng)[0].values())
    options = {"return_logsumexp": True, "return_attention_scores": True}
    got = ops.dot_product_attention(query, key, value, **options)
    want = reference.dot_product_attention(query, key, value, **options)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_threads_change_no_bit(rng):
    query, key, value = (jnp.asarray(x, "float32") for x in make(rng)[0].values())
    results = []
    for threads in (1, 2, 5):
        ops.set_num_threads(threads)
        results.append(ops.dot_product_attention(query, key, value))
    ops.set_num_threads(0)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"key": np.zeros((B, S, 3, H))}, "a number of heads that divides"),
        ({"value": np.zeros((B, S + 1, K, V))}, "`value` must have"),
        ({"key_lengths": np.array([1, 2, 3])}, "`key_lengths` must have"),
        ({"key_lengths": np.array([1, S + 1])}, "between 0 and the length of `key`"),
        ({"dropout_rate": 1.0}, "`dropout_rate` must be"),
        ({"mask": np.ones((B, 1, T + 1, S), bool)}, "`mask` must"),
    ],
    ids=lambda x: x if isinstance(x, str) else "-".join(x),
)
def test_wrong_arguments_are_named(wrong, words, rng):
    arrays = {k: jnp.asarray(x, "float32") for k, x in make(rng)[0].items()}
    with pytest.raises(ValueError, match=words):
        ops.dot_product_attention(**{**arrays, **wrong})


def test_a_length_that_is_wrong_only_at_run_time_is_an_error(rng):
    arrays = {k: jnp.asarray(x, "float32") for k, x in make(rng)[0].items()}

    @jax.jit
    def run(lengths):
        return ops.dot_product_attention(**arrays, key_lengths=lengths)

    np.testing.assert_array_equal(
        run(jnp.array([3, 4])),
        ops.dot_product_attention(**arrays, key_lengths=np.array([3, 4])),
    )
    with pytest.raises(Exception, match=rf"between 0 and the length of `key`, {S}"):
        run(jnp.array([3, S + 1])).block_until_ready()


@pytest.mark.parametrize("empty", ["batch", "queries", "keys"])
def test_empty_calls(empty):
    shape = {"batch": 2, "queries": 3, "keys": 4} | {empty: 0}
    batch, queries, keys = shape.values()
    query = jnp.ones((batch, queries, 2, 8))
    key = jnp.ones((batch, keys, 2, 8))
    value = jnp.ones((batch, keys, 2, 5))
    got = ops.dot_product_attention(query, key, value)
    assert got.shape == (batch, queries, 2, 5)
    assert not np.isnan(got).any()
    grads = jax.grad(lambda *x: ops.dot_product_attention(*x).sum(), argnums=(0, 1, 2))(
        query, key, value
    )
    assert [g.shape for g in grads] == [x.shape for x in (query, key, value)]


def test_what_is_hidden_does_not_reach_the_result():
    query = jnp.ones((1, 2, 1, 4))
    key = jnp.ones((1, 3, 1, 4)).at[0, 2].set(jnp.nan)
    lengths = jnp.array([2])
    got = ops.dot_product_attention(query, key, key, key_lengths=lengths)
    np.testing.assert_array_equal(got, np.ones((1, 2, 1, 4)))


def test_the_reference_can_be_forced(monkeypatch, rng):
    monkeypatch.setenv("HW3TF_PATH", "reference")
    x = keras.ops.ones((1, 2, 1, 4))
    assert str(ops.attention_path(x, x, x)) == "reference (HW3TF_PATH forces it)"


@pytest.mark.parametrize("forced", ["op", "pybind"])
def test_a_path_of_another_backend_is_refused(forced, monkeypatch):
    monkeypatch.setenv("HW3TF_PATH", forced)
    x = keras.ops.ones((1, 2, 1, 4))
    with pytest.raises(RuntimeError, match=f"HW3TF_PATH={forced}.*backend is jax"):
        ops.dot_product_attention(x, x, x)
