"""`integer_rnn` in functional models."""

import keras

from hw3tf.ops.integer_rnn_call import IntegerRnnCall, checked


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
        activation=None,
        clip=None,
        reverse=False,
        return_sequences=False,
        overflow="raise",
        fractional_bits=0,
        name=None,
    ):
        super().__init__(name=name)
        self.settings = {
            "activation": activation,
            "clip": None if clip is None else tuple(clip),
            "reverse": reverse,
            "return_sequences": return_sequences,
            "overflow": overflow,
            "fractional_bits": fractional_bits,
        }

    def get_config(self):
        return {**self.settings, "name": self.name}

    def call(
        self,
        inputs,
        kernel,
        recurrent_kernel,
        bias=None,
        initial_state=None,
        mask=None,
    ):
        return IntegerRnnCall(
            inputs, kernel, recurrent_kernel, bias, initial_state, mask, **self.settings
        ).run()

    def compute_output_spec(
        self,
        inputs,
        kernel,
        recurrent_kernel,
        bias=None,
        initial_state=None,
        mask=None,
    ):
        tensors = {
            "inputs": inputs,
            "kernel": kernel,
            "recurrent_kernel": recurrent_kernel,
            "bias": bias,
            "initial_state": initial_state,
            "mask": mask,
        }
        names = ("activation", "clip", "overflow", "fractional_bits")
        settings = (self.settings[name] for name in names)
        tensors, state, _ = checked(tensors, settings)
        axes = 2 if self.settings["return_sequences"] else 1
        units = tensors["recurrent_kernel"].shape[1]
        return keras.KerasTensor((*inputs.shape[:axes], units), state)
