"""The Keras layer."""

import keras

from own_op import ops


@keras.saving.register_keras_serializable(package="own_op")
class RmsNorm(keras.layers.Layer):
    """RMS normalisation over the last axis, with one trained scale per feature."""

    def __init__(self, epsilon=1e-6, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.supports_jit = False  # the op has no kernel for XLA

    def build(self, input_shape):
        shape = (input_shape[-1],)
        self.scale = self.add_weight(shape=shape, initializer="ones", name="scale")

    def call(self, inputs):
        return ops.rms_norm(inputs, self.scale, self.epsilon)

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}
