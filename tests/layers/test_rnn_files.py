"""Files of models with our recurrent layers, and of models with Keras's."""

import keras
import numpy as np
import processes
import pytest
from checks import run_python
from recurrent_checks import NAMES

import hw3tf


def model_of(module, name, **options):
    layer = getattr(module, name)
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(20, 4, mask_zero=True),
            keras.layers.Bidirectional(layer(6, return_sequences=True, **options)),
            layer(5, **options),
        ]
    )


IDS = np.array([[1, 2, 3, 4], [5, 6, 0, 0]], "int32")


@pytest.mark.parametrize("name", NAMES)
def test_saved_model_comes_back(name, tmp_path, rnn_calls):
    model = model_of(hw3tf.layers, name, dropout=0.2, seed=3)
    wanted = model(IDS)
    model.save(tmp_path / "model.keras")
    del rnn_calls[:]
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[-1]) is getattr(hw3tf.layers, name)
    assert type(loaded.layers[1].forward_layer) is getattr(hw3tf.layers, name)
    np.testing.assert_array_equal(loaded(IDS), wanted)
    assert len(rnn_calls) == 3


@pytest.mark.parametrize("ending", [".weights.h5", ".keras"])
@pytest.mark.parametrize("name", NAMES)
def test_weights_go_both_ways(name, ending, tmp_path):
    """A file of weights, and what is in a whole file, which Keras loads by the names of
    the layers."""
    modules = hw3tf.layers, keras.layers
    for one, other in (modules, modules[::-1]):
        written, read = model_of(one, name), model_of(other, name)
        path = tmp_path / f"{one.__name__}{ending}"
        if ending == ".keras":
            written.save(path)
        else:
            written.save_weights(path)
        read.load_weights(path)
        assert all(map(np.array_equal, written.get_weights(), read.get_weights()))
        np.testing.assert_allclose(written(IDS), read(IDS), rtol=1e-5, atol=1e-6)
        names = [[w.path.split("/", 1)[1] for w in m.weights] for m in (written, read)]
        assert names[0] == names[1]


@pytest.mark.parametrize("name", NAMES)
def test_exported_model_runs_in_a_fresh_process(name, tmp_path):
    model = model_of(hw3tf.layers, name)
    np.save(tmp_path / "wanted.npy", model(IDS))
    model.export(tmp_path / "exported", verbose=False)
    code = f"""
import numpy as np
import tensorflow as tf
import hw3tf
loaded = tf.saved_model.load({str(tmp_path / "exported")!r})
for rows in (1, 2):
    got = loaded.serve(tf.constant({IDS.tolist()})[:rows])
    wanted = np.load({str(tmp_path / "wanted.npy")!r})[:rows]
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-7)
print("ran")
"""
    assert run_python(code, modules=processes.OTHERS).split()[-1] == "ran"
