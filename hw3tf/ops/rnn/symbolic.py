"""`lstm`, `gru` and `simple_rnn` in functional models."""

from typing import Any

import keras

from hw3tf.ops.rnn.activations import resolved
from hw3tf.ops.rnn.call import RnnCall
from hw3tf.ops.rnn.checks import check_call, check_names
from hw3tf.ops.rnn.operands import ARGUMENTS, operands_of
from hw3tf.ops.rnn.options import RnnOptions


@keras.saving.register_keras_serializable(package="hw3tf")
class RnnOperation(keras.Operation):
    """`lstm`, `gru` or `simple_rnn` as a node of a functional model.

    Calling one of them on a `keras.KerasTensor` makes one; there is no other reason to.

    Args:
        cell: `"lstm"`, `"gru"` or `"simple_rnn"`.
        return_state: Whether the results are the outputs and the last states.
        activation, recurrent_activation, reset_after, reverse, return_sequences,
            zero_output_for_mask: As in `RnnOptions`, or names that Keras knows.
        name: Optional name of the node.
    """

    def __init__(
        self,
        cell: str,
        return_state: bool = False,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        reset_after: bool = True,
        reverse: bool = False,
        return_sequences: bool = False,
        zero_output_for_mask: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.cell, self.return_state = cell, return_state
        self.options = RnnOptions(
            activation=_function("activation", activation),
            recurrent_activation=_function(
                "recurrent_activation", recurrent_activation
            ),
            reset_after=reset_after,
            reverse=reverse,
            return_sequences=return_sequences,
            zero_output_for_mask=zero_output_for_mask,
        )

    def get_config(self) -> dict[str, Any]:
        options = dict(vars(self.options))
        for name in ("activation", "recurrent_activation"):
            if not isinstance(options[name], str):
                options[name] = keras.saving.serialize_keras_object(options[name])
        return {
            "cell": self.cell,
            "return_state": self.return_state,
            **options,
            "name": self.name,
        }

    def call(self, *inputs: Any, **named: Any) -> Any:
        tensors = operands_of(self.cell, _arguments(*inputs, **named), self.options)
        results = RnnCall(self.cell, tensors, self.options).run()
        return shaped(*results, self.options, self.return_state)

    def compute_output_spec(self, *inputs: Any, **named: Any) -> Any:
        tensors = operands_of(self.cell, _arguments(*inputs, **named), self.options)
        check_names(self.cell, tensors)
        sizes = check_call(self.cell, tensors, self.options)
        names = ("inputs", "kernel", "recurrent_kernel")
        dtype = keras.backend.result_type(*(tensors[name].dtype for name in names))
        batch, units = sizes["B"], sizes["U"]
        steps = (sizes["T"],) if self.options.return_sequences else ()
        outputs = keras.KerasTensor((batch, *steps, units), dtype)
        if not self.return_state:
            return outputs
        count = 2 if self.cell == "lstm" else 1
        states = [keras.KerasTensor((batch, units), dtype) for _ in range(count)]
        return outputs, *states


def shaped(
    outputs: Any, last_h: Any, last_c: Any, options: RnnOptions, return_state: bool
) -> Any:
    """The results of a call as the public functions return them."""
    if not options.return_sequences:
        outputs = keras.ops.squeeze(outputs, axis=1)
    if not return_state:
        return outputs
    return (outputs, last_h) if last_c is None else (outputs, last_h, last_c)


def _arguments(*inputs: Any, **named: Any) -> dict[str, Any]:
    return dict(zip(ARGUMENTS, inputs, strict=False)) | named


def _function(name: str, activation: Any) -> Any:
    if isinstance(activation, dict):
        activation = keras.saving.deserialize_keras_object(activation)
    return resolved(name, activation)
