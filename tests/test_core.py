"""The module `hw3tf._core`: NumPy in, NumPy out; instruction sets; threads."""

import inspect
import pathlib
import threading

import numpy as np
import pytest
from checks import make_inputs, run_python

import hw3tf
from hw3tf import _core

TESTS = pathlib.Path(__file__).parent


def run(inputs, query_mask=None, key_mask=None, **options):
    query, key, value, grad = inputs
    options.setdefault("scale", 0.3)
    output, statistics = _core.attention_forward(
        query, key, value, query_mask, key_mask, **options
    )
    grads = _core.attention_backward(
        query, key, value, query_mask, key_mask, output, statistics, grad, **options
    )
    return [output, statistics, *grads]


@pytest.fixture
def threads():
    yield _core.set_num_threads
    _core.set_num_threads(0)


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("masked", [False, True], ids=["all-keys", "holes"])
@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 2)])
def test_threads_do_not_change_a_bit(heads, kv_heads, masked, is_causal, threads, rng):
    inputs = make_inputs(rng, 2, 300, 400, heads, kv_heads, 16, 24)
    key_mask = rng.random((2, 400)) < 0.5 if masked else None
    results = []
    for number in (1, 2, 5):
        threads(number)
        results.append(run(inputs, key_mask=key_mask, is_causal=is_causal))
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


def test_wrong_dtype_is_refused_not_converted(rng):
    query, key, value, grad = make_inputs(rng, 1, 4, 4, 1, 1, 4, 4)
    with pytest.raises(TypeError):
        run((query.astype("float64"), key, value, grad))
    with pytest.raises(TypeError):
        run((query, key, value, grad), key_mask=np.ones((1, 4), "int8"))


def test_last_axis_that_is_not_contiguous_is_refused(rng):
    query, key, value, grad = make_inputs(rng, 1, 4, 4, 1, 1, 8, 8)
    with pytest.raises(
        ValueError, match="`key` must be contiguous along its last axis"
    ):
        run((query[..., :4], key[..., ::2], value, grad))


def test_wrong_shapes_are_refused(rng):
    query, key, value, grad = make_inputs(rng, 1, 4, 5, 1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"`key_mask` must have shape \(1, 5\)"):
        run((query, key, value, grad), key_mask=np.ones((1, 4), bool))
    with pytest.raises(ValueError, match="`grad_output` must have shape"):
        run((query, key, value, grad[:, :3]))


def test_statistics_give_logsumexp(rng):
    inputs = make_inputs(rng, 2, 30, 200, 2, 2, 8, 8)
    for scale in (0.4, -0.4):
        maximum, total = np.moveaxis(
            run(inputs, scale=scale)[1].astype("float64"), -1, 0
        )
        scores = scale * np.einsum("btnh,bsnh->bnts", *inputs[:2], dtype="float64")
        top = scores.max(-1)
        want = top + np.log(np.exp(scores - top[..., None]).sum(-1))
        np.testing.assert_allclose(
            abs(scale) * maximum + np.log(total), want, atol=2e-6
        )


@pytest.mark.parametrize("name", _core.supported_instruction_sets())
def test_every_instruction_set_passes_the_tests_of_the_op(name):
    """The whole file of numerical tests once more, in a process that HW3TF_ISA
    sends to another instruction set."""
    if name == _core.instruction_set():
        return  # that is the one under which this run tests everything
    code = f"""
import pytest, sys
from hw3tf import _core
assert _core.instruction_set() == {name!r}
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider",
    "-c", r"{TESTS.parent / "pyproject.toml"}", "-k", "not pybind",
    r"{TESTS / "test_ops_attention.py"}", r"{TESTS / "test_ops_attention_masks.py"}"]))
"""
    assert " passed" in run_python(code, HW3TF_ISA=name)


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


def test_stub_names_what_the_module_has():
    stub = (pathlib.Path(inspect.getfile(hw3tf)).parent / "_core.pyi").read_text()
    names = {
        line.split("(")[0].removeprefix("def ").split(":")[0]
        for line in stub.splitlines()
        if line.startswith(("def ", "__version__"))
    }
    public = {n for n in dir(_core) if not n.startswith("_")} | {"__version__"}
    assert names == public
    assert all(_core.__dict__[n].__doc__ for n in public - {"__version__"})
