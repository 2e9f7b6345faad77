"""Every option and every type, through `hw3tf._core` and through the TensorFlow
op, against a formula in NumPy."""

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from kernel_paths import backward, forward, real_of
from numpy_attention import attention, packed_attention

from hw3tf import ops

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


def run(path, arrays, grad_logsumexp, **options):
    """The results in the order of NAMES."""
    query, key, value, grad_output = arrays
    output, statistics, logsumexp = forward(path, query, key, value, **options)
    grads = backward(
        path,
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
        size = max(1.0, np.abs(truth).max(initial=0))
        if name == "grad_bias":
            # Terms that cancel: about 1 for each row of scores that it serves.
            size = max(size, got[0].size / got[0].shape[-1] / x.size)
        bound += 4 * ulp * size
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
@pytest.mark.parametrize("path", ["op", "graph"])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_paths_agree_to_the_bit(dtype, path, packed, rng):
    table = PACKED_OPTIONS if packed else OPTIONS
    for make in table.values():
        arrays, grad_logsumexp = make_arrays(rng, dtype, packed)
        options = {"scale": 0.3, **make(rng, real_of(dtype))}
        if packed:
            options.update(SPLITS)
        want = run("core", arrays, grad_logsumexp, **options)
        got = run(path, arrays, grad_logsumexp, **options)
        for x, y in zip(got, want, strict=True):
            if y is not None:
                assert x.dtype == y.dtype
                np.testing.assert_array_equal(x, y)


def static_shapes(*known):
    """The shapes of all outputs, forward and backward, as a graph knows them;
    `known`: those of query, key, value, bias and the splits."""
    library, shapes = ops.load_op_library(), []
    query, key, value, bias, splits = known
    optional = [tf.TensorSpec([0], dtype) for dtype in ["bool"] * 3 + ["int32"] * 2]
    specs = [
        *(tf.TensorSpec(x, "bfloat16") for x in (query, key, value)),
        tf.TensorSpec(bias, "float32"),
        *optional,
        *[tf.TensorSpec(splits, "int64")] * 2,
        tf.TensorSpec([], "int64"),
        tf.TensorSpec([3], "float64"),
    ]

    @tf.function(input_signature=specs)
    def run(*inputs):
        outputs = library.hw3tf_attention(*inputs)
        grads = library.hw3tf_attention_grad(
            *inputs, *outputs[:2], outputs[0], outputs[2]
        )
        assert [x.dtype for x in outputs] == ["bfloat16", "float32", "float32"]
        assert [x.dtype for x in grads] == ["bfloat16"] * 3 + ["float32"]
        for x in (*outputs, *grads):
            shapes.append(x.shape.as_list() if x.shape.rank is not None else None)

    run.get_concrete_function()
    assert shapes[3:] == [query, key, value, bias if bias == [0] else None]
    return shapes[:3]


def test_static_shapes():
    q, k, v = [2, 5, 4, 8], [2, 7, 2, 8], [2, 7, 2, 6]
    lengths = [[2, 5, 4, 6], [2, 4, 5, 2], [2, 4, 5]]
    assert static_shapes(q, k, v, [0], [0]) == lengths
    assert static_shapes(q, None, v, None, None) == lengths
    q, v = [None, None, 4, 8], [None, None, 2, 6]
    batches = [[None, None, 4, 6], [None, 4, None, 2], [None, 4, None]]
    assert static_shapes(q, None, v, [1, 4, 1, None], None) == batches
    ranks = [[None] * 3 + [6], [None] * 3 + [2], [None] * 3]
    assert static_shapes(None, None, v, [0], [0]) == ranks
    sizes = [[None, None, 4, None], *batches[1:]]
    assert static_shapes(q, None, None, [0], [0]) == sizes
    assert static_shapes(None, None, None, None, None) == [None] * 3
    packed = [[9, 4, 6], [4, 9, 2], [4, 9]]
    assert static_shapes([9, 4, 8], None, [None, 2, 6], [0], [3]) == packed
    for bad in ([5, 8], [2, 5, 4, 8, 1]):
        with pytest.raises(ValueError, match="must be rank 4"):
            static_shapes(bad, None, None, [0], [0])
    with pytest.raises(ValueError, match="must be rank 3"):
        static_shapes([9, 4, 8], None, [2, 7, 2, 6], [0], [3])


# TensorFlow asks its allocator again and again, for 10 s.
@pytest.mark.parametrize("path", ["core", pytest.param("op", marks=pytest.mark.slow)])
def test_results_beyond_the_memory_are_an_error(path):
    """256 TiB of output from 80 MB of inputs; the backward pass starts with an
    output that no memory can hold, so it has no such call."""
    query = np.zeros((1, 2**24, 1, 1), "float32")
    key, value = (np.zeros((1, 1, 1, n), "float32") for n in (1, 2**22))
    error = MemoryError if path == "core" else tf.errors.ResourceExhaustedError
    with pytest.raises(error):
        forward(path, query, key, value, scale=1.0)
