"""One call of a recurrent layer: its arguments checked, its path chosen, run."""

from collections.abc import Mapping
from typing import Any

import keras

from hw3tf.ops.fronts import front_of
from hw3tf.ops.operations import RNN
from hw3tf.ops.paths import CallPath, kernel_path, logger
from hw3tf.ops.rnn.activations import in_words
from hw3tf.ops.rnn.checks import check_call, check_dense, check_names
from hw3tf.ops.rnn.options import RnnOptions
from hw3tf.reference.attention import lengths_as_int32

KERNEL_DTYPES = RNN["lstm"].types["T"]


class RnnCall:
    """The arguments of an LSTM, a GRU or a simple RNN, checked and converted.

    Args:
        cell: `"lstm"`, `"gru"` or `"simple_rnn"`.
        tensors: The tensors by the names of the operands: `inputs`, `kernel`,
            `recurrent_kernel`, `bias`, `recurrent_bias` (GRU), `initial_h`,
            `initial_c` (LSTM), `mask`, `lengths`, `input_dropout`,
            `recurrent_dropout`; None, or no entry, for one that is not given. Shapes
            as in `hw3tf.reference.rnn`.
        options: What else the call is made with.

    Attributes:
        path: The `CallPath` that the call takes.

    Raises:
        TypeError, ValueError: If an argument is not what it must be.
    """

    def __init__(
        self, cell: str, tensors: Mapping[str, Any], options: RnnOptions
    ) -> None:
        options = options.with_booleans()
        given = {name: x for name, x in tensors.items() if x is not None}
        check_names(cell, given)
        check_dense(given)
        types = {operand.name: operand.type for operand in RNN[cell].operands}
        given = {
            name: keras.ops.cast(x, "bool") if types[name] == "bool" else as_tensor(x)
            for name, x in given.items()
        }
        self.sizes = check_call(cell, given, options)
        dtype = keras.backend.result_type(
            *(given[operand.name].dtype for operand in RNN[cell].required)
        )
        for name, x in given.items():
            if types[name] == "int32":
                given[name] = lengths_as_int32(x)
            elif types[name] == "T" and x.dtype != dtype:
                given[name] = keras.ops.cast(x, dtype)
        self.cell, self.tensors, self.options = cell, given, options
        self.path = choose_path(cell, dtype, options, self.sizes["U"])

    def run(self) -> tuple[Any, Any, Any]:
        """Outputs, `(batch, timesteps, units)` with `return_sequences`, else `(batch,
        1, units)`; the last `h`, `(batch, units)`; the last `c`, or None."""
        logger.debug("%s takes the path %s", self.cell, self.path)
        front = front_of(self.path.path)
        outputs, last_h, last_c = front.rnn(self.cell, self.tensors, self.options)
        return outputs, last_h, last_c


def as_tensor(x: Any) -> Any:
    """A tensor. On TensorFlow, Keras may return a variable, which a tape does not
    know."""
    x = keras.ops.convert_to_tensor(x)
    if keras.backend.backend() == "tensorflow" and hasattr(x, "assign"):
        import tensorflow as tf

        return tf.convert_to_tensor(x)
    return x


def choose_path(
    cell: str, dtype: str, options: RnnOptions, units: int | None
) -> CallPath:
    """The path of a call with inputs of `dtype`."""
    uncovered = uncovered_activation(cell, options)
    if not uncovered and dtype not in KERNEL_DTYPES:
        uncovered = dtype
    if uncovered:
        return CallPath("reference", f"the kernel does not cover {uncovered}")
    path = kernel_path()
    if path.path == "xla" and units is None:
        return CallPath("reference", "XLA must know the units when the graph is made")
    return path


def uncovered_activation(cell: str, options: RnnOptions) -> str:
    """The activation that the kernels do not know, in words; empty if they know all."""
    activations = [options.activation]
    if cell != "simple_rnn":
        activations.append(options.recurrent_activation)
    for activation in activations:
        if not isinstance(activation, str):
            return f"the activation {in_words(activation)}"
    return ""
