"""Tests of the module `hw3tf._core`: instruction sets, threads, strides.
kernels/test_kernel_paths.py compares results, kernels/test_errors.py refusals."""

import ast
import inspect
import pathlib
import re
import threading

import ml_dtypes
import numpy as np
import processes
import pytest
from checks import make_inputs, run_python

import hw3tf
from hw3tf import _core

TESTS = pathlib.Path(__file__).parents[1]


def run(inputs, **options):
    query, key, value, grad = inputs
    options.setdefault("scale", 0.3)
    output, statistics, logsumexp = _core.attention_forward(
        query, key, value, **options
    )
    *grads, grad_bias = _core.attention_backward(
        query, key, value, output, statistics, grad, **options
    )
    assert (grad_bias is None) == (options.get("bias") is None)
    bias_too = [] if grad_bias is None else [grad_bias]
    return [output, statistics, logsumexp, *grads, *bias_too]


@pytest.fixture
def threads():
    yield _core.set_num_threads
    _core.set_num_threads(0)


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("masked", [False, True], ids=["all-keys", "holes"])
@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 2)])
def test_threads_do_not_change_a_bit(heads, kv_heads, masked, is_causal, threads, rng):
    """16: blocks of queries are cut."""
    inputs = make_inputs(rng, 2, 300, 400, heads, kv_heads, 16, 24)
    key_mask = rng.random((2, 400)) < 0.5 if masked else None
    assert_same_bits(threads, inputs, key_mask=key_mask, is_causal=is_causal)


@pytest.mark.parametrize(
    ("lengths", "heads", "options"),
    [
        ((1100, 20), (1, 1), {}),
        ((1100, 1100), (1, 1), {"is_causal": True}),
        ((40, 3000), (1, 1), {}),
        ((900, 900), (2, 1), {"window_before": 60, "window_after": 60}),
        ((150, 90), (6, 2), {"bias": (1, 1, 150, 90)}),
    ],
    ids=["few-keys", "causal", "few-queries", "window", "bias-of-all-heads"],
)
def test_threads_do_not_change_a_bit_of_what_is_cut(
    lengths, heads, options, threads, rng
):
    """Ranges of queries, split keys, the order of a window's chunks; a query whose
    three heads lie in two blocks and share a row of the bias."""
    inputs = make_inputs(rng, 1, *lengths, *heads, 8, 8)
    if "bias" in options:
        options = {"bias": rng.standard_normal(options["bias"], "float32")}
    assert_same_bits(threads, inputs, **options)


def assert_same_bits(threads, inputs, **options):
    results = []
    for number in (1, 2, 5, 16):
        threads(number)
        results.append(run(inputs, **options))
    for other in results[1:]:
        for x, y in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(x, y)


def test_strided_views_need_no_copy(rng):
    """(batch, heads, length, size) seen as (batch, length, heads, size), a slice
    of a wider array, and a reversed axis."""
    query, key, value, grad = make_inputs(rng, 2, 40, 50, 3, 3, 8, 8)
    turned = [
        np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in (query, key)
    ]
    wide = np.zeros((2, 100, 3, 16), np.float32)
    wide[:, ::2, :, 4:12] = value[:, ::-1]
    views = (*turned, wide[:, ::2, :, 4:12][:, ::-1], grad)
    assert not any(x.flags.c_contiguous for x in views[:3])
    for x, y in zip(run((query, key, value, grad)), run(views), strict=True):
        np.testing.assert_array_equal(x, y)


