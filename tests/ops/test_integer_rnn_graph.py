"""The integer recurrence in graphs, models and saved models, and its paths."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from checks import run_python
from integer_rnn_cases import arguments, assert_exact

from hw3tf import ops

ONES = np.ones((1, 1), "int64")


def static_shape(inputs, recurrent_kernel, **options):
    specs = [tf.TensorSpec(s, "int64") for s in (inputs, None, recurrent_kernel)]
    graph = tf.function(lambda *x: ops.integer_rnn(*x, **options), specs)
    shape = graph.get_concrete_function().outputs[0].shape
    return shape.as_list() if shape.rank is not None else None


def test_static_shapes(path):
    if path == "reference":
        return  # whatever Keras knows
    assert static_shape([2, 5, 3], [4, 4]) == [2, 4]
    assert static_shape([2, 5, 3], [4, 4], return_sequences=True) == [2, 5, 4]
    assert static_shape([None, None, 3], [4, 4]) == [None, 4]
    everything = {"return_sequences": True}
    assert static_shape([None, None, None], [4, 4], **everything) == [None, None, 4]
    assert static_shape(None, None) == [None, None]
    assert static_shape(None, None, **everything) == [None, None, None]


@pytest.mark.parametrize("sequences", [False, True], ids=["last", "all"])
def test_a_functional_model_has_shapes_and_dtypes(sequences, path, rng, tmp_path):
    given = arguments(rng, dtype="int64", size=5)
    kernel, recurrent_kernel = given["kernel"], given["recurrent_kernel"]
    inputs = keras.Input((None, 2), dtype="int16")
    weights = [keras.ops.convert_to_tensor(x) for x in (kernel, recurrent_kernel)]
    states = ops.integer_rnn(
        inputs, *weights, activation="clip", clip=(-9, 9), return_sequences=sequences
    )
    assert states.dtype == "int64"
    assert states.shape == ((None, None, 4) if sequences else (None, 4))
    model = keras.Model(inputs, states)
    want = ops.integer_rnn(
        given["inputs"],
        *weights,
        activation="clip",
        clip=(-9, 9),
        return_sequences=sequences,
    )
    np.testing.assert_array_equal(model(given["inputs"]), want)
    operation = model.operations[-1]
    copy = type(operation).from_config(operation.get_config())
    np.testing.assert_array_equal(copy(given["inputs"], *weights), want)


def test_int8_weights_give_an_int32_state(path, rng):
    given = arguments(rng, weight_dtype="int8", input_dtype="int8", size=5)
    assert not assert_exact(given)
    given["kernel"] = given["kernel"].astype("int32")
    assert ops.integer_rnn(**given).dtype == "int32"


def test_path_is_told_and_logged(path, caplog):
    call = {"inputs": ONES[None], "kernel": ONES, "recurrent_kernel": ONES}
    assert ops.integer_rnn_path(**call).path == path
    with caplog.at_level(logging.DEBUG, "hw3tf"):
        ops.integer_rnn(**call)
    assert f"integer_rnn takes the path {path} (" in caplog.text
    with pytest.raises(ValueError, match="`overflow` must be one of"):
        ops.integer_rnn_path(**call, overflow="never")


def test_a_saved_model_runs_in_a_new_process(tmp_path):
    module = tf.Module()
    module.run = tf.function(
        lambda x: ops.integer_rnn(x, ONES, -ONES, return_sequences=True),
        [tf.TensorSpec([None, None, 1], "int64")],
    )
    tf.saved_model.save(module, str(tmp_path))
    code = f"""
import hw3tf, tensorflow as tf
run = tf.saved_model.load(r"{tmp_path}").run
print(run(tf.constant([[[5], [1], [4]]], "int64")).numpy().tolist())
bad = tf.constant([[[tf.int64.min], [0]]])
try:
    run(bad)
except tf.errors.InvalidArgumentError as error:
    print(error.message)
"""
    out = run_python(code, HW3TF_PATH=None)
    assert "[[[5], [-4], [8]]]" in out
    assert "overflows int64 in batch entry 0 at timestep 1." in out
