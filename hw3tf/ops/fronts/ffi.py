"""The kernels under JAX: calls of XLA's foreign function interface.

The C++ side, csrc/jax/ffi_handlers.cc, reads what is put together here. A call is part
of the compiled program: in `jax.jit` it costs a fraction of a microsecond more than
the kernel, and no operand is copied.

Gradients are `jax.custom_vjp`s; beyond the first derivative a call is computed in pure
Keras, which JAX differentiates as often as it is asked to. Eagerly, the functions run
inside `jax.jit`: a `jax.custom_vjp` that is not compiled costs 245 us.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.custom_derivatives import SymbolicZero

from hw3tf import _core
from hw3tf.ops.attention.options import AttentionOptions, real_dtype
from hw3tf.ops.fronts import reference
from hw3tf.ops.fronts.derivatives import say_once
from hw3tf.ops.fronts.tensorflow_op import OVERFLOW
from hw3tf.ops.operations import (
    ATTENTION,
    ATTENTION_GRAD,
    INTEGER_RNN,
    RNN,
    RNN_GRAD,
    Operation,
)
from hw3tf.ops.recurrence.options import RecurrenceOptions
from hw3tf.ops.rnn.kept import kept_words
from hw3tf.ops.rnn.options import RnnOptions
from hw3tf.reference.dropout import words_of_seed
from hw3tf.reference.exact import int64

try:
    from jax import ffi as jax_ffi
except ImportError:  # before 0.5
    from jax.extend import ffi as jax_ffi

NO_SEED = np.zeros(2, "int32")  # made once, not in every eager call


@functools.cache
def ffi_error() -> str:
    """Empty if JAX can call the kernels, otherwise why it cannot. Makes them known to
    XLA, once per process."""
    # A handler that is refused before JAX has a backend would leave it without one.
    jax.devices("cpu")
    try:
        for name, handler in _core.ffi_handlers().items():
            jax_ffi.register_ffi_target(_target(name), handler, platform="cpu")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def exported_calls() -> list[str]:
    """The names of the calls in functions that `jax.export` has made, which can be
    loaded from here on.

    Raises:
        RuntimeError: If JAX cannot call the kernels.
    """
    if error := ffi_error():
        raise RuntimeError(f"JAX cannot call the kernels of hw3tf: {error}")
    return [_target(name) for name in _core.ffi_handlers()]


def _target(name: str) -> str:
    return f"hw3tf_{name}"


def runs_on_cpu() -> bool:
    """Whether JAX computes on the processor unless it is told otherwise."""
    return bool(jax.default_backend() == "cpu")


class Call(NamedTuple):
    """What a call is made with beside its arrays; hashable, for `jax.jit`.

    Attributes:
        names: The operands that are given and have a gradient, then the others.
        attributes: Names and values.
    """

    names: tuple[str, ...]
    attributes: tuple[tuple[str, Any], ...]


def _run(
    operation: Operation,
    arrays: Mapping[str, Any],
    attributes: Mapping[str, Any],
    results: Sequence[tuple[Sequence[int], Any]],
    scalars: Sequence[Any] = (),
) -> list[Any]:
    """One call of a kernel.

    Args:
        operation: Its description.
        arrays: The operands that are given, by name.
        attributes: Values by name; more are allowed.
        results: Shapes and dtypes.
        scalars: The inputs of 64 bits without axes, as two words each.
    """
    like = next(iter(arrays.values()))
    names = [operand.name for operand in operation.operands]
    given = sum(1 << at for at, name in enumerate(names) if name in arrays)
    call = jax_ffi.ffi_call(
        _target(operation.name),
        [_result(like, shape, dtype) for shape, dtype in results],
        vmap_method="expand_dims",
    )
    read = {
        attribute["name"]: _attribute(attributes[attribute["name"]])
        for attribute in operation.attributes
        if attribute["carrier"] not in ("input", "not_read")
    }
    operands = [arrays[name] for name in names if name in arrays]
    return list(call(*scalars, *operands, given=np.int64(given), **read))


def _result(like: Any, shape: Sequence[int], dtype: Any) -> Any:
    """The type of a result. Within `shard_map` types say over which axes of the mesh an
    array varies: results vary as the first operand does."""
    if not hasattr(jax, "typeof"):
        return jax.ShapeDtypeStruct(tuple(shape), dtype)
    kind = jax.typeof(like)
    return kind.update(shape=tuple(shape), dtype=np.dtype(dtype), weak_type=False)


def _attribute(value: Any) -> Any:
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, int):
        return np.int64(value)
    return np.float64(value) if isinstance(value, float) else value


def _zip(names: Sequence[str], arrays: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(names, arrays, strict=True))


def _of_first_order(
    gradient: Callable[..., Any],
    in_keras: Callable[[Call, Sequence[Any], Sequence[Any]], Sequence[Any]],
    what: str,
) -> Callable[..., Any]:
    """`gradient(call, inputs, constants, read, upstream)` with a gradient of its own:
    that of the gradient of `in_keras(call, inputs, constants)`."""
    run = jax.custom_vjp(gradient, nondiff_argnums=(0,))

    def forward(
        call: Call, inputs: Any, constants: Any, read: Any, upstream: Any
    ) -> Any:
        return gradient(call, inputs, constants, read, upstream), (
            inputs,
            constants,
            upstream,
        )

    def backward(call: Call, residuals: Any, of_gradients: Any) -> Any:
        say_once(what)
        inputs, constants, upstream = residuals

        def first_order(inputs: Any, upstream: Any) -> Any:
            _, pull = jax.vjp(lambda *x: in_keras(call, x, constants), *inputs)
            return pull(upstream)

        _, pull = jax.vjp(first_order, inputs, upstream)
        more, of_upstream = pull(tuple(of_gradients))
        return more, None, None, of_upstream

    run.defvjp(forward, backward)
    return run


# -------------------------------------------------------------------- attention


def attention(
    query: Any,
    key: Any,
    value: Any,
    options: AttentionOptions,
    window: tuple[int, int] | None = None,
) -> Any:
    """Output and logsumexp.

    Args:
        query, key, value, options: As in every front.
        window: How many keys before and after its own position a query sees, in place
            of the window of the options.
    """
    given = {"query": query, "key": key, "value": value, **options.tensors}
    inputs = {k: x for k, x in given.items() if k in ATTENTION.with_gradient}
    others = {k: x for k, x in given.items() if k not in inputs}
    seed = options.dropout_seed
    words = NO_SEED if seed is None else words_of_seed(seed)
    attributes = {**options.attributes, "finite_logsumexp": True}
    if window is not None:
        attributes["window_before"], attributes["window_after"] = window
    call = Call((*inputs, *others), tuple(attributes.items()))
    constants = (words, *others.values())
    output, _, logsumexp = _attention(call, tuple(inputs.values()), constants)
    return output, logsumexp


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention_with_gradient(call: Call, inputs: Any, constants: Any) -> Any:
    """Output, statistics and logsumexp. The statistics are there for the gradient."""
    seed, *constants = constants
    query, value = inputs[0], inputs[2]
    _, length, heads, _ = query.shape
    # Equal or 1, and then one entry serves all.
    batch = next((x.shape[0] for x in inputs[:3] if x.shape[0] != 1), 1)
    real = real_dtype(query.dtype)
    results = _run(
        ATTENTION,
        _zip(call.names, [*inputs, *constants]),
        dict(call.attributes),
        [
            ((batch, length, heads, value.shape[-1]), query.dtype),
            ((batch, heads, length, 2), real),
            ((batch, heads, length), real),
        ],
        [seed],
    )
    return tuple(results)


def _attention_gradient(
    call: Call, inputs: Any, constants: Any, read: Any, upstream: Any
) -> Any:
    seed, *constants = constants
    names = [*call.names, *(x.name for x in ATTENTION_GRAD.operands[-4:])]
    no_bias = [((0,), real_dtype(inputs[0].dtype))] * (4 - len(inputs))
    grads = _run(
        ATTENTION_GRAD,
        _zip(names, [*inputs, *constants, *read, *upstream]),
        {**dict(call.attributes), "skip_grad_bias": False},
        [(x.shape, x.dtype) for x in inputs] + no_bias,
        [seed],
    )
    return tuple(grads[: len(inputs)])


def _attention_in_keras(call: Call, inputs: Any, constants: Any) -> Any:
    seed, *constants = constants
    tensors = _zip(call.names, [*inputs, *constants])
    query, key, value = (tensors.pop(name) for name in ("query", "key", "value"))
    attributes = dict(call.attributes)
    before, after = attributes["window_before"], attributes["window_after"]
    if before != after:  # options have symmetric windows only
        attributes["window_before"] = -1
        visible = _window_mask(query.shape[1], key.shape[1], before, after)
        mask = tensors.get("mask")
        tensors["mask"] = visible if mask is None else mask & visible
    options = AttentionOptions.of_attributes(
        attributes,
        **tensors,
        dropout_seed=seed if attributes["dropout_rate"] else None,
    )
    return reference.attention_in_real(query, key, value, options)


def _window_mask(queries: int, keys: int, before: int, after: int) -> Any:
    distance = np.arange(keys) - np.arange(queries)[:, None]
    return jax.numpy.asarray((-before <= distance) & (distance <= after))[None, None]


_attention_of_first_order = _of_first_order(
    _attention_gradient, _attention_in_keras, "attention"
)


def _attention_and_residuals(call: Call, inputs: Any, constants: Any) -> Any:
    # By the function itself, not the kernel: this is differentiated once more.
    output, statistics, logsumexp = _attention(call, inputs, constants)
    results = output, statistics, logsumexp
    return results, (inputs, constants, (output, statistics))


def _attention_backward(call: Call, residuals: Any, upstream: Any) -> Any:
    grad_output, _, grad_logsumexp = upstream
    grads = _attention_of_first_order(call, *residuals, (grad_output, grad_logsumexp))
    return grads, None


_attention_with_gradient.defvjp(_attention_and_residuals, _attention_backward)
_attention = jax.jit(_attention_with_gradient, static_argnums=(0,))


# ------------------------------------------------------------------- recurrences


def integer_rnn(
    tensors: Mapping[str, Any], options: RecurrenceOptions, state_dtype: str
) -> Any:
    """The states. An overflow raises OverflowError, in a compiled function JAX's own
    error with the message of the kernel."""
    if state_dtype == "int64":
        int64(0)  # or an error: JAX would drop half of the bits
    given = {name: jax.numpy.asarray(x) for name, x in tensors.items()}
    attributes = {
        **options.kernel_attributes,
        "return_sequences": options.return_sequences,
    }
    call = Call(tuple(given), (*attributes.items(), ("dtype", state_dtype)))
    compiled = any(isinstance(x, jax.core.Tracer) for x in given.values())
    if compiled or options.overflow != "raise":
        return _integer_rnn(call, *given.values())
    try:
        return _integer_rnn(call, *given.values()).block_until_ready()
    except Exception as error:
        message = str(error)
        begin = message.find(OVERFLOW)
        if begin < 0:
            raise
        raise OverflowError(message[begin:]) from None


@functools.partial(jax.jit, static_argnums=(0,))
def _integer_rnn(call: Call, *arrays: Any) -> Any:
    named, attributes = _zip(call.names, arrays), dict(call.attributes)
    batch, timesteps, _ = named["inputs"].shape
    units = named["recurrent_kernel"].shape[0]
    rows = (batch, timesteps) if attributes["return_sequences"] else (batch,)
    return _run(
        INTEGER_RNN, named, attributes, [((*rows, units), attributes["dtype"])]
    )[0]


def rnn(
    cell: str, tensors: Mapping[str, Any], options: RnnOptions
) -> tuple[Any, Any, Any]:
    """Outputs, the last `h`, and the last `c` or None."""
    operation = RNN[cell]
    names = [x.name for x in operation.operands if x.name in tensors]
    inputs = [name for name in names if name in operation.with_gradient]
    constants = names[len(inputs) :]
    attributes = {**options.attributes(cell), "cell": cell}
    call = Call(tuple(names), tuple(attributes.items()))
    outputs, last_h, *last_c, _ = _rnn(
        call,
        False,
        tuple(tensors[name] for name in inputs),
        tuple(tensors[name] for name in constants),
    )
    return outputs, last_h, last_c[0] if last_c else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _rnn_with_gradient(call: Call, keep: bool, inputs: Any, constants: Any) -> Any:
    """Outputs, last states, and what is kept for the gradient, if `keep`."""
    attributes = dict(call.attributes)
    cell = attributes["cell"]
    named = _zip(call.names, [*inputs, *constants])
    batch, timesteps, _ = inputs[0].shape
    units, dtype = named["recurrent_kernel"].shape[0], inputs[0].dtype
    words = kept_words(cell, dtype.name, units, _options_of(call)) if keep else 0
    states = len(RNN[cell].results) - 2
    results = [
        ((batch, timesteps if attributes["return_sequences"] else 1, units), dtype),
        *[((batch, units), dtype)] * states,
        # Words of 64 bits, which JAX has only if it is told to.
        ((batch, timesteps, 2 * words), "int32"),
    ]
    return tuple(_run(RNN[cell], named, {**attributes, "keep": keep}, results))


def _options_of(call: Call) -> RnnOptions:
    known = RnnOptions.__dataclass_fields__
    return RnnOptions(**{k: x for k, x in call.attributes if k in known})


def _rnn_gradient(
    call: Call, inputs: Any, constants: Any, read: Any, upstream: Any
) -> Any:
    attributes = dict(call.attributes)
    cell = attributes["cell"]
    of_results = ["grad_" + name for name in RNN[cell].results if name != "kept"]
    named = _zip(
        [*call.names, "outputs", "kept", *of_results],
        [*inputs, *constants, *read, *upstream],
    )
    skip = attributes.setdefault("skip_grad_inputs", False)
    shapes = {name: x.shape for name, x in named.items()}
    if skip:
        del shapes["inputs"]
    dtype = inputs[0].dtype
    results = [(shapes.get(name, (0,)), dtype) for name in RNN[cell].with_gradient]
    grads = _run(RNN_GRAD[cell], named, attributes, results)
    if skip:
        grads[0] = jax.numpy.zeros_like(inputs[0])
    given = zip(RNN[cell].with_gradient, grads, strict=True)
    return tuple(grad for name, grad in given if name in named)


def _rnn_in_keras(call: Call, inputs: Any, constants: Any) -> Any:
    tensors = _zip(call.names, [*inputs, *constants])
    cell = dict(call.attributes)["cell"]
    results = reference.rnn(cell, tensors, _options_of(call))
    return tuple(x for x in results if x is not None)


_rnn_of_first_order = _of_first_order(_rnn_gradient, _rnn_in_keras, "a recurrent layer")


def _rnn_and_residuals(call: Call, keep: bool, inputs: Any, constants: Any) -> Any:
    # What is not differentiated needs no gradient: the sequences of a first layer, a
    # third of the backward pass where they are wide.
    wanted = inputs[0].perturbed
    inputs, constants = jax.tree.map(
        lambda x: x.value, (inputs, constants), is_leaf=lambda x: hasattr(x, "value")
    )
    *results, kept = _rnn(call, True, inputs, constants)
    unkept = kept if keep else kept[..., :0]
    residuals = inputs, constants, (results[0], kept)
    # Residuals are arrays: a structure without any says yes or no.
    return (*results, unkept), (residuals, [] if wanted else ())


def _rnn_backward(call: Call, keep: bool, residuals: Any, upstream: Any) -> Any:
    residuals, wanted = residuals
    if wanted == ():
        call = call._replace(attributes=(*call.attributes, ("skip_grad_inputs", True)))
    upstream = tuple(
        jax.numpy.zeros(x.shape, x.dtype) if isinstance(x, SymbolicZero) else x
        for x in upstream[:-1]
    )
    return _rnn_of_first_order(call, *residuals, upstream), None


_rnn_with_gradient.defvjp(_rnn_and_residuals, _rnn_backward, symbolic_zeros=True)
_rnn = jax.jit(_rnn_with_gradient, static_argnums=(0, 1))
