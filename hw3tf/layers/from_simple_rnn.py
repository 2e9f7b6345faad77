"""Conversion of a float recurrence to fixed point, in NumPy, for
`hw3tf.layers.IntegerRNN.from_simple_rnn`."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from hw3tf import ops

ACTIVATIONS = {"relu": "relu", "linear": None}
# What becomes of each entry of the layer's config. What acts in training only, or does
# not change a number, is left out; an entry that Keras adds is neither.
CARRIED_OVER = (
    "name",
    "units",
    "use_bias",
    "return_sequences",
    "return_state",
    "go_backwards",
    "stateful",
    "zero_output_for_mask",
)
CONVERTED = ("activation", "dtype")
LEFT_OUT = (
    "trainable",
    "unroll",
    "kernel_initializer",
    "recurrent_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "recurrent_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "kernel_constraint",
    "recurrent_constraint",
    "bias_constraint",
    "dropout",
    "recurrent_dropout",
)


def quantized(name: str, values: Any, fractional_bits: int, dtype: str) -> NDArray[Any]:
    """The integers nearest to `values * 2**fractional_bits`, of two the even one.

    Args:
        name: What the message names.
        values: Array of real numbers.
        fractional_bits: Integer from 0 on.
        dtype: `"int32"` or `"int64"`.

    Raises:
        ValueError: If one of them does not fit `dtype`, or is NaN.
    """
    scaled = np.rint(np.asarray(values, "float64") * 2.0**fractional_bits)
    limit = 2.0 ** (int(dtype[3:]) - 1)
    if not np.all((scaled >= -limit) & (scaled < limit)):
        raise ValueError(
            f"`{name}` must fit {dtype} with {fractional_bits} fractional bits. "
            f"Received: numbers of size {np.max(np.abs(values)):.6g}"
        )
    return scaled.astype(dtype)


def convert(
    layer_class: Any,
    layer: Any,
    fractional_bits: int,
    calibration: Any,
    dtype: str,
    options: Any,
) -> Any:
    """`layer_class.from_simple_rnn`; `options` is the dictionary of its keywords."""
    _check_layer(layer)
    activation = _checked_activation(layer.cell)
    if not layer.built:
        raise ValueError("`layer` must be built: it has no weights to convert")
    if not isinstance(fractional_bits, int) or fractional_bits < 0:
        raise ValueError(
            "`fractional_bits` must be an integer from 0 on. "
            f"Received: fractional_bits={fractional_bits!r}"
        )
    config = layer.get_config()
    _check_config(config)
    options = {n: config[n] for n in CARRIED_OVER if n in config} | options
    options |= {"activation": activation, "dtype": dtype}
    layer_class(**options)  # what is wrong with the options is no matter of bits
    weights = {w.name: np.asarray(w.value, "float64") for w in layer.weights}
    if calibration is not None:
        calibration = np.asarray(calibration, "float64")
    states = _float_states(calibration, weights, activation, config["go_backwards"])

    def attempt(bits: int) -> Any:
        integers = _quantized_weights(weights, bits, dtype)
        deviation = None
        if calibration is not None:
            deviation = _deviation(
                quantized("calibration", calibration, bits, dtype),
                integers,
                states,
                activation=activation,
                reverse=config["go_backwards"],
                fractional_bits=bits,
            )
        result = layer_class(**options, fractional_bits=bits)
        batch_size = layer.states[0].shape[0] if layer.stateful else None
        result.build((batch_size, None, len(weights["kernel"])))
        result.set_weights(list(integers.values()))
        result.largest_deviation = deviation
        return result

    try:
        return attempt(fractional_bits)
    except (ValueError, OverflowError) as error:
        reason = str(error)
    raise ValueError(
        f"`fractional_bits={fractional_bits}` are too many for {dtype}: {reason}. "
        + _advice(attempt, fractional_bits)
    )


def _advice(attempt: Any, too_many: int) -> str:
    """How many bits would fit: the most that do."""
    for bits in range(min(too_many, 64) - 1, -1, -1):
        try:
            attempt(bits)
        except (ValueError, OverflowError):
            continue
        return f"`fractional_bits={bits}` would fit"
    return "No number of bits would fit"


def _check_layer(layer: keras.layers.SimpleRNN) -> None:
    """Raises ValueError unless `layer` computes what `keras.layers.SimpleRNN` does, by
    what it holds, not by what it is called."""
    plain = keras.layers.SimpleRNN
    if type(layer) is not plain:
        hint = ""
        if isinstance(layer, plain):
            hint = (
                ". A subclass may compute something else: if it does not, convert "
                "`keras.layers.SimpleRNN` with its options and weights"
            )
        raise ValueError(
            "`layer` must be a `keras.layers.SimpleRNN`. "
            f"Received: layer={type(layer).__name__}{hint}"
        )
    cell = layer.cell
    if type(cell) is not keras.layers.SimpleRNNCell:
        raise ValueError(
            "`layer` must have a `keras.layers.SimpleRNNCell`. "
            f"Received: layer.cell={type(cell).__name__}"
        )
    for owner, which in ((layer, "layer"), (cell, "layer.cell")):
        for name in ("call", "inner_loop", "get_initial_state"):
            if name in vars(owner):
                raise ValueError(
                    "`layer` must compute what `keras.layers.SimpleRNN` does. "
                    f"Received: {which} with a `{name}` of its own"
                )
        if getattr(owner.dtype_policy, "quantization_mode", None) is not None:
            raise ValueError(
                "`layer` must have weights of floats. "
                f"Received: {which}.dtype_policy={owner.dtype_policy.name}"
            )


def _check_config(config: dict) -> None:
    """Raises ValueError if an option is set that is not known here, or that Keras
    computes in two ways."""
    known = {*CARRIED_OVER, *CONVERTED, *LEFT_OUT}
    plain = keras.layers.SimpleRNN(1).get_config()
    for name in config.keys() - known:
        if config[name] != plain.get(name):
            raise ValueError(
                f"`layer` must not set `{name}`: what it does is not known in fixed "
                f"point. Received: {name}={config[name]!r}"
            )
    names = ("unroll", "go_backwards", "zero_output_for_mask", "return_sequences")
    if all(config.get(name) for name in names):
        raise ValueError(
            "`layer` must not be unrolled if it goes backwards and outputs zeros for "
            "masked steps: Keras would give zeros for other steps than without "
            "unroll. Set layer.unroll = False"
        )


def _checked_activation(cell: keras.layers.SimpleRNNCell) -> str | None:
    """The name of a float cell's activation in an integer one."""
    activation = cell.activation
    name = getattr(activation, "__name__", type(activation).__name__)
    if name not in ACTIVATIONS:
        raise ValueError(
            f"`layer` must have the activation 'relu' or 'linear': of {name!r} there "
            "is no exact integer form"
        )
    if activation is not getattr(keras.activations, name):
        raise ValueError(
            "`layer` must have the activation `keras.activations.relu` or `linear`. "
            f"Received: another function that is called {name!r}, of the module "
            f"{getattr(activation, '__module__', None)}"
        )
    return ACTIVATIONS[name]


