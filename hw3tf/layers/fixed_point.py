"""From a float recurrence to fixed point, in NumPy: what
`hw3tf.layers.IntegerRNN.from_simple_rnn` does."""

import keras
import numpy as np

from hw3tf import ops

ACTIVATIONS = {"relu": "relu", "linear": None}


def quantized(name, values, fractional_bits, dtype):
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


def convert(layer_class, layer, fractional_bits, calibration, dtype, options):
    """`layer_class.from_simple_rnn`; `options` is the dictionary of its keywords."""
    activation = _checked_activation(layer)
    if not isinstance(fractional_bits, int) or fractional_bits < 0:
        raise ValueError(
            "`fractional_bits` must be an integer from 0 on. "
            f"Received: fractional_bits={fractional_bits!r}"
        )
    config = layer.get_config()
    copied = ("name", "units", "use_bias", "return_sequences", "return_state")
    copied += ("go_backwards", "stateful")
    options = {name: config[name] for name in copied} | options
    options |= {"activation": activation, "dtype": dtype}
    layer_class(**options)  # what is wrong with the options is no matter of bits
    weights = {w.name: np.asarray(w.value, "float64") for w in layer.weights}
    if calibration is not None:
        calibration = np.asarray(calibration, "float64")
    states = _float_states(calibration, weights, activation, config["go_backwards"])

    def attempt(bits):
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


def _advice(attempt, too_many):
    """How many bits would fit: the most that do."""
    for bits in range(min(too_many, 64) - 1, -1, -1):
        try:
            attempt(bits)
        except (ValueError, OverflowError):
            continue
        return f"`fractional_bits={bits}` would fit"
    return "No number of bits would fit"


def _checked_activation(layer):
    """The name of a float layer's activation in an integer one."""
    if not isinstance(layer, keras.layers.SimpleRNN):
        raise ValueError(
            "`layer` must be a `keras.layers.SimpleRNN`. "
            f"Received: layer={type(layer).__name__}"
        )
    name = getattr(layer.activation, "__name__", str(layer.activation))
    if name not in ACTIVATIONS:
        raise ValueError(
            f"`layer` must have the activation 'relu' or 'linear': of {name!r} there "
            "is no exact integer form"
        )
    if not layer.built:
        raise ValueError("`layer` must be built: it has no weights to convert")
    return ACTIVATIONS[name]


def _quantized_weights(weights, bits, dtype):
    """A product of two fixed-point numbers counts in units of `2**(-2 * bits)`: so
    must the bias that is added to it."""
    return {
        name: quantized(name, values, 2 * bits if name == "bias" else bits, dtype)
        for name, values in weights.items()
    }


def _float_states(x, weights, activation, reverse):
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


def _deviation(inputs, integers, states, **options):
    """The largest deviation of the integer states from float ones. OverflowError if
    one does not fit, whatever the layer does then."""
    got = ops.integer_rnn(inputs, **integers, return_sequences=True, **options)
    got = np.asarray(got) / 2.0 ** options["fractional_bits"]
    return float(np.max(np.abs(got - states), initial=0.0))
