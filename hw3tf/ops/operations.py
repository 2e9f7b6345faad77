"""Descriptions of the operations: their operands, attributes and results.

What Python knows of names, order, types, axes and gradients stands here alone. Checks,
options, fronts and the nodes of functional models read it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

_ATTENTION_MASKS = ("query_mask", "bool", "B T"), ("key_mask", "bool", "B S")
_ATTENTION_LENGTHS = ("query_lengths", "int32", "B"), ("key_lengths", "int32", "B")
_ATTENTION_SPLITS = ("query_splits", "int64", "B+1"), ("key_splits", "int64", "B+1")


def _tensor(name: str, type_: str, axes: str, **more: Any) -> dict[str, Any]:
    plain = {"optional": False, "gradient": False, "broadcasts": False}
    return {"name": name, "type": type_, "axes": axes.split(), **plain, **more}


OPERATIONS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "attention": {
        "operands": [
            _tensor("query", "T", "B T N H", gradient=True),
            _tensor("key", "T", "B S K H", gradient=True),
            _tensor("value", "T", "B S K V", gradient=True),
            _tensor(
                "bias", "real", "B N T S", optional=True, gradient=True, broadcasts=True
            ),
            _tensor("mask", "bool", "B N T S", optional=True, broadcasts=True),
            *(
                _tensor(*words, optional=True)
                for words in (
                    *_ATTENTION_MASKS,
                    *_ATTENTION_LENGTHS,
                    *_ATTENTION_SPLITS,
                )
            ),
        ],
        "results": [
            _tensor("output", "T", "B T N V"),
            _tensor("statistics", "real", "B N T 2"),
            _tensor("logsumexp", "real", "B N T"),
        ],
    },
    "integer_rnn": {
        "operands": [
            _tensor("inputs", "inputs", "B T F"),
            _tensor("kernel", "weights", "F U"),
            _tensor("recurrent_kernel", "weights", "U U"),
            _tensor("bias", "state", "U", optional=True),
            _tensor("initial_state", "state", "B U", optional=True),
            _tensor("mask", "bool", "B T", optional=True),
        ],
        "results": [_tensor("states", "state", "B T U")],
    },
}


@dataclass(frozen=True)
class TensorDescription:
    """An operand or a result.

    Attributes:
        name: That of the parameter.
        type: A dtype, or a letter or word that stands for one that varies.
        axes: A letter or word for each axis; those of one name are of one size.
        optional: Whether it may be left out.
        gradient: Whether it has a gradient.
        broadcasts: Whether every axis may be 1 as well, and the first ones be missing.
    """

    name: str
    type: str
    axes: tuple[str, ...]
    optional: bool
    gradient: bool
    broadcasts: bool


class Operation:
    """An operation by its name in `OPERATIONS`."""

    def __init__(self, name: str) -> None:
        self._description = OPERATIONS[name]

    def _tensors(self, kind: str) -> Iterator[TensorDescription]:
        for words in self._description[kind]:
            yield TensorDescription(**{**words, "axes": tuple(words["axes"])})

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
    def results(self) -> dict[str, TensorDescription]:
        """The results by their names."""
        return {x.name: x for x in self._tensors("results")}


ATTENTION = Operation("attention")
INTEGER_RNN = Operation("integer_rnn")
