"""The kernels as ops of PyTorch, `torch.ops.hw3tf.*`, with all that PyTorch wants of
one: shapes without values (`torch.compile`, `torch.export`, tensors on `meta`),
gradients and `torch.vmap`. What follows from the description of an operation alone is
here; torch_ops.py has the gradients.

No tensor is copied: `hw3tf._core` reads through strides. Only what is not contiguous
along its last axis, as after a transposition, becomes so first.

Nothing here asks for Keras: plain PyTorch calls the same ops.
"""

import ctypes
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch

from hw3tf import _core
from hw3tf.ops.operations import Operation, TensorDescription

LIBRARY = torch.library.Library("hw3tf", "FRAGMENT")
_PLAIN = {torch.Tensor, torch.nn.Parameter}

Named = Mapping[str, Any]
# From the arguments by name to the results, as empty tensors would be made.
Results = Callable[[Named], Sequence[torch.Tensor]]
# From the arguments, the results and the gradients of the results, all by name, to
# the gradients of arguments by name. `wanted` says which arguments' are asked for.
Gradients = Callable[[dict[str, Any]], Mapping[str, Any]]


class Kernel:
    """An operation as an op of PyTorch.

    Args:
        operation: Its description.
        function: Its name in `hw3tf._core`.
        results: Tensors like its results, for arguments without values.
        gradients: Its gradients; None if it has none.
        kept: The results that `gradients` reads.

    Attributes:
        arguments: Names, in order: operands, attributes that are tensors without axes,
            other attributes.
    """

    def __init__(
        self,
        operation: Operation,
        function: str,
        results: Results,
        gradients: Gradients | None = None,
        kept: Sequence[str] = (),
    ) -> None:
        self.operation, self.results, self.gradients = operation, results, gradients
        self.function = getattr(_core, function)
        read = [x for x in operation.attributes if x["carrier"] != "not_read"]
        scalars = [x["name"] for x in read if x["carrier"] == "input"]
        numbers = [x for x in read if x["carrier"] != "input"]
        operands = [x.name for x in operation.operands]
        self.tensors = (*operands, *scalars)
        # Interned: `hw3tf._core` finds its arguments by the addresses of their names.
        names = (*self.tensors, *(x["name"] for x in numbers))
        self.arguments = tuple(map(sys.intern, names))
        # What makes of an argument what `function` takes; None: it is that.
        self._read: dict[str, Callable[[Any], Any] | None]
        self._read = dict.fromkeys(self.arguments)
        self._read |= dict.fromkeys(scalars, int)
        self._read |= {x.name: _reader(x) for x in operation.operands}
        self._result_names = tuple(operation.results)
        self._kept = [self._result_names.index(name) for name in kept]
        optional = {x.name for x in operation.optional}.union(scalars)
        words = [f"Tensor{'?' * (x in optional)} {x}" for x in self.tensors]
        words += [f"{x['kind']} {x['name']}" for x in numbers]
        returned = ", ".join(["Tensor"] * len(operation.results))
        returned = f"({returned})" if len(operation.results) > 1 else returned
        LIBRARY.define(f"{operation.name}({', '.join(words)}) -> {returned}")
        self.op = getattr(torch.ops.hw3tf, operation.name).default
        self._register()

    def __call__(self, named: Named) -> Any:
        """The results of a call with the arguments `named`; None for one that is not
        given."""
        if torch.compiler.is_compiling():
            return self.op(*map(named.get, self.arguments))
        if torch._C._are_functorch_transforms_active():
            # A gradient that is registered for an op raises there.
            run = self._transformed.apply if self.gradients else self.op
            return run(*map(named.get, self.arguments))
        tensors = [x for k in self.tensors if (x := named.get(k)) is not None]
        if not _are_plain(tensors):
            return self.op(*map(named.get, self.arguments))
        # Without PyTorch's dispatcher: a small call takes 12 us instead of 21, with
        # a gradient 30 instead of 80.
        if self.gradients and needs_gradient(tensors):
            return self._eager.apply(*map(named.get, self.arguments))
        return self._run_named(named)

    # ------------------------------------------------------------------ forward

    def _run_named(self, named: Named) -> Any:
        """The call on the processor, of those of the arguments that are its own."""
        given, known = {}, self._read
        for name, x in named.items():
            if x is not None and name in known:
                read = known[name]
                given[name] = x if read is None else read(x)
        results = self.function(**given)
        if isinstance(results, tuple):
            return tuple(map(_tensor, results))
        return _tensor(results)

    def _run(self, *arguments: Any) -> Any:
        """The op on the processor."""
        return self._run_named(dict(zip(self.arguments, arguments, strict=True)))

    def _without_values(self, *arguments: Any) -> Any:
        """Tensors like the results, where there are shapes only."""
        results = self.results(dict(zip(self.arguments, arguments, strict=True)))
        return tuple(results) if len(results) > 1 else results[0]

    def _vmapped(self, info: Any, in_dims: Any, *arguments: Any) -> Any:
        """One call after the other: masks and biases with axes of size 1 have no batch
        axis that could take in one more."""
        if info.batch_size == 0:
            raise ValueError("torch.vmap over an axis of size 0 is not computed")
        calls = []
        for i in range(info.batch_size):
            one = (
                x if axis is None else x.select(axis, i)
                for x, axis in zip(arguments, in_dims, strict=True)
            )
            results = self.op(*one)
            calls.append(results if isinstance(results, tuple) else (results,))
        stacked = tuple(map(torch.stack, zip(*calls, strict=True)))
        if len(stacked) == 1:
            return stacked[0], 0
        return stacked, (0,) * len(stacked)

    # ----------------------------------------------------------------- gradients

    def _register(self) -> None:
        name = f"hw3tf::{self.operation.name}"
        LIBRARY.impl(self.operation.name, self._run, "CPU")
        torch.library.register_fake(name, self._without_values, lib=LIBRARY)
        torch.library.register_vmap(name, self._vmapped, lib=LIBRARY)
        if not self.gradients:
            return
        torch.library.register_autograd(
            name, self._backward, setup_context=self._keep, lib=LIBRARY
        )
        self._transformed = self._function(self.op)
        self._eager = self._in_one(self._run)

    def _keep(self, ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        count = len(self.tensors)
        results = output if isinstance(output, tuple) else (output,)
        kept = [results[i] for i in self._kept]
        ctx.save_for_backward(*inputs[:count], *kept)
        ctx.numbers = inputs[count:]
        ctx.set_materialize_grads(False)

    def _backward(self, ctx: Any, *of_results: Any) -> Any:
        if self.gradients is None or all(x is None for x in of_results):
            return (None,) * len(self.arguments)
        count, saved = len(self.tensors), ctx.saved_tensors
        named = dict(zip(self.tensors, saved, strict=False))
        named |= zip(self.arguments[count:], ctx.numbers, strict=True)
        for i, x in zip(self._kept, saved[count:], strict=True):
            named[self._result_names[i]] = x
        named |= {
            f"grad_{name}": x
            for name, x in zip(self._result_names, of_results, strict=True)
        }
        named["wanted"] = dict(zip(self.arguments, ctx.needs_input_grad, strict=True))
        grads = self.gradients(named)
        return tuple(map(grads.get, self.arguments))

    def _function(self, run: Callable[..., Any]) -> Any:
        """A `torch.autograd.Function` that composes with `torch.func`."""
        kernel = self

        class Transformed(torch.autograd.Function):
            generate_vmap_rule = True

            @staticmethod
            def forward(*arguments: Any) -> Any:
                return run(*arguments)

            @staticmethod
            def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
                kernel._keep(ctx, inputs, output)

            @staticmethod
            def backward(ctx: Any, *of_results: Any) -> Any:
                return kernel._backward(ctx, *of_results)

        return Transformed

    def _in_one(self, run: Callable[..., Any]) -> Any:
        """The same without `torch.func`: a call takes half the time."""
        kernel = self

        class Eager(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *arguments: Any) -> Any:
                results = run(*arguments)
                kernel._keep(ctx, arguments, results)
                return results

            @staticmethod
            def backward(ctx: Any, *of_results: Any) -> Any:
                return kernel._backward(ctx, *of_results)

        return Eager


def follow_openmp() -> bool:
    """Lets the kernels run on the threads of PyTorch, as many as
    `torch.set_num_threads` says; returns whether they do.

    PyTorch's threads are those of OpenMP, which watch for work for some milliseconds
    after each call. Kernels on other threads would share the processors with them.
    """
    library = pathlib.Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:  # it is loaded, and so is the OpenMP that it calls
        openmp = ctypes.CDLL(str(library))
        functions = openmp.GOMP_parallel, openmp.omp_get_max_threads
    except (OSError, AttributeError):  # another system, or another pool
        return False
    addresses = (ctypes.cast(x, ctypes.c_void_p).value or 0 for x in functions)
    _core.use_openmp(*addresses)
    return True


def needs_gradient(tensors: Sequence[Any]) -> bool:
    """Whether PyTorch records what is computed of the tensors."""
    return torch.is_grad_enabled() and any(
        x is not None and x.requires_grad for x in tensors
    )


def in_forward_mode() -> bool:
    """Whether derivatives may be taken in forward mode (`torch.func.jvp`,
    `torch.autograd.forward_ad`), which the ops do not have."""
    return bool(torch.autograd.forward_ad._current_level >= 0)


def has_values(tensor: torch.Tensor) -> bool:
    """Whether the numbers of a tensor are there to be looked at: it is not traced,
    mapped, or on `meta`."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return _are_plain([tensor])


def _are_plain(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether nothing but autograd looks at calls of ops: no mode, as of
    `torch.export`, no tracer, no subclass."""
    if torch._C._len_torch_dispatch_stack() or torch._C._get_tracing_state():
        return False
    return all(type(x) in _PLAIN and x.is_cpu for x in tensors)


def _reader(operand: TensorDescription) -> Callable[[torch.Tensor], Any]:
    """What makes an array of an operand, whose layout it knows."""
    if operand.strided:
        return _with_strides
    return _as_it_is if operand.broadcasts else _contiguous


def _with_strides(tensor: torch.Tensor) -> Any:
    """The tensor as an array, contiguous along its last axis."""
    if tensor.stride(-1) != 1 and tensor.shape[-1] > 1:
        tensor = tensor.contiguous()
    return _as_it_is(tensor)


def _contiguous(tensor: torch.Tensor) -> Any:
    return _as_it_is(tensor.contiguous())


def _as_it_is(tensor: torch.Tensor) -> Any:
    """The tensor as an array in the same memory."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:  # NumPy has none
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _tensor(array: Any) -> torch.Tensor:
    """A result as a tensor in the same memory; an empty one for None."""
    if array is None:
        return torch.empty(0)
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


follow_openmp()
