"""`IntegerRNNCell`: one step of the integer recurrence, for `keras.layers.RNN`."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
from keras import ops

from hw3tf._types import Tensor
from hw3tf.reference import exact
from hw3tf.reference.integer_rnn import activated, sums_of_steps
from hw3tf.reference.integer_rnn_arguments import check_options
from hw3tf.reference.integers import check_integers, integer_initializer

# What `keras.initializers.get` takes.
Initializer: TypeAlias = str | dict[str, Any] | Callable[..., Tensor]


@keras.saving.register_keras_serializable(package="hw3tf")
class IntegerRNNCell(keras.layers.Layer):
    """One step `h = activation(x @ kernel + h @ recurrent_kernel + bias)`.

    `keras.layers.RNN(IntegerRNNCell(units, dtype="int64"), dtype="int64")` is what
    `hw3tf.layers.IntegerRNN` computes, without its kernel: give both the same
    dtype, because the layer casts to its own. The arithmetic is that of Keras on
    integers, two's complement. A cell knows neither time nor batch entry, so it cannot
    say where a state overflows.

    Args:
        units: Positive integer, size of the state.
        activation: `None`, `"relu"`, `"sign"` or `"clip"`. Defaults to `None`.
        clip: The two integers between which `"clip"` keeps the state.
        use_bias: Whether a bias is added. Defaults to `True`.
        kernel_initializer, recurrent_initializer, bias_initializer: Initializers
            that yield integers. Default to `"ones"`, `"identity"` and `"zeros"`:
            the sum of all inputs so far.
        fractional_bits: As in `hw3tf.layers.IntegerRNN`. Defaults to 0.
        **kwargs: Passed to `keras.layers.Layer`; `dtype` is `"int32"` (default) or
            `"int64"`.

    Call arguments:
        inputs: Integer tensor of shape `(batch, features)`.
        states: List of one tensor of shape `(batch, units)`.

    Returns:
        The new state, of shape `(batch, units)`, and the list of it.

    Raises:
        TypeError: If the inputs are not integers, or are wider than the state.
        ValueError: If the dtype or the values of an initializer are not integers, or a
            weight was made trainable.

    Example:

    >>> cell = IntegerRNNCell(1)
    >>> x = ops.convert_to_tensor([[[5], [3], [4]]])
    >>> keras.layers.RNN(cell, dtype="int32")(x).numpy().tolist()
    [[12]]
    """

    def __init__(
        self,
        units: int,
        activation: str | None = None,
        clip: Sequence[int] | None = None,
        use_bias: bool = True,
        kernel_initializer: Initializer = "ones",
        recurrent_initializer: Initializer = "identity",
        bias_initializer: Initializer = "zeros",
        fractional_bits: int = 0,
        **kwargs: Any,
    ) -> None:
        kwargs["dtype"] = kwargs.get("dtype") or "int32"
        # Otherwise Keras casts float inputs to the integer dtype: 2.7 becomes 2.
        super().__init__(**{**kwargs, "autocast": False})
        if not isinstance(units, int) or units < 1:
            raise ValueError(
                f"`units` must be a positive integer. Received: units={units!r}"
            )
        if self.compute_dtype not in ("int32", "int64"):
            raise ValueError(
                f"`dtype` must be 'int32' or 'int64'. Received: {self.compute_dtype}"
            )
        check_options(activation, clip, "wrap", fractional_bits, self.compute_dtype)
        self.units = self.state_size = self.output_size = units
        self.activation = activation
        self.clip = None if clip is None else tuple(clip)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.fractional_bits = fractional_bits

    def build(self, input_shape: Sequence[int]) -> None:
        if self.variable_dtype == "int64":
            exact.int64(0)  # JAX would make weights of 32 bits
        self.kernel = self._add_integers(
            "kernel", (input_shape[-1], self.units), self.kernel_initializer
        )
        self.recurrent_kernel = self._add_integers(
            "recurrent_kernel", (self.units, self.units), self.recurrent_initializer
        )
        self.bias = None
        if self.use_bias:
            self.bias = self._add_integers("bias", (self.units,), self.bias_initializer)

    def _add_integers(
        self, name: str, shape: tuple[int, ...], initializer: Callable[..., Tensor]
    ) -> keras.Variable:
        return self.add_weight(
            shape=shape,
            initializer=integer_initializer(name, initializer),
            dtype=self.variable_dtype,
            trainable=False,
            name=name,
        )

    def call(
        self, inputs: Tensor, states: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        check_integers("inputs", inputs, self.compute_dtype)
        self.check_weights_do_not_train()
        sums = sums_of_steps(
            ops.convert_to_tensor(self.kernel),
            ops.convert_to_tensor(self.recurrent_kernel),
            None if self.bias is None else ops.convert_to_tensor(self.bias),
            inputs.dtype,
            fractional_bits=self.fractional_bits,
        )
        state = activated(sums(inputs, states[0])[0], self.activation, self.clip)
        return state, [state]

    def check_weights_do_not_train(self) -> None:
        """Raises ValueError if a weight was made trainable: TensorFlow would return
        `None` for its gradient, and an optimizer would not change it."""
        for weight in self.weights:
            if weight.trainable:
                raise ValueError(
                    "integer weights have no gradient and cannot train. "
                    f"Received: {weight.path}.trainable=True"
                )

    def get_initial_state(self, batch_size: int | Tensor | None = None) -> list[Tensor]:
        return [ops.zeros((batch_size, self.units), self.compute_dtype)]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "activation": self.activation,
            "clip": self.clip,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": keras.initializers.serialize(
                self.recurrent_initializer
            ),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "fractional_bits": self.fractional_bits,
        }
