"""`IntegerRNN.from_simple_rnn`: from a float layer to fixed point."""

import inspect
import itertools

import keras
import numpy as np
import pytest
from integer_formula import integer_rnn

from hw3tf.layers import IntegerRNN, from_simple_rnn

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


# Arguments that change what a layer computes, each with what is not the default.
COMPUTED = {
    "use_bias": False,
    "return_sequences": True,
    "return_state": True,
    "go_backwards": True,
    "zero_output_for_mask": True,
    "unroll": True,
    "stateful": True,
}
# What acts in training only, or not at all on the numbers.
WITHOUT_EFFECT = {
    "kernel_initializer": "ones",
    "recurrent_initializer": "ones",
    "bias_initializer": "ones",
    "kernel_regularizer": "l2",
    "recurrent_regularizer": "l2",
    "bias_regularizer": "l2",
    "activity_regularizer": "l2",
    "kernel_constraint": "non_neg",
    "recurrent_constraint": "non_neg",
    "bias_constraint": "non_neg",
    "dropout": 0.5,
    "recurrent_dropout": 0.5,
    "seed": 1,
    "trainable": False,
    "autocast": False,
    "name": "trained",
    "dtype": "float64",
}


def test_no_argument_of_keras_is_unknown():
    """What Keras adds must be carried over, left out or refused: not overlooked."""
    names = set()
    for cls in (
        keras.layers.SimpleRNN,
        keras.layers.RNN,
        keras.layers.SimpleRNNCell,
        keras.layers.Layer,
    ):
        names |= set(inspect.signature(cls.__init__).parameters)
    names -= {"self", "kwargs", "cell", "units", "activation"}
    assert names == {*COMPUTED, *WITHOUT_EFFECT}
    config = set(keras.layers.SimpleRNN(1).get_config())
    known = (
        from_simple_rnn.CARRIED_OVER,
        from_simple_rnn.CONVERTED,
        from_simple_rnn.LEFT_OUT,
    )
    assert config <= set(itertools.chain(*known))


def converted_equals(layer, weights, rng, mask):
    """The outputs of both layers, twice: a stateful one goes on. Numbers are small
    multiples of 1/4 and 1/2, which both compute exactly."""
    layer.build((3, 6, FEATURES))
    layer.set_weights([w for w in weights if layer.use_bias or w.ndim == 2])
    fixed = IntegerRNN.from_simple_rnn(layer, 10, overflow="raise")
    assert fixed.name == layer.name
    for _ in range(2):
        x = rng.integers(-8, 9, (3, 6, FEATURES)) / 4
        wants, gots = layer(x, mask=mask), fixed(fixed.to_fixed_point(x), mask=mask)
        assert isinstance(gots, tuple) == isinstance(wants, tuple)
        wants = wants if isinstance(wants, tuple) else (wants,)
        gots = gots if isinstance(gots, tuple) else (gots,)
        for got, want in zip(gots, wants, strict=True):
            np.testing.assert_array_equal(fixed.from_fixed_point(got), want)


def small_weights(rng):
    """Halves; a recurrent kernel of -1, 0 and 1, so that no product is rounded."""
    return (
        rng.integers(-2, 3, (FEATURES, UNITS)) / 2,
        rng.permutation(np.eye(UNITS)) * rng.choice([-1, 1], UNITS),
        rng.integers(-4, 5, UNITS) / 4,
    )


@pytest.mark.parametrize("name", [*COMPUTED, *WITHOUT_EFFECT])
def test_every_argument_is_carried_over_or_without_effect(name, rng):
    options = {name: (COMPUTED | WITHOUT_EFFECT)[name]}
    activation = "linear" if name in COMPUTED else None
    layer = keras.layers.SimpleRNN(UNITS, activation=activation, **options)
    mask = rng.random((3, 6)) < 0.6
    mask[:, 0] = True  # before the first step that is not masked, Keras outputs zeros
    mask[0, -1] = False
    converted_equals(layer, small_weights(rng), rng, mask)


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
def test_arguments_are_carried_over_together(masked, rng):
    names = [n for n in COMPUTED if n not in ("unroll", "stateful")]
    for values in itertools.product([False, True], repeat=len(names)):
        options = {n: COMPUTED[n] for n, on in zip(names, values, strict=True) if on}
        layer = keras.layers.SimpleRNN(UNITS, activation="relu", **options)
        mask = rng.random((3, 6)) < 0.6 if masked else None
        converted_equals(layer, small_weights(rng), rng, mask)


def relu(x):
    return keras.ops.tanh(x)


def customised(**what):
    """A SimpleRNN with attributes of its own; `cell__x` is one of its cell."""
    layer = keras.layers.SimpleRNN(UNITS, activation="relu")
    layer.build((None, None, FEATURES))
    for name, value in what.items():
        owner = layer.cell if name.startswith("cell__") else layer
        setattr(owner, name.removeprefix("cell__"), value)
    return layer


def with_cell(cell):
    """A SimpleRNN whose cell is another."""
    layer = keras.layers.SimpleRNN(2, activation="relu")
    layer.cell = cell
    return layer


class OwnLayer(keras.layers.SimpleRNN):
    def call(self, sequences, **options):
        return 2 * super().call(sequences, **options)


class OwnCell(keras.layers.SimpleRNNCell):
    def call(self, sequence, states, training=False):
        return super().call(2 * sequence, states, training)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: keras.layers.SimpleRNN(2, activation=relu),
            f"another function that is called 'relu', of the module {__name__}",
        ),
        (
            lambda: keras.layers.SimpleRNN(2, activation=keras.layers.ReLU(1.0)),
            "must have the activation 'relu' or 'linear': of 'ReLU'",
        ),
        (
            lambda: keras.layers.SimpleRNN(2, activation="relu6"),
            "must have the activation 'relu' or 'linear': of 'relu6'",
        ),
        (lambda: OwnLayer(2), "layer=OwnLayer. A subclass may compute something else"),
        (lambda: with_cell(OwnCell(2, "relu")), "layer.cell=OwnCell"),
        (
            lambda: customised(call=lambda x, **_: x),
            "layer with a `call` of its own",
        ),
        (
            lambda: customised(cell__call=lambda x, states: (x, states)),
            "layer.cell with a `call` of its own",
        ),
        (lambda: customised(cell__activation=relu), "another function that is called"),
        (
            lambda: customised(get_config=lambda: NEWER_CONFIG),
            "must not set `layer_norm`.*layer_norm=True",
        ),
        (
            lambda: keras.layers.SimpleRNN(2, "relu", dtype="int8_from_float32"),
            "must have weights of floats.*int8_from_float32",
        ),
    ],
)
def test_what_computes_something_else_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        IntegerRNN.from_simple_rnn(make(), 8)


# As of a later Keras.
NEWER_CONFIG = keras.layers.SimpleRNN(UNITS).get_config() | {"layer_norm": True}


def test_unrolled_backwards_with_zeros_is_refused_with_a_remedy(rng):
    """Keras applies the mask in the wrong order there."""
    options = ("unroll", "go_backwards", "zero_output_for_mask", "return_sequences")
    layer = keras.layers.SimpleRNN(UNITS, "relu", **dict.fromkeys(options, True))
    layer.build((3, 6, FEATURES))
    with pytest.raises(ValueError, match=r"Set layer\.unroll = False"):
        IntegerRNN.from_simple_rnn(layer, 10)
    layer.unroll = False
    converted_equals(layer, small_weights(rng), rng, rng.random((3, 6)) < 0.6)


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
