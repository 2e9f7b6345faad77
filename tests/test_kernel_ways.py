"""Every option and every type, through `hw3tf._core` and through the TensorFlow
op, against a formula in NumPy."""

import ml_dtypes
import numpy as np
import pytest
from kernel_ways import backward, forward, real_of
from numpy_attention import attention, packed_attention

DTYPES = {
    name: np.dtype(getattr(ml_dtypes, name, name))
    for name in ("float32", "float64", "float16", "bfloat16")
}
NAMES = ("output", "logsumexp", "grad_query", "grad_key", "grad_value", "grad_bias")
BATCH, QUERIES, KEYS, HEADS = 2, 37, 53, 4
SCORES = (BATCH, HEADS, QUERIES, KEYS)


def bias(*shape):
    return lambda rng, real: {"bias": rng.standard_normal(shape).astype(real)}


def mask(*shape):
    return lambda rng, real: {"mask": rng.random(shape) < 0.4}


def options_of(**options):
    return lambda rng, real: dict(options)


def row_masks(rng, real):
    return {
        "query_mask": rng.random((BATCH, QUERIES)) < 0.7,
        "key_mask": rng.random((BATCH, KEYS)) < 0.6,
    }


def lengths(rng, real):
    return {
        "query_lengths": np.array([QUERIES, 20], "int32"),
        "key_lengths": np.array([41, 0], "int32"),
    }


def everything(rng, real):
    return {
        **bias(BATCH, 1, QUERIES, KEYS)(rng, real),
        **mask(1, HEADS, QUERIES, KEYS)(rng, real),
        **row_masks(rng, real),
        **lengths(rng, real),
        "window_before": 9,
        "window_after": 6,
        "is_causal": True,
        "soft_cap": 3.0,
        "dropout_rate": 0.25,
        "dropout_seed": -(2**62) + 5,
    }


OPTIONS = {
    "plain": options_of(),
    "causal": options_of(is_causal=True),
    "window": options_of(window_before=5, window_after=3),
    "window-on-one-side": options_of(window_after=0),
    "soft-cap": options_of(soft_cap=1.5),
    "bias": bias(*SCORES),
    "bias-of-heads": bias(HEADS, 1, 1),
    "bias-of-keys": bias(KEYS),
    "mask": mask(*SCORES),
    "mask-of-heads": mask(1, HEADS, 1, KEYS),
    "mask-of-queries": mask(QUERIES, 1),
    "row-masks": row_masks,
    "lengths": lengths,
    "dropout": options_of(dropout_rate=0.4, dropout_seed=2**40 + 3),
    "everything": everything,
}


def make_arrays(rng, dtype, packed=False, kv_heads=2, size=16, value_dim=24):
    """query, key, value, grad_output of `dtype` and grad_logsumexp."""
    q, k = (7 + QUERIES,), (5 + KEYS,)
    if not packed:
        q, k = (BATCH, QUERIES), (BATCH, KEYS)
    shapes = (
        (*q, HEADS, size),
        (*k, kv_heads, size),
        (*k, kv_heads, value_dim),
        (*q, HEADS, value_dim),
    )
    arrays = [rng.standard_normal(s).astype(dtype) for s in shapes]
    lse = (HEADS, *q) if packed else (BATCH, HEADS, QUERIES)
    return arrays, rng.standard_normal(lse).astype(real_of(dtype))


def run(way, arrays, grad_logsumexp, **options):
    """The results in the order of NAMES."""
    query, key, value, grad_output = arrays
    output, statistics, logsumexp = forward(way, query, key, value, **options)
    grads = backward(
        way,
        query,
        key,
        value,
        output,
        statistics,
        grad_output,
        grad_logsumexp,
        **options,
    )
    return [output, logsumexp, *grads]


def assert_close(got, exact, plain):
    """As close to the exact value as the same formula in the kernel's type, which
    rounds where the kernel rounds; twice its error, and a few units in the last
    place where it happens to have none."""
    for name, x, truth, other in zip(NAMES, got, exact, plain, strict=True):
        assert (x is None) == (truth is None)
        if x is None:
            continue
        assert x.shape == truth.shape
        finite = np.isfinite(truth)
        np.testing.assert_array_equal(np.isneginf(x.astype("float64")), ~finite)
        wide = truth.dtype
        truth, x, other = (a[finite].astype(wide) for a in (truth, x, other))
        ulp = ml_dtypes.finfo(got[NAMES.index(name)].dtype).eps
        bound = 2 * np.abs(other - truth).max(initial=0)
        bound += 4 * ulp * max(1.0, np.abs(truth).max(initial=0))
        error = np.abs(x - truth).max(initial=0)
        assert error <= bound, f"{name}: error {error:.2e} > {bound:.2e}"


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_option_is_as_close_as_the_formula(dtype, name, rng):
    arrays, grad_logsumexp = make_arrays(rng, dtype)
    options = {"scale": 0.3, **OPTIONS[name](rng, real_of(dtype))}
    got = run("core", arrays, grad_logsumexp, **options)
    assert [x.dtype for x in (got[0], *got[2:5])] == [dtype] * 4
    assert got[1].dtype == real_of(dtype)
    assert_close(
        got,
        attention(*arrays, grad_logsumexp, **options),
        attention(*arrays, grad_logsumexp, exactly=False, **options),
    )


SPLITS = {
    "query_splits": np.array([0, 7, 7, 7 + QUERIES - 4, 7 + QUERIES], "int64"),
    "key_splits": np.array([0, 5, 5 + KEYS - 20, 5 + KEYS, 5 + KEYS], "int64"),
}
LONGEST = (4, HEADS, QUERIES - 4, KEYS - 20)
PACKED_OPTIONS = {
    "plain": options_of(),
    "causal": options_of(is_causal=True),
    "window": options_of(window_before=5, window_after=3),
    "bias": bias(*LONGEST),
    "bias-of-heads": bias(1, HEADS, 1, 1),
    "mask": mask(4, 1, *LONGEST[2:]),
    "dropout": options_of(dropout_rate=0.4, dropout_seed=3, soft_cap=2.0),
}


@pytest.mark.parametrize("name", PACKED_OPTIONS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_packed_option_is_as_close_as_the_formula(dtype, name, rng):
    """Four sequences, one without queries, one without keys."""
    arrays, grad_logsumexp = make_arrays(rng, dtype, packed=True)
    options = {"scale": 0.3, **PACKED_OPTIONS[name](rng, real_of(dtype)), **SPLITS}
    got = run("core", arrays, grad_logsumexp, **options)
    assert not got[0][SPLITS["query_splits"][3] :].astype("float32").any()
    assert_close(
        got,
        packed_attention(*arrays, grad_logsumexp, **options),
        packed_attention(*arrays, grad_logsumexp, exactly=False, **options),
    )


@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
@pytest.mark.parametrize("way", ["op", "graph"])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_ways_agree_to_the_bit(dtype, way, packed, rng):
    table = PACKED_OPTIONS if packed else OPTIONS
    for make in table.values():
        arrays, grad_logsumexp = make_arrays(rng, dtype, packed)
        options = {"scale": 0.3, **make(rng, real_of(dtype))}
        if packed:
            options.update(SPLITS)
        want = run("core", arrays, grad_logsumexp, **options)
        got = run(way, arrays, grad_logsumexp, **options)
        for x, y in zip(got, want, strict=True):
            if y is not None:
                assert x.dtype == y.dtype
                np.testing.assert_array_equal(x, y)
