"""What can be said of the arguments of a recurrent layer before it runs.

Static shapes only: an axis of unknown size passes here and is checked again by the
kernel, with the same rules (csrc/operations/rnn.cc).
"""

from collections.abc import Mapping
from typing import Any, NoReturn

import keras
import numpy as np

from hw3tf.ops.arguments import check_integers, check_lengths, is_ragged
from hw3tf.ops.operations import RNN, TensorDescription
from hw3tf.ops.rnn.activations import WORDS
from hw3tf.ops.rnn.options import RnnOptions
from hw3tf.ops.shapes import Shape, Size, differ
from hw3tf.reference.rnn import GATES

AXES = {"B": "batch", "T": "timesteps", "F": "features", "U": "units"}

Sizes = dict[str, Size]


def _fail(name: str, expected: str, shape: Any) -> NoReturn:
    raise ValueError(
        f"`{name}` must have {expected}. Received: {name}.shape={tuple(shape)}"
    )


def check_names(cell: str, tensors: Mapping[str, Any]) -> None:
    """Raises TypeError if a tensor is not given that must be, or is one that the cell
    does not have."""
    operation = RNN[cell]
    for operand in operation.required:
        if tensors.get(operand.name) is None:
            name = operand.name
            raise TypeError(f"`{name}` must be a tensor. Received: {name}=None")
    known = {operand.name for operand in operation.operands}
    for name in tensors:
        if name not in known:
            raise TypeError(
                f"`{name}` must be None: it is not an operand of {cell!r}. Received: "
                f"{name} of the type {type(tensors[name]).__name__}"
            )


def check_dense(tensors: Mapping[str, Any]) -> None:
    """Raises ValueError if a tensor is ragged or sparse."""
    for name, x in tensors.items():
        if is_ragged(x):
            raise ValueError(
                f"`{name}` must be a dense tensor, x.to_tensor() with "
                "lengths=x.row_lengths(); `inputs` of hw3tf.ops.lstm, gru and "
                f"simple_rnn may be ragged. Received: a tf.RaggedTensor of shape "
                f"{x.shape}"
            )
        if type(x).__name__ == "SparseTensor" or getattr(x, "sparse", False):
            raise ValueError(
                f"`{name}` must be a dense tensor: tf.sparse.to_dense makes one. "
                "Received: a sparse tensor"
            )


def check_call(cell: str, tensors: Mapping[str, Any], options: RnnOptions) -> Sizes:
    """Raises ValueError, naming the argument, what was expected and what came.

    Args:
        cell: `"lstm"`, `"gru"` or `"simple_rnn"`.
        tensors: The tensors that are given by their names: tensors, arrays or
            `KerasTensor`s.
        options: The others.

    Returns:
        The sizes of the axes by their letters, None for one that is not known.
    """
    check_options(cell, tensors, options)
    operands = [x for x in RNN[cell].operands if x.name in tensors]
    for operand in operands:
        _check_dtype(operand, tensors[operand.name])
    shapes = {x.name: _shape(x, tensors[x.name]) for x in operands}
    sizes = _kernel_sizes(cell, shapes)
    for operand in operands:
        _check_shape(operand, shapes[operand.name], sizes, GATES[cell])
    if "lengths" in tensors:
        check_lengths("lengths", _known(tensors["lengths"]), "inputs", sizes["T"])
    return sizes


def _known(lengths: Any) -> Any:
    """Lengths as they are in a graph, else their values as int64: then wrong ones are a
    ValueError on every path."""
    try:
        return np.asarray(lengths).astype("int64")
    except Exception:  # symbolic
        return lengths


def check_options(cell: str, tensors: Mapping[str, Any], options: RnnOptions) -> None:
    """Raises ValueError if an option is not what it must be."""
    activations = {"activation": options.activation}
    if cell != "simple_rnn":
        activations["recurrent_activation"] = options.recurrent_activation
    for name, activation in activations.items():
        if activation not in WORDS and not callable(activation):
            raise ValueError(
                f"`{name}` must be one of {WORDS}, or a function of tensors. "
                f"Received: {name}={activation!r}"
            )
    if "recurrent_bias" in tensors and not options.reset_after:
        shape = tensors["recurrent_bias"].shape
        _fail("recurrent_bias", "no place without `reset_after`", shape)


def _check_dtype(operand: TensorDescription, x: Any) -> None:
    name = operand.name
    if operand.type == "int32":
        check_integers(name, x)
        return
    dtype = keras.backend.standardize_dtype(x.dtype)
    if operand.type == "T" and not keras.backend.is_float_dtype(dtype):
        raise ValueError(
            f"`{name}` must be of a floating-point dtype. "
            f"Received: {name}.dtype={dtype}"
        )


def _shape(operand: TensorDescription, x: Any) -> Shape:
    """The shape, of as many axes as the operand has."""
    rank = len(operand.axes)
    if getattr(x.shape, "rank", rank) is None:
        return (None,) * rank
    shape = tuple(x.shape)
    if len(shape) != rank:
        words = ", ".join(_axis(axis) for axis in operand.axes)
        _fail(operand.name, f"{rank} axes: ({words})", shape)
    return shape


def _axis(letter: str) -> str:
    return {"G": "gates * units", "D": "1 or gates", "E": "1 or gates"}.get(
        letter, AXES.get(letter, letter)
    )


def _kernel_sizes(cell: str, shapes: Mapping[str, Shape]) -> Sizes:
    """The sizes that inputs and kernels give."""
    batch, timesteps, features = shapes["inputs"]
    units, columns = shapes["recurrent_kernel"]
    if timesteps == 0:
        _fail("inputs", "at least one timestep", shapes["inputs"])
    if features == 0:
        _fail("inputs", "at least one feature", shapes["inputs"])
    if units == 0:
        _fail("recurrent_kernel", "at least one unit", shapes["recurrent_kernel"])
    if units is not None:
        columns = GATES[cell] * units
    return {"B": batch, "T": timesteps, "F": features, "U": units, "G": columns}


def _check_shape(
    operand: TensorDescription, shape: Shape, sizes: Sizes, gates: int
) -> None:
    """Raises ValueError if a size is not that of its axis."""
    first = {1, gates} if operand.axes[0] in "DE" else set()
    wanted = tuple(sizes.get(axis) for axis in operand.axes)
    rest = list(zip(shape, wanted, strict=True))[1 if first else 0 :]
    wrong_first = first and shape[0] is not None and shape[0] not in first
    if not wrong_first and not any(differ(*pair) for pair in rest):
        return
    shapes = sorted((n, *wanted[1:]) for n in first) if first else [wanted]
    _fail(operand.name, "shape " + " or ".join(map(str, shapes)), shape)
