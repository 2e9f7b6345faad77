"""The operations as the module describes them: operands and results.

What Python knows of names, order, types, axes and gradients comes from
`hw3tf._core.operations()`. Checks, options, fronts and the nodes of functional models
read it here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
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
    """An operation by its name in `_core.operations()`.

    Attributes:
        operands: All of them, in the order of the op's inputs: first those that are
            always given, `required`, then those that may be left out, `optional`.
        with_gradient: Names of the operands that have a gradient; they come before all
            others.
        types: The types that a call chooses, and the dtypes that each may be.
        attributes: `name`, `kind`, `default`, `carrier` and `words` of each attribute.
        op: The name of the TensorFlow op.
        target: The name of XLA's custom call.
        results: The results by their names.
    """

    # Plain attributes: `torch.compile` cannot trace a `functools.cached_property`.
    def __init__(self, name: str) -> None:
        self.name = name
        description = _core.operations()[name]
        self.operands = _tensors(description["operands"])
        self.required = tuple(x for x in self.operands if not x.optional)
        self.optional = tuple(x for x in self.operands if x.optional)
        self.with_gradient = tuple(x.name for x in self.operands if x.gradient)
        self.types: dict[str, list[str]] = dict(description["types"])
        self.attributes: list[dict[str, Any]] = list(description["attributes"])
        self.op, self.target = str(description["op"]), str(description["target"])
        self.results = {x.name: x for x in _tensors(description["results"])}


def _tensors(described: Iterable[dict[str, Any]]) -> tuple[TensorDescription, ...]:
    known = TensorDescription.__dataclass_fields__
    given = ({k: v for k, v in words.items() if k in known} for words in described)
    return tuple(TensorDescription(**{**x, "axes": tuple(x["axes"])}) for x in given)


ATTENTION = Operation("attention")
ATTENTION_GRAD = Operation("attention_grad")
INTEGER_RNN = Operation("integer_rnn")
RNN = {cell: Operation(cell) for cell in ("lstm", "gru", "simple_rnn")}
RNN_GRAD = {cell: Operation(cell + "_grad") for cell in RNN}
