"""The kernels under PyTorch, and their gradients; torch_kernels.py makes the ops.

Beyond the first derivative, and in forward mode, a call is computed in pure Keras,
which PyTorch differentiates as often as it is asked to. Where Keras has another
backend, which plain PyTorch does not mind, that is an error.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import torch

from hw3tf.ops.attention.options import AttentionOptions
from hw3tf.ops.exporting import export_format, traced_by_torch
from hw3tf.ops.fronts import reference
from hw3tf.ops.fronts.derivatives import say_once
from hw3tf.ops.fronts.torch_kernels import (
    Kernel,
    Named,
    in_forward_mode,
    needs_gradient,
)
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

vjp: Any = torch.func.vjp  # its annotation tells of three results, for `has_aux`


def exported_to() -> str | None:
    """The runtime for which the call is traced, if that knows no op of hw3tf."""
    return export_format() if traced_by_torch() else None


def other_device() -> str:
    """Where Keras computes, if it is not on the processor; empty if it is.

    On `meta` the ops compute shapes, which is what Keras wants when it calls a layer on
    symbolic tensors; its own `keras.ops.max`, in the reference, fails there.
    """
    device = torch.device(keras.src.backend.torch.core.get_device()).type
    return "" if device in ("cpu", "meta") else device


def _like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def _gradients_like(operation: Operation) -> Callable[[Named], Sequence[torch.Tensor]]:
    """The results of a gradient: like the operands, empty for one that is not given or
    whose gradient is not wanted."""

    def results(named: Named) -> list[torch.Tensor]:
        names = operation.with_gradient
        first = named[names[0]]
        given = [
            None if named.get(f"skip_grad_{name}") else named[name] for name in names
        ]
        return [first.new_empty(0) if x is None else _like(x) for x in given]

    return results


def _in_first_order(
    operation: Operation,
    results: Sequence[str],
    in_keras: Callable[[dict[str, Any]], Sequence[Any]],
    what: str,
) -> Callable[[dict[str, Any]], Mapping[str, Any]]:
    """The gradients of the gradient of an operation: those of the gradient of
    `in_keras`, which returns `results` for named arguments."""

    def gradients(named: dict[str, Any]) -> Mapping[str, Any]:
        _require_keras(f"a derivative of the gradient of {what}")
        say_once(what)
        inputs = {k: named[k] for k in operation.with_gradient if named[k] is not None}
        keys = [f"grad_{name}" for name in results]
        upstream = {k: named[k] for k in keys if named[k] is not None}

        def forward(*tensors: Any) -> Any:
            computed = in_keras(named | dict(zip(inputs, tensors, strict=True)))
            pairs = zip(keys, computed, strict=True)
            return tuple(x for key, x in pairs if key in upstream)

        def first_order(*both: Any) -> Any:
            _, pull = vjp(forward, *both[: len(inputs)])
            return pull(both[len(inputs) :])

        # The results of the gradient are called grad_NAME, and theirs once more so.
        given = {name: named[f"grad_grad_{name}"] for name in inputs}
        of_gradients = tuple(
            torch.zeros_like(inputs[name]) if x is None else x
            for name, x in given.items()
        )
        _, pull = vjp(first_order, *inputs.values(), *upstream.values())
        return dict(zip([*inputs, *upstream], pull(of_gradients), strict=True))

    return gradients


def _require_keras(what: str) -> None:
    if keras.backend.backend() != "torch":
        raise NotImplementedError(
            f"{what} is computed in pure Keras, whose backend must be torch: "
            "KERAS_BACKEND=torch in the environment. "
            f"Received: keras.backend.backend()={keras.backend.backend()!r}"
        )


# -------------------------------------------------------------------- attention


def attention(query: Any, key: Any, value: Any, options: AttentionOptions) -> Any:
    """Output and logsumexp."""
    return attention_of(
        {
            "query": query,
            "key": key,
            "value": value,
            **options.tensors,
            **options.attributes,
            "dropout_seed": options.dropout_seed,
            "finite_logsumexp": True,
        }
    )


def attention_of(named: Named) -> Any:
    """Output and logsumexp of a call with the arguments `named`."""
    if in_forward_mode():
        _require_keras("forward mode of attention")
        say_once("attention")
        return _attention_in_keras(named)
    output, _, logsumexp = ATTENTION_KERNEL(named)
    return output, logsumexp


def _attention_results(named: Named) -> list[torch.Tensor]:
    query, key, value = (named[name] for name in ("query", "key", "value"))
    batch = query.shape[0]
    for x in (key, value):
        batch = x.shape[0] if batch == 1 else batch
    _, length, heads, _ = query.shape
    real = torch.float64 if query.dtype == torch.float64 else torch.float32
    return [
        query.new_empty((batch, length, heads, value.shape[-1])),
        query.new_empty((batch, heads, length, 2), dtype=real),
        query.new_empty((batch, heads, length), dtype=real),
    ]


def _attention_gradients(named: dict[str, Any]) -> dict[str, Any]:
    if named["grad_output"] is None:
        named["grad_output"] = torch.zeros_like(named["output"])
    # Nobody wants the gradient of a constant bias, which may be of the scores' size.
    skip = not named["wanted"]["bias"]
    grads = ATTENTION_GRAD_KERNEL({**named, "skip_grad_bias": skip})
    given = dict(zip(ATTENTION.with_gradient, grads, strict=True))
    if skip:
        del given["bias"]
    return {name: grad for name, grad in given.items() if named[name] is not None}


def _attention_in_keras(named: Named) -> tuple[Any, Any]:
    tensors = {x.name: named.get(x.name) for x in ATTENTION.optional}
    options = AttentionOptions.of_attributes(
        named, **tensors, dropout_seed=named.get("dropout_seed")
    )
    query, key, value = (named[name] for name in ("query", "key", "value"))
    return reference.attention_in_real(query, key, value, options)


ATTENTION_KERNEL = Kernel(
    ATTENTION,
    "attention_forward",
    _attention_results,
    _attention_gradients,
    kept=("output", "statistics"),
)
ATTENTION_GRAD_KERNEL = Kernel(
    ATTENTION_GRAD,
    "attention_backward",
    _gradients_like(ATTENTION),
    _in_first_order(
        ATTENTION, ("output", "logsumexp"), _attention_in_keras, "attention"
    ),
)


# ------------------------------------------------------------------- recurrences


def integer_rnn(
    tensors: Mapping[str, Any], options: RecurrenceOptions, state_dtype: str
) -> Any:
    """The states. An overflow raises OverflowError."""
    named = {name: keras.ops.convert_to_tensor(x) for name, x in tensors.items()}
    attributes = options.kernel_attributes
    return INTEGER_RNN_KERNEL(
        {**named, **attributes, "return_sequences": options.return_sequences}
    )


def _states(named: Named) -> list[torch.Tensor]:
    inputs, recurrent = named["inputs"], named["recurrent_kernel"]
    batch, timesteps, _ = inputs.shape
    rows = (batch, timesteps) if named["return_sequences"] else (batch,)
    wide = recurrent.dtype == torch.int64
    dtype = torch.int64 if wide else torch.int32
    return [inputs.new_empty((*rows, recurrent.shape[0]), dtype=dtype)]


INTEGER_RNN_KERNEL = Kernel(INTEGER_RNN, "integer_rnn", _states)


def rnn(
    cell: str, tensors: Mapping[str, Any], options: RnnOptions
) -> tuple[Any, Any, Any]:
    """Outputs, the last `h`, and the last `c` or None."""
    names = RNN[cell].with_gradient
    keep = torch._C._are_functorch_transforms_active() or needs_gradient(
        [tensors.get(name) for name in names]
    )
    named = {**tensors, **options.attributes(cell), "keep": keep}
    if in_forward_mode():
        _require_keras("forward mode of a recurrent layer")
        say_once("a recurrent layer")
        return reference.rnn(cell, tensors, options)
    outputs, last_h, *last_c, _ = RNN_KERNELS[cell](named)
    return outputs, last_h, last_c[0] if last_c else None


def _options_of(named: Named) -> RnnOptions:
    known = RnnOptions.__dataclass_fields__
    return RnnOptions(**{name: x for name, x in named.items() if name in known})


class _Cell:
    """What the kernels of a cell need: shapes and gradients."""

    def __init__(self, cell: str) -> None:
        self.cell, self.operation = cell, RNN[cell]
        of_results = [name for name in self.operation.results if name != "kept"]
        self.forward = Kernel(
            self.operation,
            f"{cell}_forward",
            self.results,
            self.gradients,
            kept=("outputs", "kept"),
        )
        self.backward = Kernel(
            RNN_GRAD[cell],
            f"{cell}_backward",
            _gradients_like(self.operation),
            _in_first_order(
                self.operation, of_results, self.in_keras, "a recurrent layer"
            ),
        )

    def results(self, named: Named) -> list[torch.Tensor]:
        inputs = named["inputs"]
        batch, timesteps, _ = inputs.shape
        units = int(named["recurrent_kernel"].shape[0])
        dtype = str(inputs.dtype).removeprefix("torch.")
        words = 0
        if named["keep"]:
            words = kept_words(self.cell, dtype, units, _options_of(named))
        states = len(self.operation.results) - 2
        rows = timesteps if named["return_sequences"] else 1
        return [
            inputs.new_empty((batch, rows, units)),
            *(inputs.new_empty((batch, units)) for _ in range(states)),
            inputs.new_empty((batch, timesteps, words), dtype=torch.int64),
        ]

    def gradients(self, named: dict[str, Any]) -> dict[str, Any]:
        if not named["keep"]:  # a gradient was not expected, as in an exported graph
            *_, named["kept"] = self.forward({**named, "keep": True})
        # Of a first layer nobody wants the gradient of the sequences: a third of the
        # backward pass where they are wide.
        skip = not named["wanted"]["inputs"]
        grads = self.backward({**named, "skip_grad_inputs": skip})
        given = dict(zip(self.operation.with_gradient, grads, strict=True))
        if skip:
            del given["inputs"]
        return {name: grad for name, grad in given.items() if named[name] is not None}

    def in_keras(self, named: Named) -> tuple[Any, ...]:
        tensors = {x.name: named[x.name] for x in self.operation.operands}
        results = reference.rnn(self.cell, tensors, _options_of(named))
        return tuple(x for x in results if x is not None)


_CELLS = {cell: _Cell(cell) for cell in RNN}
RNN_KERNELS = {cell: x.forward for cell, x in _CELLS.items()}