def _quantized_weights(weights: Any, bits: int, dtype: str) -> dict[str, NDArray[Any]]:
    """A product of two fixed-point numbers counts in units of `2**(-2 * bits)`: so
    must the bias that is added to it."""
    return {
        name: quantized(name, values, 2 * bits if name == "bias" else bits, dtype)
        for name, values in weights.items()
    }


def _float_states(x: Any, weights: Any, activation: str | None, reverse: bool) -> Any:
    """The states that the float layer goes through, in float64, in this order."""
    if x is None:
        return None
    bias = weights.get("bias", 0.0)
    state = np.zeros((len(x), len(weights["recurrent_kernel"])))
    states = np.zeros((*x.shape[:2], state.shape[1]))
    order = range(x.shape[1] - 1, -1, -1) if reverse else range(x.shape[1])
    for step, t in enumerate(order):
        state = x[:, t] @ weights["kernel"] + state @ weights["recurrent_kernel"] + bias
        state = np.maximum(state, 0.0) if activation == "relu" else state
        states[:, step] = state
    return states


def _deviation(inputs: Any, integers: Any, states: Any, **options: Any) -> float:
    """The largest deviation of the integer states from float ones. OverflowError if
    one does not fit, whatever the layer does then."""
    got = ops.integer_rnn(inputs, **integers, return_sequences=True, **options)
    got = np.asarray(got) / 2.0 ** options["fractional_bits"]
    return float(np.max(np.abs(got - states), initial=0.0))
