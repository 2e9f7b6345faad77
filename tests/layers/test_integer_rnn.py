"""`hw3tf.layers.IntegerRNN`: Keras's conventions, and the numbers of the formula."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from checks import run_python
from integer_formula import OverflowAtError, integer_rnn

from hw3tf.layers import IntegerRNN, Logistic
from hw3tf.reference import IntegerRNNCell

BATCH, TIMESTEPS, FEATURES, UNITS = 4, 6, 2, 3


def with_weights(rng, size=5, features=FEATURES, **options):
    """A layer with random integer weights, and these."""
    layer = IntegerRNN(UNITS, **options)
    layer.build((BATCH, None, features))
    weights = [rng.integers(-size, size + 1, w.shape) for w in layer.weights]
    layer.set_weights(weights)
    return layer, [w.astype(layer.compute_dtype) for w in weights]


def sequences(rng, dtype="int32", size=9):
    return rng.integers(-size, size + 1, (BATCH, TIMESTEPS, FEATURES), dtype)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_bias": False},
        {"activation": "relu"},
        {"activation": "sign"},
        {"activation": "clip", "clip": (-4, 30)},
        {"go_backwards": True},
        {"overflow": "wrap"},
        {"overflow": "saturate"},
        {"fractional_bits": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("return_sequences", [False, True], ids=["last", "all"])
def test_states_are_those_of_the_formula(return_sequences, options, dtype, path, rng):
    """With a mask and an initial state; policies with weights that make them act."""
    policy = options.get("overflow", "raise")
    size = 5 if policy == "raise" else 2 ** (int(dtype[3:]) - 2)
    layer, weights = with_weights(
        rng, size, dtype=dtype, return_sequences=return_sequences, return_state=True,
        **options,
    )  # fmt: skip
    x = sequences(rng, dtype)
    state = rng.integers(-5, 6, (BATCH, UNITS), dtype)
    mask = rng.random((BATCH, TIMESTEPS)) < 0.7
    named = {**options, "reverse": options.get("go_backwards", False)}
    named.pop("go_backwards", None), named.pop("use_bias", None)
    bias = weights[2] if layer.cell.use_bias else None
    want = integer_rnn(
        x, *weights[:2], bias, state, mask, **named, return_sequences=True
    )
    output, last = layer(x, initial_state=state, mask=mask)
    assert output.dtype == last.dtype == dtype
    np.testing.assert_array_equal(last, want[:, -1])
    np.testing.assert_array_equal(output, want if return_sequences else want[:, -1])


@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True], ids=["last", "all"])
def test_layer_is_keras_rnn_of_the_reference_cell(return_sequences, go_backwards, rng):
    """Without a mask. (Keras begins a masked sequence with zeros as output.)"""
    options = {"return_sequences": return_sequences, "go_backwards": go_backwards}
    ours, weights = with_weights(rng, **options)
    cell = IntegerRNNCell(UNITS, name="integer_rnn_cell")
    theirs = keras.layers.RNN(cell, dtype="int32", **options)
    theirs.build((None, None, FEATURES))
    theirs.set_weights(weights)
    x = sequences(rng)
    np.testing.assert_array_equal(ours(x), theirs(x))


def test_weights_file_of_a_model_loads_into_another(tmp_path, rng):
    def model():
        x = keras.Input((None, FEATURES), dtype="int32")
        return keras.Model(x, IntegerRNN(UNITS, dtype="int64")(x))

    source, target = model(), model()
    high = 2**62
    source.set_weights([rng.integers(-high, high, w.shape) for w in source.weights])
    source.save_weights(tmp_path / "a.weights.h5")
    target.load_weights(tmp_path / "a.weights.h5")
    for a, b in zip(source.weights, target.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("return_state", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("timesteps", [0, 1, 5])
def test_symbolic_shapes_and_dtypes_are_the_eager_ones(
    timesteps, return_sequences, return_state
):
    layer = IntegerRNN(
        UNITS,
        return_sequences=return_sequences,
        return_state=return_state,
        dtype="int64",
    )
    symbolic = layer(keras.Input((timesteps, FEATURES), dtype="int8"))
    eager = layer(np.ones((2, timesteps, FEATURES), "int8"))
    if not return_state:
        symbolic, eager = [symbolic], [eager]
    assert len(symbolic) == len(eager) == 1 + return_state
    for a, b in zip(symbolic, eager, strict=True):
        assert a.shape == (None, *b.shape[1:])
        assert a.dtype == b.dtype == "int64"


@pytest.mark.parametrize("timesteps", [0, None], ids=["known", "unknown"])
def test_without_steps_the_last_state_is_the_first(timesteps, rng):
    layer, _ = with_weights(rng, return_sequences=True, return_state=True)
    inputs = keras.Input((timesteps, FEATURES), dtype="int32")
    first = keras.Input((UNITS,), dtype="int32")
    model = keras.Model([inputs, first], layer(inputs, initial_state=first))
    state = rng.integers(-5, 6, (BATCH, UNITS), "int32")
    empty = np.zeros((BATCH, 0, FEATURES), "int32")
    output, last = model.predict_on_batch([empty, state])
    assert output.shape == (BATCH, 0, UNITS)
    np.testing.assert_array_equal(last, state)


def test_empty_batch_passes(rng):
    layer, _ = with_weights(rng)
    assert layer(np.zeros((0, 3, FEATURES), "int32")).shape == (0, UNITS)


def test_stateful_layer_goes_on_where_it_stopped(rng):
    layer, weights = with_weights(rng, stateful=True, activation="clip", clip=(-50, 50))
    x = sequences(rng)
    options = {"activation": "clip", "clip": (-50, 50)}
    for _ in range(2):
        first = layer(x[:, :2])
        np.testing.assert_array_equal(first, integer_rnn(x[:, :2], *weights, **options))
        np.testing.assert_array_equal(
            layer(x[:, 2:]), integer_rnn(x, *weights, **options)
        )
        layer.reset_states()
    with pytest.raises(ValueError, match="`initial_state` must have shape"):
        layer(x[:1])


@keras.saving.register_keras_serializable(package="hw3tf_tests")
class ToIntegers(keras.layers.Layer):
    """1000 times its input, as integers; passes masks on."""

    supports_masking = True

    def call(self, x):
        return keras.ops.cast(x * 1000, "int32")


def test_mask_of_an_embedding_arrives_and_is_passed_on(rng):
    """To the second layer, which sums the states of the steps that are there."""
    tokens = np.array([[3, 1, 0, 2], [1, 0, 0, 0]], "int32")
    inputs = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(4, 2, mask_zero=True)(inputs)
    x = ToIntegers(dtype="int32", autocast=False)(embedded)
    layer, weights = with_weights(rng, return_sequences=True)
    last, _ = with_weights(rng, features=UNITS)
    last.set_weights([np.ones((UNITS, UNITS)), np.eye(UNITS), np.zeros(UNITS)])
    states = layer(x)
    model = keras.Model(inputs, [x, states, last(states)])
    x, states, total = model(tokens)
    want = integer_rnn(x, *weights, mask=tokens != 0, return_sequences=True)
    np.testing.assert_array_equal(states, want)
    seen = np.where((tokens != 0)[:, :, None], want, 0)
    np.testing.assert_array_equal(total, seen.sum(axis=(1, 2))[:, None].repeat(3, 1))
    assert IntegerRNN(2).compute_mask(None, tokens != 0) is None


@pytest.mark.parametrize("go_backwards", [False, True])
def test_zero_output_for_mask_is_zero_and_keeps_the_state(go_backwards, rng):
    options = {"return_sequences": True, "return_state": True}
    options["go_backwards"] = go_backwards
    layer, weights = with_weights(rng, zero_output_for_mask=True, **options)
    x, mask = sequences(rng), rng.random((BATCH, TIMESTEPS)) < 0.6
    output, last = layer(x, mask=mask)
    want = integer_rnn(
        x, *weights, mask=mask, reverse=go_backwards, return_sequences=True
    )
    np.testing.assert_array_equal(last, want[:, -1])
    shown = mask[:, ::-1] if go_backwards else mask
    np.testing.assert_array_equal(output, np.where(shown[:, :, None], want, 0))


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_bidirectional_runs_both_ways(return_sequences, masked, rng):
    inner, _ = with_weights(rng, return_sequences=return_sequences)
    layer = keras.layers.Bidirectional(inner, dtype="int32")
    x = sequences(rng)
    layer.build(x.shape)
    weights = [rng.integers(-5, 6, w.shape, "int32") for w in layer.weights]
    layer.set_weights(weights)
    mask = rng.random((BATCH, TIMESTEPS)) < 0.7 if masked else None
    got = layer(x, mask=mask)
    assert got.dtype == "int32"
    options = {"mask": mask, "return_sequences": return_sequences}
    there = integer_rnn(x, *weights[:3], **options)
    back = integer_rnn(x, *weights[3:], **options, reverse=True)
    if return_sequences:
        want = np.concatenate([there, back[:, ::-1]], axis=-1)
        want = want if mask is None else want * mask[:, :, None]
    else:
        want = np.concatenate([there, back], axis=-1)
    np.testing.assert_array_equal(got, want)


def test_time_distributed_runs_every_sequence_of_sequences(rng):
    inner, weights = with_weights(rng)
    x = rng.integers(-5, 6, (2, 5, 4, FEATURES), "int32")
    want = [integer_rnn(x[:, i], *weights) for i in range(5)]
    for timesteps in (5, None):
        inputs = keras.Input((timesteps, 4, FEATURES), dtype="int32")
        layer = keras.layers.TimeDistributed(inner, dtype="int32")
        model = keras.Model(inputs, layer(inputs))
        got = model.predict(x, verbose=0)
        assert got.dtype == "int32"
        np.testing.assert_array_equal(got, np.stack(want, axis=1))


def test_float_head_learns_in_fit(path, rng):
    """The sign of the alternating sum, from the exact states: the head trains, the
    integers stay."""
    inputs = keras.Input((None, 1), dtype="int8")
    layer = IntegerRNN(1, recurrent_initializer=keras.initializers.Identity(-1))
    states = layer(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(Logistic(gain=0.2)(states)))
    before = [np.array(w) for w in layer.weights]
    model.compile(keras.optimizers.Adam(0.1), "mse")
    x = rng.integers(-9, 10, (64, 8, 1), "int8")
    y = np.sign(integer_rnn(x, *before)).astype("float32")
    losses = model.fit(x, y, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 2
    assert len(model.trainable_weights) == 2
    for w, old in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(w, old)


def test_overflow_raises_and_says_where(path, rng):
    """Eagerly and in `predict`; the state of a stateful layer stays as it was."""
    layer = IntegerRNN(1, stateful=True)
    model = keras.Sequential([keras.Input(batch_shape=(2, 3, 1), dtype="int32"), layer])
    x = np.zeros((2, 3, 1), "int32")
    x[1, 1:] = 2**30  # twice is one too many
    with pytest.raises(OverflowAtError) as place:
        integer_rnn(x, np.ones((1, 1)), np.ones((1, 1)))
    assert place.value.args == (1, 2)
    where = "in batch entry 1 at timestep 2"
    with pytest.raises(OverflowError, match=where):
        layer(x)
    with pytest.raises(tf.errors.InvalidArgumentError, match=where):
        model.predict_on_batch(x)
    np.testing.assert_array_equal(layer.states[0], np.zeros((2, 1)))


OPTIONS = {
    "units": 3,
    "activation": "clip",
    "clip": (-100, 200),
    "kernel_initializer": keras.initializers.RandomUniform(-3, 4, seed=1),
    "return_sequences": True,
    "return_state": True,
    "go_backwards": True,
    "overflow": "saturate",
    "fractional_bits": 4,
    "zero_output_for_mask": True,
    "dtype": "int64",
    "name": "a",
}


def test_config_says_everything(rng):
    layer = IntegerRNN(**OPTIONS)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    config = layer.get_config()
    assert again.get_config() == config
    assert {k: config[k] for k in ("units", "clip", "overflow")} == {
        "units": 3,
        "clip": (-100, 200),
        "overflow": "saturate",
    }
    x = sequences(rng)
    for a, b in zip(layer(x), again(x), strict=True):
        assert a.dtype == "int64"
        np.testing.assert_array_equal(a, b)


def test_saved_and_exported_models_run_in_a_fresh_process(tmp_path, rng):
    inputs = keras.Input((None, FEATURES), dtype="int32")
    y = IntegerRNN(2, activation="relu", return_sequences=True)(inputs)
    y = keras.layers.Bidirectional(IntegerRNN(2, fractional_bits=1), dtype="int32")(y)
    model = keras.Model(inputs, [y, Logistic(gain=0.01)(y)])
    model.set_weights([rng.integers(-3, 4, w.shape) for w in model.weights])
    x = sequences(rng)
    states, probabilities = model(x)
    np.savez(tmp_path / "data.npz", x=x, states=states, probabilities=probabilities)
    model.save(tmp_path / "model.keras")
    model.export(tmp_path / "exported", verbose=False)
    code = f"""
import keras, numpy as np, tensorflow as tf
import hw3tf
data = np.load(r"{tmp_path / "data.npz"}")
loaded = keras.models.load_model(r"{tmp_path / "model.keras"}")
exported = tf.saved_model.load(r"{tmp_path / "exported"}")
for function in (loaded, exported.serve):
    states, probabilities = function(data["x"])
    np.testing.assert_array_equal(states, data["states"])
    np.testing.assert_array_equal(probabilities, data["probabilities"])
huge = np.full_like(data["x"], 2**30)
try:
    exported.serve(huge)
except tf.errors.InvalidArgumentError as error:
    assert "overflows int32 in batch entry 0" in str(error), error
    print("equal, and raises")
"""
    assert run_python(code).endswith("equal, and raises\n")
