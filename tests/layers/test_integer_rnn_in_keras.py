"""`IntegerRNN` inside Keras's wrappers and models: errors where the layer can raise
them, and the documented remedies where only Keras could."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hw3tf import ops, reference
from hw3tf.layers import IntegerRNN

LARGE = np.full((1, 2, 1), 2**29, "int32")  # the sum of two states is 2**31
MESSAGE = "combine the states of both directions in int32.*merge_mode=None.*int64"


def directions(mode, **options):
    dtype = options.pop("dtype", "int32")
    layer = IntegerRNN(1, **options)
    return keras.layers.Bidirectional(layer, merge_mode=mode, dtype=dtype)


def nested(layer):
    inner = keras.Sequential([keras.Input((2, 1), dtype="int32"), layer])
    return keras.Sequential([keras.Input((2, 1), dtype="int32"), inner])


class Own(keras.Model):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, x):
        return self.layer(x)


PLACES = {
    "eager": lambda layer: layer(LARGE),
    "sequential": lambda layer: keras.Sequential([layer]).predict(LARGE, verbose=0),
    "nested": lambda layer: nested(layer).predict(LARGE, verbose=0),
    "own model": lambda layer: Own(layer).predict(LARGE, verbose=0),
    "in time": lambda layer: keras.layers.TimeDistributed(layer, dtype="int32")(
        LARGE[None]
    ),
}


@pytest.mark.parametrize("mode", ["sum", "mul", "ave"])
@pytest.mark.parametrize("place", PLACES)
def test_directions_that_would_wrap_are_refused(place, mode):
    with pytest.raises(ValueError, match=MESSAGE + f".*merge_mode='{mode}'"):
        PLACES[place](directions(mode))


@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
def test_only_what_wraps_anyway_may_wrap(overflow):
    if overflow == "wrap":
        np.testing.assert_array_equal(
            directions("sum", overflow="wrap")(LARGE), [[-(2**31)]]
        )
    with pytest.raises(ValueError, match=MESSAGE):
        directions("ave", overflow=overflow)(LARGE)


def test_a_direction_is_asked_once_and_only_when_it_knows(monkeypatch):
    """Called by itself it cannot know; afterwards it is still refused."""
    layer = directions("sum")
    layer.forward_layer(LARGE)
    with pytest.raises(ValueError, match=MESSAGE):
        layer(LARGE)
    calls, flatten = [], keras.layers.Bidirectional._flatten_layers
    monkeypatch.setattr(
        keras.layers.Bidirectional,
        "_flatten_layers",
        lambda self, *args, **options: (
            calls.append(1) or flatten(self, *args, **options)
        ),
    )
    layer = directions("concat")
    layer(LARGE)
    assert len(calls) == 2  # once for each direction
    layer(LARGE)
    assert len(calls) == 2


def test_what_the_message_advises_gives_the_sum():
    apart = directions(None)(LARGE)
    np.testing.assert_array_equal(
        sum(keras.ops.cast(y, "int64") for y in apart), [[2**31]]
    )
    joined = keras.ops.cast(directions("concat")(LARGE), "int64")
    np.testing.assert_array_equal(keras.ops.sum(joined, axis=-1), [2**31])
    for mode, want in (("sum", 2**31), ("mul", 2**60), ("ave", 2**30)):
        assert directions(mode, dtype="float64")(LARGE) == [[float(want)]]


def test_a_saved_model_of_two_directions_is_refused_and_concat_loads(tmp_path):
    inputs = keras.Input((2, 1), dtype="int32")
    model = keras.Model(inputs, directions("concat")(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(LARGE), [[2**30, 2**30]])
    config = model.get_config()
    config["layers"][1]["config"]["merge_mode"] = "sum"
    changed = keras.Model.from_config(config)
    changed.set_weights(model.get_weights())  # these can be had
    changed.save(tmp_path / "changed.keras")
    loaded = keras.models.load_model(tmp_path / "changed.keras")
    for run in (loaded, lambda x: loaded.predict(x, verbose=0)):
        with pytest.raises(ValueError, match=MESSAGE):
            run(LARGE)


@pytest.mark.parametrize("merge", ["Add", "Multiply", "Average", "Dot"])
def test_merging_layers_wrap_unless_states_are_cast_before(merge):
    """Keras's to refuse; the docstring's remedy gives the exact number."""
    options = {"axes": 1} if merge == "Dot" else {}
    inputs = keras.Input((2, 1), dtype="int32")
    states = [IntegerRNN(1)(inputs) for _ in range(2)]
    wide = [keras.ops.cast(y, "int64") for y in states]
    layer = getattr(keras.layers, merge)(**options, dtype="int64")
    want = {"Add": 2**31, "Average": 2**30}.get(merge, 2**60)
    got = keras.Model(inputs, layer(wide)).predict(LARGE, verbose=0)
    np.testing.assert_array_equal(got, [[want]])


def test_floats_are_refused_in_a_model_of_ones_own():
    """Where Keras has no input of integers to cast them to."""
    model = Own(IntegerRNN(1))
    floats = np.full((2, 2, 1), 2.7, "float32")
    for run in (model, lambda x: model.predict(x, verbose=0)):
        with pytest.raises(TypeError, match="`sequences` must be integers"):
            run(floats)
    model = Own(IntegerRNN(1))
    with pytest.raises(TypeError, match="pass dtype='int64' to the layer"):
        model.predict(np.full((2, 2, 1), 2**40), verbose=0)
    wide = Own(IntegerRNN(1, dtype="int64"))
    got = wide.predict(np.full((2, 2, 1), 2**40), verbose=0)
    np.testing.assert_array_equal(got, [[2**41]] * 2)


# Layers that pass integers on as they are, and say float32 of their symbolic results.
BEFORE = {
    "Masking": lambda x, **dtype: keras.layers.Masking(3, **dtype)(x),
    "Concatenate": lambda x, **dtype: keras.layers.Concatenate(**dtype)([x, x]),
    "Add": lambda x, **dtype: keras.layers.Add(**dtype)([x, x]),
    "Cropping1D": lambda x, **dtype: keras.layers.Cropping1D(1, **dtype)(x),
    "ZeroPadding1D": lambda x, **dtype: keras.layers.ZeroPadding1D(1, **dtype)(x),
    "UpSampling1D": lambda x, **dtype: keras.layers.UpSampling1D(2, **dtype)(x),
    "MaxPooling1D": lambda x, **dtype: keras.layers.MaxPooling1D(2, **dtype)(x),
    "Activation": lambda x, **dtype: keras.layers.Activation("relu", **dtype)(x),
    "Lambda": lambda x, **dtype: keras.layers.Lambda(lambda y: 2 * y, **dtype)(x),
    "Rescaling": lambda x, **dtype: keras.layers.Rescaling(2, **dtype)(x),
    "Bidirectional": lambda x, **dtype: keras.layers.Bidirectional(
        IntegerRNN(2, return_sequences=True), **dtype
    )(x),
}


@pytest.mark.parametrize("name", BEFORE)
def test_a_layer_of_floats_before_is_named_with_a_remedy_that_works(name):
    inputs = keras.Input((4, 2), dtype="int32")
    message = f"They come from `{name}`.*given integers, dtype='int32' keeps them"
    with pytest.raises(TypeError, match=message):
        IntegerRNN(1)(BEFORE[name](inputs))
    before = keras.Model(inputs, BEFORE[name](inputs, dtype="int32"))
    model = keras.Model(inputs, IntegerRNN(1)(before.outputs[0]))
    x = np.arange(16).reshape(2, 4, 2).astype("int32")
    x[1, 2] = 3  # what Masking masks, and makes zeros of
    between = before(x).numpy()
    assert between.dtype == "int32"
    assert between.any()
    want = between.sum(axis=(1, 2))[:, None]
    np.testing.assert_array_equal(model.predict(x, verbose=0), want)


@pytest.mark.parametrize("name", ["Dropout", "SpatialDropout1D", "GaussianNoise"])
def test_dropout_before_is_told_to_move(name):
    """dtype='int32' would not help: in training they multiply by floats."""
    inputs = keras.Input((4, 2), dtype="int32")
    layer = getattr(keras.layers, name)
    with pytest.raises(
        TypeError, match=f"`{name}` needs floats.*behind the recurrence"
    ):
        IntegerRNN(1)(layer(0.5)(inputs))
    with pytest.raises((TypeError, ValueError)):
        layer(0.5, dtype="int32")(np.ones((1, 4, 2), "int32"), training=True)
    states = IntegerRNN(1, return_sequences=True)(inputs)
    dropped = layer(0.5)(keras.ops.cast(states, "float32"))
    model = keras.Model(inputs, keras.layers.Dense(1)(dropped))
    model.compile("sgd", "mse")
    model.fit(np.ones((2, 4, 2), "int32"), np.ones((2, 4, 1)), verbose=0)


def test_floats_by_nature_are_told_to_be_rounded():
    inputs = keras.Input((4, 2))
    y = keras.layers.Rescaling(1.5)(inputs)
    with pytest.raises(TypeError, match=r"cast\(keras.ops.round\(x\), 'int32'\)"):
        IntegerRNN(1)(y)
    rounded = keras.ops.cast(keras.ops.round(y), "int32")
    model = keras.Model(inputs, IntegerRNN(1)(rounded))
    np.testing.assert_array_equal(model(np.ones((1, 4, 2))), [[16]])


RAGGED = tf.ragged.constant([[[1], [2], [4]], [[8]]], ragged_rank=1, dtype="int32")
SPARSE = tf.sparse.from_dense(RAGGED.to_tensor())
ONE = tf.ones((1, 1), "int32")


@pytest.mark.parametrize("kind", ["ragged", "sparse"])
def test_ragged_and_sparse_tensors_are_named_with_what_to_do(kind):
    x = RAGGED if kind == "ragged" else SPARSE
    does = {"ragged": r"x\.to_tensor\(\).*sequence_mask", "sparse": "sparse.to_dense"}
    message = f"must be a dense tensor.*{does[kind]}.*a {kind} tensor"
    model = Own(IntegerRNN(1))
    functional = keras.Sequential([keras.Input((None, 1), dtype="int32"), model.layer])
    calls = {
        "sequences": (
            model.layer,
            lambda x: model.predict(x, verbose=0),
            # Keras makes a dense tensor of a sparse one there.
            functional if kind == "ragged" else model.layer,
            tf.function(model.layer),
            lambda x: model.layer(keras.Input((3, 1), dtype="int32", **{kind: True})),
        ),
        "inputs": (
            lambda x: ops.integer_rnn(x, ONE, ONE),
            lambda x: ops.integer_rnn_path(x, ONE, ONE),
            lambda x: reference.integer_rnn(x, ONE, ONE),
        ),
        "mask": (
            lambda x: ops.integer_rnn(LARGE, ONE, ONE, mask=x),
            lambda x: model.layer(LARGE, mask=x),
        ),
        "initial_state": (lambda x: model.layer(LARGE, initial_state=x),),
    }
    for name, runs in calls.items():
        for run in runs:
            with pytest.raises(TypeError, match=f"`{name}` {message}"):
                run(x)


def test_what_is_advised_for_ragged_and_sparse_tensors_gives_their_sums():
    mask = tf.sequence_mask(RAGGED.row_lengths())
    layer = IntegerRNN(1, return_sequences=True)
    got = layer(RAGGED.to_tensor(), mask=mask)
    np.testing.assert_array_equal(got[:, :, 0], [[1, 3, 7], [8, 8, 8]])
    np.testing.assert_array_equal(layer(tf.sparse.to_dense(SPARSE)), got)
