"""`IntegerRNN.from_simple_rnn`: from a float layer to fixed point."""

import keras
import numpy as np
import pytest
from integer_formula import integer_rnn

from hw3tf.layers import IntegerRNN

FEATURES, UNITS = 3, 5


def float_layer(rng, activation="relu", size=0.4, **options):
    layer = keras.layers.SimpleRNN(UNITS, activation=activation, **options)
    layer.build((None, None, FEATURES))
    layer.set_weights([size * rng.standard_normal(w.shape) for w in layer.weights])
    return layer


def formula_in_float64(x, weights, activation):
    weights = [w.astype("float64") for w in weights]
    state, states = np.zeros((len(x), UNITS)), []
    for t in range(x.shape[1]):
        state = x[:, t] @ weights[0] + state @ weights[1] + weights[2]
        state = np.maximum(state, 0) if activation == "relu" else state
        states.append(state)
    return np.stack(states, axis=1)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_deviation_is_measured_and_falls_with_the_bits(activation, dtype, rng):
    """Weights, and the deviation, as computed here; about half as much per bit."""
    layer = float_layer(rng, activation, return_sequences=True)
    x = rng.standard_normal((4, 9, FEATURES))
    want = formula_in_float64(x, layer.get_weights(), activation)
    deviations = []
    for bits in (6, 10, 14):
        fixed = IntegerRNN.from_simple_rnn(layer, bits, calibration=x, dtype=dtype)
        assert fixed.compute_dtype == dtype
        assert fixed.fractional_bits == bits
        integers = fixed.to_fixed_point(x)
        np.testing.assert_array_equal(integers, np.rint(x * 2**bits))
        scales = (bits, bits, 2 * bits)
        for w, old, b in zip(fixed.weights, layer.get_weights(), scales, strict=True):
            np.testing.assert_array_equal(w, np.rint(old.astype("float64") * 2**b))
        states = fixed(integers).numpy()
        np.testing.assert_array_equal(
            states,
            integer_rnn(
                integers,
                *fixed.get_weights(),
                activation="relu" if activation == "relu" else None,
                return_sequences=True,
                fractional_bits=bits,
            ),
        )
        assert fixed.largest_deviation == np.abs(states / 2.0**bits - want).max()
        np.testing.assert_array_equal(
            fixed.from_fixed_point(states), states / 2.0**bits
        )
        deviations.append(fixed.largest_deviation)
    assert 4 < deviations[0] / deviations[1] < 64
    assert 4 < deviations[1] / deviations[2] < 64


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("go_backwards", [False, True])
def test_options_of_the_float_layer_are_kept(go_backwards, use_bias, rng):
    layer = float_layer(
        rng,
        return_sequences=True,
        return_state=True,
        go_backwards=go_backwards,
        use_bias=use_bias,
        dropout=0.5,
        name="trained",
    )
    x = rng.standard_normal((2, 7, FEATURES)).astype("float32")
    fixed = IntegerRNN.from_simple_rnn(layer, 15, calibration=x, overflow="saturate")
    assert (fixed.name, fixed.overflow) == ("trained", "saturate")
    got = [fixed.from_fixed_point(y) for y in fixed(fixed.to_fixed_point(x))]
    for a, b in zip(got, layer(x), strict=True):
        # What float32 adds: sums of 8 numbers of size 1.
        np.testing.assert_allclose(a, b, atol=fixed.largest_deviation + 1e-6)
    assert 0 < fixed.largest_deviation < 1e-3


def test_stateful_layer_stays_stateful(rng):
    layer = keras.layers.SimpleRNN(UNITS, activation="relu", stateful=True)
    layer.build((2, None, FEATURES))
    fixed = IntegerRNN.from_simple_rnn(layer, 10)
    x = fixed.to_fixed_point(rng.standard_normal((2, 4, FEATURES)))
    last = fixed(x)
    np.testing.assert_array_equal(fixed.states[0], last)
    assert np.any(fixed(x) != last)


