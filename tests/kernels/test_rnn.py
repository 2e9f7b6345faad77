"""The recurrent layers of `hw3tf._core`, and their ops, against each other and against
differences."""

import ml_dtypes
import numpy as np
import processes
import pytest
import tensorflow as tf
from checks import run_python
from rnn_checks import CELLS, make_arrays

from hw3tf import _core, ops
from hw3tf.ops.operations import RNN, RNN_GRAD
from hw3tf.ops.rnn.kept import kept_words
from hw3tf.ops.rnn.options import RnnOptions

DTYPES = {
    name: np.dtype(getattr(ml_dtypes, name, name))
    for name in ("float32", "float64", "float16", "bfloat16")
}
EVERYTHING = {
    "mask": "holes",
    "lengths": True,
    "input_dropout": "each",
    "recurrent_dropout": "one",
}
OPTIONS = {
    "plain": ({"biases": False, "states": False}, {}),
    "everything": (
        EVERYTHING,
        {"reverse": True, "return_sequences": True, "zero_output_for_mask": True},
    ),
    "other functions": (
        {"mask": "left"},
        {"activation": "hard_sigmoid", "return_sequences": True},
    ),
}


def split(cell, arrays, options, dtype):
    """The operands of the forward pass, and the gradients of its results."""
    kind = DTYPES[dtype]
    arrays = {
        k: x.astype(kind) if x.dtype.kind == "f" else x for k, x in arrays.items()
    }
    if not options.get("return_sequences"):
        arrays["grad_outputs"] = arrays["grad_outputs"][:, :1].copy()
    known = {x.name for x in RNN[cell].operands}
    forward = {k: x for k, x in arrays.items() if k in known}
    return forward, {k: x for k, x in arrays.items() if k not in known}


def core(cell, forward, upstream, options):
    """Results and gradients, by name."""
    *results, kept = getattr(_core, f"{cell}_forward")(**forward, **options, keep=True)
    grads = getattr(_core, f"{cell}_backward")(
        **forward, outputs=results[0], kept=kept, **upstream, **options
    )
    return named(cell, results, grads)


def named(cell, results, grads):
    found = dict(zip(RNN[cell].results, results, strict=False))
    found |= dict(zip(RNN_GRAD[cell].results, grads, strict=True))
    return {k: np.asarray(x) for k, x in found.items() if x is not None}


def op(cell, forward, upstream, options, graph=False):
    """The same by the ops, in a graph that knows no shape."""
    library, dtype = ops.load_op_library(), forward["inputs"].dtype
    types = {"T": dtype, "bool": "bool", "int32": "int32", "int64": "int64"}

    def inputs(operands, given):
        none = {x.name: np.zeros(0, types[x.type]) for x in operands}
        return [tf.convert_to_tensor(given.get(n, x)) for n, x in none.items()]

    def run(function, tensors, **attributes):
        if graph:
            specs = [tf.TensorSpec(None, x.dtype) for x in tensors]
            function = tf.function(
                lambda *x, run=function: run(*x, **attributes), input_signature=specs
            )
            return function(*tensors)
        return function(*tensors, **attributes)

    *results, kept = run(
        getattr(library, f"hw3tf_{cell}"),
        inputs(RNN[cell].operands, forward),
        **options,
        keep=True,
    )
    given = {**forward, **upstream, "outputs": results[0], "kept": kept}
    grads = run(
        getattr(library, f"hw3tf_{cell}_grad"),
        inputs(RNN_GRAD[cell].operands, given),
        **options,
    )
    return named(cell, results, [None if x.shape == (0,) else x for x in grads])


def assert_same(got, want, what=""):
    assert got.keys() == want.keys()
    for name, x in want.items():
        assert got[name].dtype == x.dtype, name
        assert got[name].tobytes() == x.tobytes(), f"{name} {what}"


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("case", OPTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_ops_give_the_bits_of_the_module(cell, case, dtype, rng):
    of_arrays, options = OPTIONS[case]
    arrays = make_arrays(rng, cell, 5, 11, 6, 19, **of_arrays)
    forward, upstream = split(cell, arrays, options, dtype)
    want = core(cell, forward, upstream, options)
    assert_same(op(cell, forward, upstream, options), want, "eager")
    assert_same(op(cell, forward, upstream, options, graph=True), want, "graph")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_are_read_through_strides(cell, dtype, rng):
    """Time-major, every second step, backwards, one step for all of them."""
    options = {"return_sequences": True}
    arrays = make_arrays(rng, cell, 4, 9, 7, 5, mask="holes")
    forward, upstream = split(cell, arrays, options, dtype)
    x = forward["inputs"]
    spread = np.zeros((8, 27, 9), x.dtype)
    spread[1::2, ::3, 1:8] = x
    views = {
        "time-major": np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1),
        "spread": spread[1::2, ::3, 1:8],
        "backwards": np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
    }
    want = core(cell, forward, upstream, options)
    for name, view in views.items():
        got = core(cell, {**forward, "inputs": view}, upstream, options)
        assert_same(got, want, name)
    repeated = np.broadcast_to(x[:1, :1], x.shape)
    got = core(cell, {**forward, "inputs": repeated}, upstream, options)
    copied = {**forward, "inputs": repeated.copy()}
    assert_same(got, core(cell, copied, upstream, options), "repeated")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", [(1, 200, 8, 64), (33, 21, 40, 48), (3, 50, 130, 130)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bits_do_not_depend_on_threads(cell, size, dtype, rng):
    """Few rows share the units, many are shared out."""
    options = {"return_sequences": True}
    arrays = make_arrays(rng, cell, *size, mask="holes")
    forward, upstream = split(cell, arrays, options, dtype)
    before, found = _core.num_threads(), []
    try:
        for threads in (1, 2, 5):
            _core.set_num_threads(threads)
            found.append(core(cell, forward, upstream, options))
    finally:
        _core.set_num_threads(0)
    assert _core.num_threads() == before
    for got in found[1:]:
        assert_same(got, found[0])