def test_strided_bias_and_mask_need_no_copy(rng):
    """Transposed, reversed, and with an axis that NumPy repeats by a stride of 0:
    that axis has a gradient of its own for each of its elements."""
    inputs = make_inputs(rng, 2, 40, 50, 3, 3, 8, 8)
    bias = rng.standard_normal((50, 2, 40), "float32")
    views = {
        "bias": np.broadcast_to(bias.transpose(1, 2, 0)[:, None], (2, 3, 40, 50)),
        "mask": (rng.random((40, 100)) < 0.5)[::-1, ::2],
    }
    copies = {name: x.copy() for name, x in views.items()}
    assert views["bias"].strides[1] == 0
    for x, y in zip(run(inputs, **views), run(inputs, **copies), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", ml_dtypes.bfloat16])
def test_nothing_to_compute(dtype, rng):
    """No queries or no batch: empty results; zeros where something has no
    gradient. No keys for any query of a packed call is refused elsewhere."""
    for batch, queries in ((0, 5), (2, 0), (0, 0)):
        inputs = make_inputs(rng, batch, queries, 7, 4, 2, 8, 6)
        inputs = [x.astype(dtype) for x in inputs]
        real = "float64" if dtype == "float64" else "float32"
        for shape in ((1, 4, 1, 7), (batch, 1, queries, 1), (batch, 4, queries, 7)):
            results = run(inputs, bias=np.ones(shape, real))
            assert [x.shape for x in results[:3]] == [
                (batch, queries, 4, 6),
                (batch, 4, queries, 2),
                (batch, 4, queries),
            ]
            wanted = [*(x.shape for x in inputs[:3]), shape]
            assert [x.shape for x in results[3:]] == wanted
            assert not any(x.astype("float32").any() for x in results[3:])
    query = np.zeros((0, 4, 8), dtype)
    for rows in (0, 3):
        key, value = np.ones((rows, 2, 8), dtype), np.ones((rows, 2, 6), dtype)
        splits = np.zeros(3, "int64"), np.array([0, rows, rows])
        grad = np.zeros((0, 4, 6), dtype)
        packed = {"query_splits": splits[0], "key_splits": splits[1]}
        results = run(
            (query, key, value, grad), **packed, bias=np.ones((1, 1, 1, 1), real)
        )
        assert [x.shape for x in results[:3]] == [(0, 4, 6), (4, 0, 2), (4, 0)]
        assert not any(x.astype("float32").any() for x in results[3:])


def test_statistics_give_logsumexp(rng):
    """With neither bias nor soft cap the maximum is kept before the scale."""
    inputs = make_inputs(rng, 2, 30, 200, 2, 2, 8, 8)
    for scale in (0.4, -0.4):
        scores = scale * np.einsum("btnh,bsnh->bnts", *inputs[:2], dtype="float64")
        top = scores.max(-1)
        want = top + np.log(np.exp(scores - top[..., None]).sum(-1))
        _, statistics, logsumexp, *_ = run(inputs, scale=scale)
        maximum, total = np.moveaxis(statistics.astype("float64"), -1, 0)
        for got in (abs(scale) * maximum + np.log(total), logsumexp):
            np.testing.assert_allclose(got, want, atol=2e-6)


def test_window_wider_than_any_sequence_is_none(rng):
    inputs = make_inputs(rng, 1, 30, 40, 1, 1, 8, 8)
    wide = run(inputs, window_before=2**63 - 1, window_after=2**31)
    for x, y in zip(run(inputs), wide, strict=True):
        np.testing.assert_array_equal(x, y)


def test_dropout_mask_is_reproducible_and_as_dense_as_asked():
    keep = _core.attention_dropout_mask((2, 3, 50, 70), rate=0.3, seed=-7)
    assert keep.shape == (2, 3, 50, 70)
    assert keep.dtype == bool
    assert abs(keep.mean() - 0.7) < 0.02
    again = _core.attention_dropout_mask((3, 4, 60, 80), rate=0.3, seed=-7)
    np.testing.assert_array_equal(keep, again[:2, :3, :50, :70])
    other = _core.attention_dropout_mask((2, 3, 50, 70), rate=0.3, seed=8)
    assert (keep != other).any()
    assert _core.attention_dropout_mask((1, 1, 2, 2), rate=0.0, seed=1).all()


def test_dropout_mask_of_no_scores_is_empty_at_once():
    for shape in ((2**40, 0, 4, 3), (2**40, 2, 0, 3), (2**40, 2, 4, 0)):
        keep = _core.attention_dropout_mask(shape, rate=0.3, seed=1)
        assert keep.shape == shape


def test_dropout_mask_follows_the_published_generator():
    """A known answer of Philox4x32-10 (Random123, kat_vectors): counter and key
    zero give 6627e8d5 e169c58d bc57ac4c 9b00dbd8."""
    words = np.array([0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8])
    for rate in (0.3, 0.45, 0.65, 0.8, 0.9):
        keep = _core.attention_dropout_mask((1, 1, 1, 4), rate=rate, seed=0)
        np.testing.assert_array_equal(keep[0, 0, 0], words >= rate * 2**32)


# The numerical tests, and those among them that take other code in another instruction
# set: every option and type, tiles that are cut, masks, lines, rows and chunks.
NUMERICAL = (
    "kernels/test_golden_numbers",
    "kernels/test_kernel_paths",
    "ops/test_attention",
    "ops/test_attention_masks",
    "ops/test_integer_rnn",
    "ops/test_integer_rnn_long",
)
CHOSEN = (
    "acknowledged or earlier_versions or as_close_as_the_formula or head_sizes or "
    "rising_scores or 65-padded-causal or 331-padded-causal or "
    "(masked_does_not and nan) or (whole_are and mask-and-bias) or "
    "policies_at_the_edges or every_dtype or states_are_exact or "
    "(2-threads and (32769 or 98381 or time_in or near_the_bounds))"
)


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(CHOSEN, id="chosen"),
        pytest.param("not pybind", id="all", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", _core.supported_instruction_sets())
def test_every_instruction_set_passes_the_tests_of_the_op(name, cases):
    """Numerical tests once more, in a process that HW3TF_ISA sends to another
    instruction set. The C++ tests take each set through many more cases."""
    if name == _core.instruction_set():
        return  # that is the one under which this run tests everything
    files = NUMERICAL
    if cases == CHOSEN:
        cases = f"({CHOSEN}) and not pybind and not reference"
        if name == "avx512_vnni":  # whose attention is that of avx512
            files = [x for x in NUMERICAL if "integer" in x or "golden" in x]
    code = f"""
import pytest, sys
from hw3tf import _core
assert _core.instruction_set() == {name!r}
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-k", {cases!r},
    "-c", r"{TESTS.parent / "pyproject.toml"}",
    *[rf"{TESTS}/{{name}}.py" for name in {files}]]))
"""
    assert " passed" in run_python(
        code, modules=processes.OTHERS, timeout=900, HW3TF_ISA=name
    )


def test_many_python_threads_at_once_give_the_same_bits(rng):
    inputs = make_inputs(rng, 2, 200, 200, 2, 2, 16, 16)
    want = run(inputs)
    wrong = []

    def work():
        for _ in range(10):
            if not all(map(np.array_equal, want, run(inputs))):
                wrong.append(1)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
        assert not worker.is_alive()
    assert not wrong


def test_a_forked_child_computes():
    """Apart from this process, which has TensorFlow's threads."""
    code = """
import multiprocessing, warnings
import numpy as np
from hw3tf import _core
x = np.random.default_rng(0).standard_normal((2, 300, 2, 16)).astype("float32")
def work(_=None):
    return _core.attention_forward(x, x, x, scale=1.0)[0]
want = work()
warnings.simplefilter("ignore")
with multiprocessing.get_context("fork").Pool(2) as pool:
    results = pool.map_async(work, range(4)).get(timeout=60)
assert all(np.array_equal(want, r) for r in results)
print("equal")
"""
    assert run_python(code).endswith("equal\n")


def test_versions_agree():
    assert _core.__version__ == hw3tf.__version__


def parameters(function):
    """Names in the order of the signature that pybind11 writes into a docstring."""
    signature = function.__doc__.split(") ->")[0].split("(", 1)[1]
    signature = re.sub(r"\[[^]]*\]", "", signature)
    return [p.split(":")[0].strip() for p in signature.split(",") if p.strip()]


def test_stub_names_what_the_module_has():
    stub = (pathlib.Path(inspect.getfile(hw3tf)).parent / "_core.pyi").read_text()
    functions = {
        node.name: [a.arg for a in (*node.args.args, *node.args.kwonlyargs)]
        for node in ast.parse(stub).body
        if isinstance(node, ast.FunctionDef)
    }
    public = {n for n in dir(_core) if not n.startswith("_")}
    assert set(functions) == public
    assert "__version__: str" in stub
    for name, stated in functions.items():
        own = [p for p in parameters(getattr(_core, name)) if p != "*"]
        assert own == stated, name
