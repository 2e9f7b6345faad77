"""What PyTorch makes of functions, on the kernels: compiled, exported, differentiated
again, mapped."""

import functools
import warnings

import keras
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import hw3tf
from hw3tf import ops
from hw3tf.ops.fronts import derivatives, torch_ops

ATTENTION = functools.partial(
    ops.dot_product_attention, is_causal=True, sliding_window=3
)
IN_KERAS = functools.partial(
    hw3tf.reference.dot_product_attention, is_causal=True, sliding_window=3
)
WEIGHTS = [torch.randn(4, 12, generator=torch.Generator().manual_seed(1)) / 2]
WEIGHTS += [torch.randn(3, 12, generator=torch.Generator().manual_seed(2)) / 2]
COMPILE = {"fullgraph": True, "backend": "aot_eager"}


def attend(x, function=ATTENTION):
    return function(x, x * 2, x + 1).square().sum()


def recur(x, function=ops.lstm):
    return function(x[..., 0, :], *WEIGHTS).square().sum()


def recur_in_keras(x):
    tensors = {"inputs": x[..., 0, :], "kernel": WEIGHTS[0]}
    tensors["recurrent_kernel"] = WEIGHTS[1]
    options = {"activation": "tanh", "recurrent_activation": "sigmoid"}
    outputs, _, _ = hw3tf.reference.rnn("lstm", **tensors, **options)
    return outputs.square().sum()


FUNCTIONS = {
    "attention": (attend, functools.partial(attend, function=IN_KERAS)),
    "lstm": (recur, recur_in_keras),
}
each_function = pytest.mark.parametrize("name", FUNCTIONS)


