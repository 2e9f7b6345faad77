"""`IntegerRNN`: a recurrent layer whose every state is exact."""

from typing import Any

import keras
import numpy as np
from keras import ops as keras_ops
from numpy.typing import NDArray

from hw3tf import ops
from hw3tf.layers import from_simple_rnn
from hw3tf.layers.merged_directions import refuse_merging
from hw3tf.ops.paths import kernel_path
from hw3tf.reference import IntegerRNNCell
from hw3tf.reference.integer_rnn_arguments import OVERFLOWS
from hw3tf.reference.integers import check_integers, check_whole


@keras.saving.register_keras_serializable(package="hw3tf")
class IntegerRNN(keras.layers.RNN):
    """Recurrent layer on integers: `h = activation(x @ W + h @ U + b)`, exactly.

    `keras.layers.RNN(hw3tf.reference.IntegerRNNCell(units))` with the loop over time
    in C++: the same weights and results, in the conventions of
    `keras.layers.SimpleRNN`. What differs: nothing is ever rounded or truncated
    (float input raises), and a state that does not fit its dtype is an error, unless
    `overflow` says what it becomes.

    Weights are integers and do not train: set them by initializers or
    `set_weights`. A float head behind the layer trains in `fit`. Integers have no
    gradient: trainable floats cast to integers before the layer raise in `fit`, unless
    `keras.ops.stop_gradient` says that nothing is to flow (`hw3tf.ops.integer_rnn`).

    Masking: a masked step keeps the state, and its output is that state, or zeros with
    `zero_output_for_mask`: then the last output is zeros if the last step is masked.
    The mask is passed on if all states are returned.

    What Keras does around the layer: `Bidirectional` and `TimeDistributed` are float
    layers by default and cast their results, so give them the dtype of this one. Then
    `Bidirectional` adds, multiplies or averages in integers, which wrap: that raises
    when it runs. Use merge_mode=None or "concat" and combine both in a dtype that is
    wide enough. `+` and `keras.layers.Add`, `Multiply`, `Average` or `Dot` wrap as
    well, whatever their dtype, and only Keras could say so: `keras.ops.cast` the states
    to int64 before. `keras.Input(dtype="int32")` and a `Sequential` that begins with
    the layer truncate floats and cut off int64: look at the dtype of arrays before.
    Or call the layer in a subclass of `keras.Model`, which hands them over as they are:
    the layer raises.

    Args:
        units: Positive integer, size of the state.
        activation: `None`, `"relu"`, `"sign"` (-1, 0 or 1) or `"clip"`. Defaults
            to `None`.
        clip: The two integers between which `"clip"` keeps the state.
        use_bias: Whether a bias is added. Defaults to `True`.
        kernel_initializer, recurrent_initializer, bias_initializer: Initializers
            that yield integers. Default to `"ones"`, `"identity"` and `"zeros"`:
            the sum of all inputs so far.
        return_sequences: Whether to return all states. Defaults to `False`: the
            last.
        return_state: Whether to return the last state, too. Defaults to `False`.
        go_backwards: Whether to begin at the last step. States are returned in the
            order in which they are computed. Defaults to `False`.
        stateful: Whether a batch begins with the last states of the one before.
            Defaults to `False`.
        overflow: `"raise"` (the default), `"wrap"` (two's complement) or
            `"saturate"` (the nearest number that fits, at every step).
        fractional_bits: Integer `n`, for fixed point: inputs, `W`, `U` and states
            count in units of `2**-n`, the bias in units of `2**(-2 * n)`, and the
            exact sum is divided by `2**n`, rounded to the nearest integer, upwards
            from the middle. Defaults to 0. See `from_simple_rnn`.
        **kwargs: `zero_output_for_mask` and the arguments of `keras.layers.Layer`;
            `dtype` is `"int32"` (default) or `"int64"`.

    Call arguments:
        sequences: Tensor of shape `(batch, timesteps, features)`: bool, int8, uint8,
            int16, int32, or, with an int64 state, int64. Without timesteps the last
            state is the initial one.
        initial_state: Optional integer tensor of shape `(batch, units)`, or a list
            of it. Defaults to zeros.
        mask: Optional boolean tensor of shape `(batch, timesteps)`. Filled in by
            Keras.
        training: Of no effect.

    Returns:
        Integer tensor of shape `(batch, units)`, or, if `return_sequences`,
        `(batch, timesteps, units)`; with `return_state` a tuple of it and the last
        state.

    Raises:
        OverflowError: If a state overflows under `overflow="raise"`; in a graph, as
            in `fit` and `predict`, `tensorflow.errors.InvalidArgumentError`, and under
            `jit_compile=True` the error of XLA, `tensorflow.errors.InternalError`. All
            name the batch entry and the timestep.
        TypeError: If sequences or states are not integers of at most the dtype, or
            a gradient of them is asked for.
        ValueError: If an option does not exist, a shape does not fit, or a weight is
            no integer of the dtype or was made trainable: integers have no gradient.

    Example:

    >>> layer = IntegerRNN(1, recurrent_initializer=keras.initializers.Identity(-1))
    >>> layer(np.array([[[5], [3], [4], [1]]], "int32")).numpy().tolist()
    [[-5]]

    Reference:
        - [Elman, 1990](https://doi.org/10.1207/s15516709cog1402_1)
    """

    def __init__(
        self,
        units: int,
        activation: str | None = None,
        clip: tuple[int, int] | None = None,
        use_bias: bool = True,
        kernel_initializer: Any = "ones",
        recurrent_initializer: Any = "identity",
        bias_initializer: Any = "zeros",
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        overflow: str = "raise",
        fractional_bits: int = 0,
        **kwargs: Any,
    ) -> None:
        if overflow not in OVERFLOWS:
            raise ValueError(
                f"`overflow` must be one of {OVERFLOWS}. Received: {overflow!r}"
            )
        kwargs["dtype"] = kwargs.get("dtype") or "int32"
        cell = IntegerRNNCell(
            units,
            activation=activation,
            clip=clip,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            fractional_bits=fractional_bits,
            dtype=kwargs["dtype"],
            name="integer_rnn_cell",
        )
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            # Otherwise Keras casts float inputs to the integer dtype: 2.7 becomes 2.
            **{**kwargs, "autocast": False},
        )
        self.overflow = overflow
        self._merging_asked = False
        # Of the states from those of a float layer: `from_simple_rnn` measures it.
        self.largest_deviation = None

    def call(
        self,
        sequences: Any,
        initial_state: Any = None,
        mask: Any = None,
        training: Any = False,
    ) -> Any:
        check_integers("sequences", sequences, self.compute_dtype)
        self.cell.check_weights_do_not_train()
        if not self._merging_asked:
            self._merging_asked = refuse_merging(self)
        state = self._first_state(sequences, initial_state)
        cell = self.cell
        output = ops.integer_rnn(
            sequences,
            cell.kernel,
            cell.recurrent_kernel,
            cell.bias,
            initial_state=state,
            mask=mask,
            activation=cell.activation,
            clip=cell.clip,
            reverse=self.go_backwards,
            return_sequences=self.return_sequences,
            overflow=self.overflow,
            fractional_bits=cell.fractional_bits,
        )
        if self.stateful or self.return_state:
            state = self._last_state(state, output)
        if self.stateful:
            self.states[0].assign(state)
        if self.zero_output_for_mask and mask is not None:
            output = self._zeroed(output, mask)
        return (output, state) if self.return_state else output

    def _zeroed(self, output: Any, mask: Any) -> Any:
        """Zeros where a step is masked, and for the last state, if the last step is."""
        if self.go_backwards:
            mask = keras_ops.flip(mask, axis=1)
        if not self.return_sequences:
            mask = keras_ops.all(mask[:, -1:], axis=1)  # true without steps
        return keras_ops.where(mask[..., None], output, keras_ops.zeros_like(output))

    def _first_state(self, sequences: Any, initial_state: Any) -> Any:
        if initial_state is None:
            if self.stateful:
                return keras_ops.convert_to_tensor(self.states[0])
            return self.get_initial_state(keras_ops.shape(sequences)[0])[0]
        if isinstance(initial_state, (list, tuple)):
            if len(initial_state) != 1:
                raise ValueError(
                    "`initial_state` must be one tensor, or a list of one. "
                    f"Received: a list of {len(initial_state)}"
                )
            initial_state = initial_state[0]
        check_integers("initial_state", initial_state, self.compute_dtype)
        return initial_state

    def _last_state(self, first: Any, output: Any) -> Any:
        if not self.return_sequences:
            return output
        # The last of the first state and, if there is one, the last output.
        ends = [keras_ops.cast(first, output.dtype)[:, None], output[:, -1:]]
        return keras_ops.concatenate(ends, axis=1)[:, -1]

    def compute_output_spec(
        self,
        sequences: Any,
        initial_state: Any = None,
        mask: Any = None,
        training: Any = False,
    ) -> Any:
        check_integers("sequences", sequences, self.compute_dtype)
        return super().compute_output_spec(
            sequences, initial_state=initial_state, mask=mask, training=training
        )

    def set_weights(self, weights: Any) -> None:
        """Sets the weights: kernel, recurrent kernel and, if there is one, bias.

        Args:
            weights: List of arrays. Floats pass if they are integers in value.

        Raises:
            ValueError: If a value is no integer of the dtype, or a shape is wrong.
        """
        for variable, values in zip(self.weights, weights, strict=False):
            values = np.asarray(values)
            received = f"an array of dtype {values.dtype}"
            check_whole(variable.name, values, self.variable_dtype, received)
        super().set_weights(weights)

    @classmethod
    def from_simple_rnn(
        cls,
        layer: Any,
        fractional_bits: int,
        calibration: Any = None,
        dtype: str = "int32",
        **kwargs: Any,
    ) -> Any:
        """Converts a trained `keras.layers.SimpleRNN` into fixed point.

        Weights are rounded to the nearest multiple of `2**-fractional_bits` (the
        bias: of its square), of two that are equally near to the even one. The
        layer takes and returns such multiples as integers: `to_fixed_point` and
        `from_fixed_point` convert.

        Args:
            layer: Built `keras.layers.SimpleRNN`, no subclass of it, whose activation
                is `keras.activations.relu` or `linear`. What acts in training only is
                left out: dropout, regularizers, constraints, initializers, the seed,
                `trainable`. The states of a stateful layer begin with zeros.
            fractional_bits: Integer from 0 on, bits behind the binary point. With
                int32 and a bias near 1, 15 fit; with int64, 31.
            calibration: Optional array of shape `(batch, timesteps, features)`,
                inputs as they come. The largest deviation of a state from that of
                the float layer, computed in float64, becomes the attribute
                `largest_deviation` (None without calibration; it is not saved).
            dtype: `"int32"` (default) or `"int64"`.
            **kwargs: Other arguments of `IntegerRNN`, such as `overflow`.

        Returns:
            Built `IntegerRNN` with the name and the options of `layer`:
            `return_sequences`, `return_state`, `go_backwards`, `stateful`, `use_bias`
            and `zero_output_for_mask`.

        Raises:
            ValueError: If the layer is not built, or is customised: another activation,
                also if it is only called "relu", a subclass, a method replaced, an
                option that is not known here. Or if weights, or inputs and states on
                the calibration batch, do not fit the dtype; then the message names the
                bits that would fit.

        Example:

        >>> simple = keras.layers.SimpleRNN(8, activation="relu")
        >>> x = np.random.default_rng(0).standard_normal((4, 10, 3))
        >>> simple.build(x.shape)
        >>> layer = IntegerRNN.from_simple_rnn(simple, 16, calibration=x)
        >>> h = layer.from_fixed_point(layer(layer.to_fixed_point(x)))
        >>> bool(np.abs(h - simple(x)).max() <= layer.largest_deviation + 1e-5)
        True
        """
        return from_simple_rnn.convert(
            cls, layer, fractional_bits, calibration, dtype, kwargs
        )

    def to_fixed_point(self, values: Any) -> NDArray[Any]:
        """The integers that stand for an array of real `values`: rounded to the
        nearest multiple of `2**-fractional_bits`. ValueError if one does not fit."""
        return from_simple_rnn.quantized(
            "values", values, self.fractional_bits, self.compute_dtype
        )

    def from_fixed_point(self, states: Any) -> NDArray[np.float64]:
        """The float64 numbers that an array of integers stands for."""
        return np.asarray(states) / 2.0**self.fractional_bits

    @property
    def supports_jit(self) -> bool:
        """Whether Keras may compile a model by XLA: where the kernel serves there. What
        would stand in for it cannot raise."""
        compiled = kernel_path(compiled=True).path in ("xla", "ffi")
        return self._supports_jit and compiled

    @supports_jit.setter
    def supports_jit(self, value: bool) -> None:
        self._supports_jit = value

    @property
    def units(self) -> int:
        return self.cell.units

    @property
    def fractional_bits(self) -> int:
        return self.cell.fractional_bits

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        cell = self.cell.get_config()
        for name in ("cell", "unroll"):
            del config[name]
        for name in ("name", "trainable", "dtype"):
            del cell[name]
        return {**config, **cell, "overflow": self.overflow}

    @classmethod
    def from_config(cls, config: Any) -> Any:
        return cls(**config)
