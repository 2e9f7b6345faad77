"""The operations as the module describes them: operands and results.

What Python knows of names, order, types, axes and gradients comes from
`hw3tf._core.operations()`. Checks, options, fronts and the nodes of functional models
read it here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hw3tf import _core


@dataclass(frozen=True)
class TensorDescription:
    """An operand or a result.

    Attributes:
        name: That of the parameter.
        type: A dtype, or the name of one that a call chooses: `"T"`, that of query, of
            the state or of recurrent inputs, `"Real"`, `"Weight"`, `"Input"`.
        axes: A letter or word for each axis; those of one name are of one size. In
            parentheses if the axis is there in some calls only.
        optional: Whether it may be left out.
        gradient: Whether it has a gradient.
        broadcasts: Whether every axis may be 1 as well, and the first ones be missing.
            It is read through any strides.
        strided: Whether it is read through strides along all axes but the last.
    """

    name: str
    type: str
    axes: tuple[str, ...]
    optional: bool = False
    gradient: bool = False
    broadcasts: bool = False
    strided: bool = False


class Operation:
    """An operation by its name in `_core.operations()`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._description = _core.operations()[name]

    def _tensors(self, kind: str) -> Iterator[TensorDescription]:
        known = TensorDescription.__dataclass_fields__
        for words in self._description[kind]:
            given = {k: v for k, v in words.items() if k in known}
            yield TensorDescription(**{**given, "axes": tuple(words["axes"])})

    @cached_property
    def operands(self) -> tuple[TensorDescription, ...]:
        """All of them, in the order of the op's inputs."""
        return tuple(self._tensors("operands"))

    @cached_property
    def required(self) -> tuple[TensorDescription, ...]:
        """The operands that are always given; they come first."""
        return tuple(x for x in self.operands if not x.optional)

    @cached_property
    def optional(self) -> tuple[TensorDescription, ...]:
        """The operands that may be left out; they follow."""
        return tuple(x for x in self.operands if x.optional)

    @cached_property
    def with_gradient(self) -> tuple[str, ...]:
        """Names of the operands that have a gradient; they come before all others."""
        return tuple(x.name for x in self.operands if x.gradient)

    @cached_property
    def types(self) -> dict[str, list[str]]:
        """The types that a call chooses, and the dtypes that each may be."""
        return dict(self._description["types"])

    @cached_property
    def attributes(self) -> list[dict[str, Any]]:
        """`name`, `kind`, `default`, `carrier` and `words` of each attribute."""
        return list(self._description["attributes"])

    @cached_property
    def op(self) -> str:
        """The name of the TensorFlow op."""
        return str(self._description["op"])

    @cached_property
    def target(self) -> str:
        """The name of XLA's custom call."""
        return str(self._description["target"])

    @cached_property
    def results(self) -> dict[str, TensorDescription]:
        """The results by their names."""
        return {x.name: x for x in self._tensors("results")}


ATTENTION = Operation("attention")
ATTENTION_GRAD = Operation("attention_grad")
INTEGER_RNN = Operation("integer_rnn")
RNN = {cell: Operation(cell) for cell in ("lstm", "gru", "simple_rnn")}
RNN_GRAD = {cell: Operation(cell + "_grad") for cell in RNN}
