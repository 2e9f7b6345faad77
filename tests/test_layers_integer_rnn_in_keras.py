"""What Keras does around `IntegerRNN`: refused where we can, and remedies that work
where only Keras could."""

import keras
import numpy as np
import pytest

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