@pytest.fixture
def x():
    return torch.randn(2, 5, 2, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def warned():
    """Of second derivatives, which are said once per process."""
    derivatives.say_once.cache_clear()
    yield functools.partial(pytest.warns, RuntimeWarning, match="second derivative")
    derivatives.say_once.cache_clear()


@pytest.fixture(autouse=True)
def _not_of_torch():
    """PyTorch's own deprecations, when its compiler is imported."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


def close(got, want):
    scale = float(want.detach().abs().max())
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * scale)


def grad_of(function, x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x), x)[0]


@each_function
def test_compiled_as_one_graph(name, x):
    version = tuple(map(int, torch.__version__.split(".")[:2]))
    if name == "lstm" and version < (2, 13):
        pytest.skip("torch.compile does not follow `locals` yet")
    torch.compiler.reset()
    ours, _ = FUNCTIONS[name]
    compiled = torch.compile(ours, **COMPILE)
    assert torch.equal(compiled(x), ours(x))
    assert torch.equal(grad_of(compiled, x), grad_of(ours, x))


def test_compiled_with_sizes_that_vary(x):
    torch.compiler.reset()
    compiled = torch.compile(attend, dynamic=True, **COMPILE)
    for shape in ((2, 5, 2, 4), (3, 7, 2, 4)):
        y = torch.randn(shape)
        assert torch.equal(compiled(y), attend(y))


def test_compiled_integers_overflow_when_the_graph_runs():
    torch.compiler.reset()
    one = torch.ones(1, 1, dtype=torch.int32)
    compiled = torch.compile(lambda x: ops.integer_rnn(x, one, one), **COMPILE)
    x = torch.full((1, 3, 1), 2**29, dtype=torch.int32)
    assert compiled(x).tolist() == [[3 * 2**29]]
    with pytest.raises(OverflowError, match="int32 in batch entry 0 at timestep 1"):
        compiled(x * 2)


class Model(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@each_function
def test_exported_saved_and_loaded(name, x, tmp_path):
    """The graph has the op, whose gradient it keeps."""
    ours, _ = FUNCTIONS[name]
    dims = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("steps", min=2)}
    program = torch.export.export(
        Model(ours), (x,), dynamic_shapes=(dims,), strict=False
    )
    targets = [str(node.target) for node in program.graph.nodes]
    assert f"hw3tf.{name}.default" in targets
    torch.export.save(program, tmp_path / "program.pt2")
    loaded = torch.export.load(tmp_path / "program.pt2").module()
    for y in (x, torch.randn(3, 7, 2, 4)):
        assert torch.equal(loaded(y), ours(y))
        close(grad_of(loaded, y), grad_of(ours, y))


@each_function
def test_second_derivatives_are_those_of_keras(name, x, warned):
    ours, in_keras = FUNCTIONS[name]

    def second(function):
        y = x.clone().requires_grad_()
        first = torch.autograd.grad(function(y), y, create_graph=True)[0]
        return torch.autograd.grad(first.square().sum(), y)[0]

    with warned():
        got = second(ours)
    close(got, second(in_keras))


def test_fourth_derivative(x, warned):
    x, found = x[:1, :3] / 2, []
    with warned():
        for function in FUNCTIONS["attention"]:
            z = x.clone().requires_grad_()
            y = function(z)
            for _ in range(4):
                grad = torch.autograd.grad(y, z, create_graph=True)[0]
                y = (grad * x).sum()
            found.append(grad.detach())
    close(*found)


@each_function
def test_gradients_of_functions(name, x):
    ours, in_keras = FUNCTIONS[name]
    close(torch.func.grad(ours)(x), grad_of(in_keras, x))
    both = torch.stack([x, x * 2])
    got = torch.vmap(torch.func.grad(ours))(both)
    close(got[1], grad_of(in_keras, x * 2))


@each_function
def test_forward_mode_is_that_of_keras(name, x, warned):
    ours, in_keras = FUNCTIONS[name]
    with warned():
        got = torch.func.jvp(ours, (x,), (x,))[1]
        with torch.autograd.forward_ad.dual_level():
            dual = ours(torch.autograd.forward_ad.make_dual(x, x))
            tangent = torch.autograd.forward_ad.unpack_dual(dual).tangent
    wanted = torch.func.jvp(in_keras, (x,), (x,))[1]
    close(got, wanted)
    close(tangent, wanted)


@each_function
def test_functions_of_functions(name, x, warned):
    ours, in_keras = FUNCTIONS[name]
    x = x[:1, :3]
    with warned():
        got = torch.func.hessian(ours)(x)
        twice = torch.func.grad(lambda x: torch.func.grad(ours)(x).square().sum())(x)
    close(got, torch.func.hessian(in_keras)(x))
    close(
        twice,
        torch.func.grad(lambda x: torch.func.grad(in_keras)(x).square().sum())(x),
    )


@each_function
def test_vmap(name, x):
    ours, _ = FUNCTIONS[name]
    both = torch.stack([x, x * 2], dim=1)
    got = torch.vmap(ours, in_dims=1)(both)
    close(got, torch.stack([ours(x), ours(x * 2)]))
    with pytest.raises(ValueError, match="size 0"):
        torch.vmap(ours)(both[:0])


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints(reentrant, x):
    def checkpointed(x):
        return torch.utils.checkpoint.checkpoint(attend, x, use_reentrant=reentrant)

    y = x.requires_grad_()
    checkpointed(y).backward()
    assert torch.equal(y.grad, grad_of(attend, x))


def test_autocast_leaves_keras_functions_alone(x):
    """They have policies of their own; the plain function follows autocast."""
    with torch.autocast("cpu"):
        assert ATTENTION(x, x, x).dtype == torch.float32


@pytest.mark.parametrize("batches", [(2, 2), (1, 2), (2, 1)], ids=str)
def test_opcheck(batches, x):
    x, y = (x[:batch] for batch in batches)
    named = {"query": x, "key": y, "value": y, "scale": 0.5, "is_causal": True}
    named |= {"window_before": -1, "window_after": -1, "soft_cap": 0.0}
    named |= {"dropout_rate": 0.0, "finite_logsumexp": True}
    kernel = torch_ops.ATTENTION_KERNEL
    arguments = tuple(map(named.get, kernel.arguments))
    torch.library.opcheck(kernel.op, arguments)
    wanting = (x.clone().requires_grad_(), *arguments[1:])
    torch.library.opcheck(kernel.op, wanting)


@pytest.mark.parametrize("cell", ["lstm", "gru", "simple_rnn"])
def test_opcheck_of_recurrent_layers(cell, x):
    gates = {"lstm": 4, "gru": 3, "simple_rnn": 1}[cell]
    kernel = torch_ops.RNN_KERNELS[cell]
    given = {x["name"]: x["default"] for x in kernel.operation.attributes}
    given |= {"keep": True, "inputs": x[:, :, 0].clone().requires_grad_()}
    given |= {"kernel": torch.ones(4, 3 * gates)}
    given |= {"recurrent_kernel": torch.ones(3, 3 * gates)}
    # What is kept is not all written, so that two runs differ in it.
    torch.library.opcheck(
        kernel.op,
        tuple(map(given.get, kernel.arguments)),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


@pytest.mark.parametrize("sequences", [False, True], ids=["last", "all"])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_opcheck_of_the_integer_recurrence(dtype, sequences):
    kernel = torch_ops.INTEGER_RNN_KERNEL
    given = {x["name"]: x["default"] for x in kernel.operation.attributes}
    given |= {"inputs": torch.ones(2, 3, 4, dtype=dtype)}
    given |= {"kernel": torch.ones(4, 2, dtype=dtype)}
    given |= {"recurrent_kernel": torch.eye(2, dtype=dtype)}
    given["return_sequences"] = sequences
    torch.library.opcheck(kernel.op, tuple(map(given.get, kernel.arguments)))


@each_function
def test_traced_by_fx(name, x):
    """By a mode that sees every op, and not by `torch.compile`."""
    ours, _ = FUNCTIONS[name]
    traced = make_fx(lambda x: ours(x))(x)
    assert f"hw3tf.{name}.default" in [str(n.target) for n in traced.graph.nodes]
    y = torch.randn(2, 5, 2, 4)
    assert torch.equal(traced(y), ours(y))


def test_traced_by_jit(x):
    """Sizes are tensors there, and so is the scale: Keras computes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Keras's checks, which are traced, too
        traced = torch.jit.trace(Model(lambda x: ATTENTION(x, x, x)), (x,))
    y = torch.randn(2, 5, 2, 4)
    close(traced(y), ATTENTION(y, y, y))


def test_the_backend_is_torch():
    assert keras.backend.backend() == "torch"
