"""`integer_rnn` in functional models."""

from typing import Any

import keras

from hw3tf.ops.operations import INTEGER_RNN
from hw3tf.ops.recurrence.call import IntegerRnnCall, checked
from hw3tf.ops.recurrence.options import RecurrenceOptions


@keras.saving.register_keras_serializable(package="hw3tf")
class IntegerRnnOperation(keras.Operation):
    """`integer_rnn` as a node of a functional model.

    Calling `hw3tf.ops.integer_rnn` on a `keras.KerasTensor` makes one; there is
    no other reason to.

    Args:
        activation, clip, reverse, return_sequences, overflow, fractional_bits: As
            in `hw3tf.ops.integer_rnn`.
        name: Optional name of the node.
    """

    def __init__(
        self,
        activation: str | None = None,
        clip: tuple[int, int] | None = None,
        reverse: bool = False,
        return_sequences: bool = False,
        overflow: str = "raise",
        fractional_bits: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.options = RecurrenceOptions(
            activation=activation,
            clip=None if clip is None else (clip[0], clip[1]),
            reverse=reverse,
            return_sequences=return_sequences,
            overflow=overflow,
            fractional_bits=fractional_bits,
        )

    def get_config(self) -> dict[str, Any]:
        return {**vars(self.options), "name": self.name}

    def call(self, *inputs: Any, **named: Any) -> Any:
        return IntegerRnnCall(_tensors(*inputs, **named), self.options).run()

    def compute_output_spec(self, *inputs: Any, **named: Any) -> Any:
        tensors, state, _ = checked(_tensors(*inputs, **named), self.options)
        axes = 2 if self.options.return_sequences else 1
        units = tensors["recurrent_kernel"].shape[1]
        return keras.KerasTensor((*tensors["inputs"].shape[:axes], units), state)


def _tensors(*inputs: Any, **named: Any) -> dict[str, Any]:
    """All tensors of `integer_rnn` by their names, None for one that is not given."""
    names = [operand.name for operand in INTEGER_RNN.operands]
    return dict.fromkeys(names) | dict(zip(names, inputs, strict=False)) | named