def test_converted_layer_survives_its_config(rng):
    fixed = IntegerRNN.from_simple_rnn(float_layer(rng), 12)
    assert fixed.largest_deviation is None
    again = IntegerRNN.from_config(fixed.get_config())
    again.build((None, None, FEATURES))
    again.set_weights(fixed.get_weights())
    x = fixed.to_fixed_point(rng.standard_normal((2, 4, FEATURES)))
    np.testing.assert_array_equal(again(x), fixed(x))


@pytest.mark.parametrize(
    ("what", "bits", "fitting"),
    [
        # 2**31 > 3 * 2**29, but not 3 * 2**30.
        ("kernel", 30, 29),
        ("recurrent_kernel", 40, 29),
        # Counts twice the bits: 3 * 2**28 fits, 3 * 2**30 does not.
        ("bias", 15, 14),
        ("calibration", 30, 29),
    ],
)
def test_what_does_not_fit_is_named_with_the_bits_that_would(what, bits, fitting, rng):
    layer = float_layer(rng, size=0.0)
    weights = {w.name: np.zeros(w.shape) for w in layer.weights}
    x = np.zeros((1, 2, FEATURES))
    (x if what == "calibration" else weights[what])[..., 0] = 3.0
    layer.set_weights(list(weights.values()))
    message = f"`fractional_bits={bits}` are too many for int32: `{what}` must fit.*"
    with pytest.raises(
        ValueError, match=message + f"`fractional_bits={fitting}` would"
    ):
        IntegerRNN.from_simple_rnn(layer, bits, calibration=x)
    fixed = IntegerRNN.from_simple_rnn(layer, fitting, calibration=x)
    assert fixed.largest_deviation == 0.0
    IntegerRNN.from_simple_rnn(layer, bits // 2, calibration=x, dtype="int64")


def test_states_that_do_not_fit_are_refused_whatever_the_policy(rng):
    """A sum of 1000 ones: 20 bits leave room for 2047, 21 bits for 1023."""
    layer = float_layer(rng, "linear", size=0.0, use_bias=False)
    layer.set_weights([np.eye(FEATURES, UNITS), np.eye(UNITS)])
    x = np.ones((1, 1100, FEATURES))
    message = "the recurrence overflows int32 in .*timestep 1023.*`fractional_bits=20`"
    for overflow in ("raise", "saturate"):
        with pytest.raises(ValueError, match=message):
            IntegerRNN.from_simple_rnn(layer, 21, calibration=x, overflow=overflow)
    fixed = IntegerRNN.from_simple_rnn(layer, 20, calibration=x)
    assert fixed.largest_deviation == 0.0


def test_layer_that_never_fits_is_refused(rng):
    layer = float_layer(rng)
    layer.set_weights([w + 3e9 for w in layer.get_weights()])
    with pytest.raises(ValueError, match="No number of bits would fit"):
        IntegerRNN.from_simple_rnn(layer, 0)


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        (keras.layers.SimpleRNN(2), {}, "'relu' or 'linear': of 'tanh'"),
        (keras.layers.SimpleRNN(2, activation="gelu"), {}, "of 'gelu'"),
        (keras.layers.SimpleRNN(2, activation="relu"), {}, "must be built"),
        (keras.layers.LSTM(2), {}, "must be a `keras.layers.SimpleRNN`.*LSTM"),
        (None, {"fractional_bits": -1}, "`fractional_bits` must be an integer from 0"),
        (None, {"fractional_bits": 1.5}, "`fractional_bits` must be an integer from 0"),
        (None, {"overflow": "no"}, "`overflow` must be one of"),
        (None, {"dtype": "float32"}, "`dtype` must be"),
    ],
)
def test_layers_and_options_that_cannot_be_converted_are_refused(
    layer, options, message, rng
):
    layer = layer or float_layer(rng)
    with pytest.raises(ValueError, match=message):
        IntegerRNN.from_simple_rnn(layer, **{"fractional_bits": 8, **options})


def test_values_outside_the_range_are_refused(rng):
    fixed = IntegerRNN.from_simple_rnn(float_layer(rng), 15)
    fixed.to_fixed_point([65535.9])
    for values in ([65536.0], [float("nan")]):
        with pytest.raises(ValueError, match="`values` must fit int32 with 15 frac"):
            fixed.to_fixed_point(values)
