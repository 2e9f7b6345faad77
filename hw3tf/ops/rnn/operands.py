"""From the arguments of the public functions to the operands of the kernels."""

from collections.abc import Mapping
from typing import Any

import keras

from hw3tf.ops.rnn.options import RnnOptions

# The public functions' tensors, in their order; `initial_state` is one or two.
ARGUMENTS = (
    "inputs",
    "kernel",
    "recurrent_kernel",
    "bias",
    "initial_state",
    "mask",
    "lengths",
    "input_dropout",
    "recurrent_dropout",
)


def operands_of(
    cell: str, arguments: Mapping[str, Any], options: RnnOptions
) -> dict[str, Any]:
    """The tensors by the names of the operands.

    Args:
        cell: `"lstm"`, `"gru"` or `"simple_rnn"`.
        arguments: Those of `ARGUMENTS` that are given: tensors, lists of numbers, or
            `KerasTensor`s.
        options: The others.

    Raises:
        ValueError: If bias or initial state have not the parts that the cell has.
    """
    given = {name: x for name, x in arguments.items() if x is not None}
    states = _states(cell, given.pop("initial_state", None))
    tensors = {name: _as_tensor(x) for name, x in (given | states).items()}
    if cell == "gru" and options.reset_after and "bias" in tensors:
        bias = tensors["bias"]
        if len(bias.shape) != 2 or bias.shape[0] != 2:
            raise ValueError(
                "`bias` must have shape (2, 3 * units), input and recurrent, with "
                f"`reset_after`. Received: bias.shape={tuple(bias.shape)}"
            )
        tensors["bias"], tensors["recurrent_bias"] = _row(bias, 0), _row(bias, 1)
    for name in ("input_dropout", "recurrent_dropout"):
        if name in tensors and len(tensors[name].shape) == 2:
            tensors[name] = _of_all_gates(tensors[name])
    return tensors


def _states(cell: str, state: Any) -> dict[str, Any]:
    if state is None:
        return {}
    listed = isinstance(state, (list, tuple))
    if cell == "lstm":
        if not listed or len(state) != 2:
            kind = f"{len(state)} states" if listed else type(state).__name__
            raise ValueError(
                f"`initial_state` must be a pair (h, c) of tensors. Received: {kind}"
            )
        return {"initial_h": state[0], "initial_c": state[1]}
    if listed and len(state) == 1 and hasattr(state[0], "shape"):
        return {"initial_h": state[0]}  # as layers return it
    return {"initial_h": state}


def _as_tensor(x: Any) -> Any:
    return x if hasattr(x, "shape") else keras.ops.convert_to_tensor(x)


def _row(x: Any, row: int) -> Any:
    if isinstance(x, keras.KerasTensor):
        return keras.KerasTensor(x.shape[1:], x.dtype)
    return keras.ops.convert_to_tensor(x)[row]


def _of_all_gates(x: Any) -> Any:
    if isinstance(x, keras.KerasTensor):
        return keras.KerasTensor((1, *x.shape), x.dtype)
    return keras.ops.convert_to_tensor(x)[None]
