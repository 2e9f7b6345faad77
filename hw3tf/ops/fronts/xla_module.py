"""A custom call of XLA as a StableHLO module, in text.

`tf.raw_ops.XlaCallModule` puts a module into a TensorFlow graph. XLA compiles it
once the sizes are known, so the module says how the sizes of the results follow
from those of the arguments, and hands all sizes to the call, which is told none.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

from hw3tf.ops.attention.options import bits_of
from hw3tf.ops.operations import Operation

# The oldest version of XlaCallModule that has all we need; TensorFlow 2.16 and
# later read it.
VERSION = 5

ELEMENTS = {
    "float32": "f32",
    "bfloat16": "bf16",
    "float16": "f16",
    "float64": "f64",
    "bool": "i1",
    "int8": "i8",
    "uint8": "ui8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
}


class Axis(NamedTuple):
    """The size of an axis of an argument, unknown while the graph is made."""

    argument: int
    axis: int


class Broadcast(NamedTuple):
    """The size of axes that are equal or 1: the one that is not, or 1."""

    axes: tuple[Axis, ...]


Size = int | Axis | Broadcast


def broadcast_size(sizes: Sequence[Size]) -> Size:
    """What sizes broadcast to that are equal or 1, as far as it is known."""
    for size in sizes:
        if isinstance(size, int) and size != 1:
            return size
    axes = tuple(size for size in sizes if isinstance(size, Axis))
    if len(axes) > 1:
        return Broadcast(axes)
    return axes[0] if axes else 1


class Array(NamedTuple):
    """An argument or a result: sizes and dtype."""

    sizes: tuple[Size, ...]
    dtype: str

    @property
    def shape(self) -> list[int | None]:
        """With None for a size that is not known yet."""
        return [size if isinstance(size, int) else None for size in self.sizes]

    @property
    def type(self) -> str:
        sizes = ["?" if size is None else str(size) for size in self.shape]
        return f"tensor<{'x'.join([*sizes, ELEMENTS[self.dtype]])}>"


def arrays_of(tensors: Sequence[Any]) -> list[Array]:
    """The `Array`s of tensors that become the arguments, in this order."""
    return [
        Array(
            tuple(
                Axis(at, axis) if size is None else size
                for axis, size in enumerate(tensor.shape)
            ),
            tensor.dtype.name,
        )
        for at, tensor in enumerate(tensors)
    ]


def header_of(
    operation: Operation,
    types: Mapping[str, str],
    attributes: Mapping[str, Any],
    arrays: Mapping[str, Array],
) -> list[Size]:
    """What a call must know beside its arrays, as csrc/tensorflow/xla_target.h says.

    Args:
        operation: Its description.
        types: The dtypes of its types.
        attributes: Values by name, words as strings; more are allowed.
        arrays: The operands that are given, by name.
    """
    words = [
        _word(attribute, attributes[attribute["name"]])
        for attribute in operation.attributes
        if attribute["carrier"] not in ("input", "not_read")
    ]
    operands = [arrays.get(operand.name) for operand in operation.operands]
    return [
        len(words),
        len(operands),
        *(dtypes.index(types[name]) for name, dtypes in operation.types.items()),
        tf.config.threading.get_intra_op_parallelism_threads(),
        *words,
        *(-1 if x is None else len(x.sizes) for x in operands),
        *(size for x in operands if x is not None for size in x.sizes),
    ]


def _word(attribute: dict[str, Any], value: Any) -> int:
    if attribute["kind"] == "float":
        return bits_of(value)
    words: list[str] = attribute["words"]
    return words.index(value) if words else int(value)


def run_custom_call(
    target: str, header: Sequence[Size], arguments: list[Any], results: list[Array]
) -> list[Any]:
    """One custom call: the tensors that it returns.

    The last argument is the sizes as TensorFlow has them. Where they depend on
    values, they are less than those of the arrays, which are upper bounds: XLA
    refuses such arrays as operands, or, in TensorFlow 2.16, hands them over. The
    call compares.

    Args:
        target, header, results: As `custom_call`.
        arguments: The tensors of the call. Scalars have no sizes.
    """
    sizes = tf.concat([tf.shape(x, tf.int64) for x in arguments], 0)
    arguments = [*arguments, sizes]
    outputs = gen_xla_ops.xla_call_module(
        arguments,
        version=VERSION,
        module=custom_call(target, header, arrays_of(arguments), results),
        Sout=[x.shape for x in results],
        Tout=[x.dtype for x in results],
        platforms=["CPU"],
    )
    return list(outputs)


def custom_call(
    target: str,
    header: Sequence[Size],
    arguments: list[Array],
    results: list[Array],
) -> str:
    """The module whose function `main` is one custom call.

    Args:
        target: Name under which the call is registered with XLA.
        header: Integers and other sizes: the first operand, a vector of int64.
        arguments: `Array`s of the arguments of `main`: the operands that follow.
        results: `Array`s of the results.
    """
    body = _Body(arguments)
    first = body.vector(header)
    # The sizes of the results: what XLA infers them from. They come last, where
    # the call does not look: versions differ in whether they stay operands.
    shapes = [body.vector(result.sizes) for result in results]
    operands = [first, *(f"%{i}" for i in range(len(arguments))), *shapes]
    types = [
        _vector_type(len(header)),
        *(x.type for x in arguments),
        *(_vector_type(len(x.sizes)) for x in results),
    ]
    ranks = [1, *(len(x.sizes) for x in arguments), *(1 for _ in results)]
    places = [1 + len(arguments) + i for i in range(len(results))]
    outputs = ", ".join(x.type for x in results)
    attributes = ", ".join(
        (
            "api_version = 3 : i32",
            "has_side_effect = false",
            f"indices_of_shape_operands = {_dense(places, 'i64')}",
            # Row-major, all of them: XLA copies what it holds otherwise.
            f"operand_layouts = {_layouts(ranks)}",
            f"result_layouts = {_layouts(len(x.sizes) for x in results)}",
        )
    )
    parameters = ", ".join(f"%{i}: {x.type}" for i, x in enumerate(arguments))
    returned = ", ".join(f"%out#{i}" for i in range(len(results)))
    return "\n".join(
        (
            "module {",
            f"func.func public @main({parameters}) -> ({outputs}) {{",
            *body.lines,
            f"%out:{len(results)} = stablehlo.custom_call @{target}"
            f"({', '.join(operands)}) {{{attributes}}} : "
            f"({', '.join(types)}) -> ({outputs})",
            f"return {returned} : {outputs}",
            "}",
            "}",
        )
    )


def _dense(values: Iterable[Any], element: str) -> str:
    values = list(values)
    inside = f"[{', '.join(map(str, values))}]" if values else ""
    return f"dense<{inside}> : tensor<{len(values)}x{element}>"


def _layouts(ranks: Iterable[int]) -> str:
    return f"[{', '.join(_dense(reversed(range(rank)), 'index') for rank in ranks)}]"


def _vector_type(length: int) -> str:
    return f"tensor<{length}xi64>"


@dataclass
class _Body:
    """The lines that compute sizes."""

    arguments: list[Array]
    lines: list[str] = field(default_factory=list)
    names: dict[Size, str] = field(default_factory=dict)

    def vector(self, sizes: Sequence[Size]) -> str:
        """The name of a vector of int64 with these sizes."""
        parts: list[tuple[str, int]] = []
        run: list[int] = []
        for size in sizes:
            if not isinstance(size, int):
                parts += [self._constant(run)] * bool(run) + [self._size(size)]
                run = []
            else:
                run.append(size)
        parts += [self._constant(run)] * bool(run)
        if len(parts) == 1:
            return parts[0][0]
        types = ", ".join(_vector_type(length) for _, length in parts)
        return self._add(
            f"stablehlo.concatenate {', '.join(name for name, _ in parts)}, dim = 0 "
            f": ({types}) -> {_vector_type(len(sizes))}"
        )

    def _constant(self, values: list[int]) -> tuple[str, int]:
        text = f"stablehlo.constant {_dense(values, 'i64')}"
        return self._add(text), len(values)

    def _size(self, size: Axis | Broadcast) -> tuple[str, int]:
        if size in self.names:
            return self.names[size], 1
        if isinstance(size, Broadcast):
            self.names[size] = self._broadcast(size.axes)
        else:
            kind = self.arguments[size.argument].type
            number = self._add(
                f"stablehlo.get_dimension_size %{size.argument}, dim = {size.axis} "
                f": ({kind}) -> tensor<i32>"
            )
            wide = self._add(
                f"stablehlo.convert {number} : (tensor<i32>) -> tensor<i64>"
            )
            self.names[size] = self._add(
                f"stablehlo.reshape {wide} : (tensor<i64>) -> tensor<1xi64>"
            )
        return self.names[size], 1

    def _broadcast(self, axes: tuple[Axis, ...]) -> str:
        size, one = self._size(axes[0])[0], self._constant([1])[0]
        kind = _vector_type(1)
        for axis in axes[1:]:
            other = self._size(axis)[0]
            is_one = self._add(
                f"stablehlo.compare EQ, {size}, {one}, SIGNED : ({kind}, {kind}) "
                "-> tensor<1xi1>"
            )
            size = self._add(
                f"stablehlo.select {is_one}, {other}, {size} : tensor<1xi1>, {kind}"
            )
        return size

    def _add(self, text: str) -> str:
        name = f"%v{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        return name