# Further ones have the kernels of avx512.
OF_THEIR_OWN = ("base", "avx2", "avx512")


@pytest.mark.parametrize(
    "isa", [x for x in _core.supported_instruction_sets() if x in OF_THEIR_OWN]
)
def test_every_instruction_set(isa):
    """float32 differs by rounding, float64 and exact sums hardly or not at all."""
    code = """
import sys
import numpy as np
from test_rnn import core, split, OPTIONS
from rnn_checks import CELLS, compute, make_arrays, assert_as_exact, judge
from hw3tf import _core
print(_core.instruction_set())
for cell in CELLS:
    of_arrays, options = OPTIONS["everything"]
    arrays = make_arrays(np.random.default_rng(0), cell, 5, 21, 9, 37, **of_arrays)
    arrays = {k: np.float32(x).astype(x.dtype) for k, x in arrays.items()}
    truth = compute(judge, cell, arrays, options, "float64")
    plain = compute(judge, cell, arrays, options, "float32")
    got = core(cell, *split(cell, arrays, options, "float32"), options)
    got = {
        k.replace("grad_", "gradient of "): x.astype("float64") for k, x in got.items()
    }
    assert_as_exact(got, plain, truth, what=cell)
"""
    folder = __file__.rpartition("/")[0]
    code = f"import sys; sys.path[:0] = [{folder!r}, {folder + '/../helpers'!r}]" + code
    # Without hw3tf, which chooses the instruction set when it is imported: the server
    # of all other tests will do.
    printed = run_python(code, modules=processes.OTHERS, HW3TF_ISA=isa)
    assert printed.split()[0] == isa


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
@pytest.mark.parametrize("sequences", [True, False], ids=["all", "last"])
def test_gradients_are_differences_of_results(cell, after, sequences, rng):
    """In float64, of every operand, with every option that has a part in them."""
    if not after and cell != "gru":
        return
    options = {"reverse": True, "return_sequences": sequences}
    if cell == "gru":
        options["reset_after"] = after
    arrays = make_arrays(
        rng, cell, 2, 4, 3, 3, reset_after=after, **EVERYTHING | {"lengths": False}
    )
    forward, upstream = split(cell, arrays, options, "float64")
    weights = [upstream[f"grad_{name}"] for name in list(RNN[cell].results)[:-1]]

    def loss(tensors):
        *results, _ = getattr(_core, f"{cell}_forward")(**tensors, **options)
        return sum(float((x * w).sum()) for x, w in zip(results, weights, strict=True))

    found = core(cell, forward, upstream, options)
    step = 1e-5
    for name in RNN[cell].with_gradient:
        if name not in forward:
            continue
        direction = rng.standard_normal(forward[name].shape)
        ahead, behind = (
            loss({**forward, name: forward[name] + sign * step * direction})
            for sign in (1, -1)
        )
        got = float((found[f"grad_{name}"] * direction).sum())
        # The error of the difference is of the order of the square of the step, and of
        # the rounding of the loss over the step.
        np.testing.assert_allclose(
            got, (ahead - behind) / (2 * step), atol=1e-8, rtol=0
        )


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_that_are_not_given_are_zero(cell, rng):
    options = {"return_sequences": True}
    arrays = make_arrays(rng, cell, mask="left")
    forward, upstream = split(cell, arrays, options, "float32")
    for name in upstream:
        without = {k: x for k, x in upstream.items() if k != name}
        zeros = {**upstream, name: np.zeros_like(upstream[name])}
        assert_same(
            core(cell, forward, without, options), core(cell, forward, zeros, options)
        )
    nothing = core(cell, forward, {}, options)
    for name, x in nothing.items():
        assert not (name.startswith("grad_") and x.any()), name


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_of_the_inputs_can_be_left_out(cell, dtype, rng):
    options = {"return_sequences": True}
    arrays = make_arrays(rng, cell, 5, 11, 6, 19, mask="holes")
    forward, upstream = split(cell, arrays, options, dtype)
    whole = core(cell, forward, upstream, options)
    *results, kept = getattr(_core, f"{cell}_forward")(**forward, **options, keep=True)
    grads = getattr(_core, f"{cell}_backward")(
        **forward,
        outputs=results[0],
        kept=kept,
        **upstream,
        **options,
        skip_grad_inputs=True,
    )
    assert grads[0] is None
    del whole["grad_inputs"]
    assert_same(named(cell, results, grads), whole)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("units", [1, 15, 16, 17, 64])
def test_as_much_is_kept_of_each_timestep(cell, dtype, sequences, units):
    """XLA must know how much, whatever the sizes that it learns later."""
    options = RnnOptions(return_sequences=sequences)
    want = kept_words(cell, dtype, units, options)
    for batch, timesteps, features in ((1, 1, 1), (3, 1, 2), (1, 7, 1), (5, 9, 3)):
        shape = (batch, timesteps, features)
        arrays = make_arrays(
            np.random.default_rng(0), cell, *shape, units, biases=False, states=False
        )
        forward, _ = split(cell, arrays, options.attributes(cell), dtype)
        run = getattr(_core, f"{cell}_forward")
        *_, kept = run(**forward, **options.attributes(cell), keep=True)
        assert kept.shape == (batch, timesteps, want)
        *_, kept = run(**forward, **options.attributes(cell))
        assert kept.shape == (batch, timesteps, 0)
