"""Exports for runtimes that cannot load our ops: ONNX, LiteRT, OpenVINO, a server."""

import importlib.util
import pathlib
import re

import processes
import pytest
from checks import run_python

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "serving.md"
# Two programs compute the same products in other orders; the numbers are near 1.
ATOL = 1e-5

NAMES = ["accelerated", "ours", "grouped", "recurrent"]
MODELS = """
import os, sys
import keras, numpy as np, tensorflow as tf
import hw3tf

def made(layer, dtype="float32"):
    x = keras.Input((9, 8), dtype=dtype)
    alone = isinstance(layer, keras.layers.RNN)
    y = layer(x) if alone else layer(x, x, use_causal_mask=True)
    model = keras.Model(x, y)
    model(np.ones((1, 9, 8), dtype))  # Keras exports what has been called
    return model

stock = made(keras.layers.MultiHeadAttention(2, 4))
hw3tf.accelerate(stock)
models = {
    "accelerated": stock,
    "ours": made(hw3tf.layers.MultiHeadAttention(2, 4)),
    "grouped": made(hw3tf.layers.GroupQueryAttention(4, 4, 2)),
    # LiteRT alone has no list of tensors, which the loop of Keras needs.
    "recurrent": made(hw3tf.layers.LSTM(4, return_sequences=True, unroll=True)),
}
inputs = np.random.default_rng(0).standard_normal((3, 9, 8)).astype("float32")
"""


def code_of(section):
    """The Python code below a heading of the page."""
    text = PAGE.read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return code


def needs(*modules):
    for name in modules:
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            found = None
        if found is None:
            pytest.skip(f"{name} is not here")


# heading, what it needs, the converter of this Keras
RUNTIMES = [
    ("ONNX", ("onnxruntime", "tf2onnx"), "onnx"),
    ("LiteRT", (), "litert"),
    ("OpenVINO", ("openvino",), "openvino"),
]


@pytest.mark.parametrize(("section", "modules", "converter"), RUNTIMES)
def test_code_of_the_page_runs_and_is_right(section, modules, converter, tmp_path):
    needs(*modules, f"keras.src.export.{converter}")
    code = f"""
os.chdir({str(tmp_path)!r})
for name, model in models.items():
    want = model(inputs)
    exec({code_of(section)!r})
    np.testing.assert_allclose(outputs, want, atol={ATOL})
    assert np.array_equal(model(inputs), want)  # fused as before
    print(name)
"""
    printed = run_python(MODELS + code, HW3TF_PATH=None).splitlines()
    assert [x for x in printed if x in NAMES] == NAMES


def test_graph_for_a_server_has_no_op_of_ours(tmp_path):
    code = f"""
os.chdir({str(tmp_path)!r})
want = {{}}
for name, model in models.items():
    os.makedirs(name)
    os.chdir(name)
    exec({code_of("TensorFlow Serving")!r})
    np.savez("data.npz", inputs=inputs, want=model(inputs))
    os.chdir("..")
"""
    run_python(MODELS + code, HW3TF_PATH=None)
    for name in NAMES:
        code = f"""
import numpy as np, sys, tensorflow as tf
data = np.load({str(tmp_path / name / "data.npz")!r})
model = tf.saved_model.load({str(tmp_path / name / "models/sentiment/1")!r})
np.testing.assert_allclose(model.serve(data["inputs"]), data["want"], atol={ATOL})
assert "hw3tf" not in sys.modules
print("right")
"""
        assert run_python(code, modules=processes.OTHERS).splitlines()[-1] == "right"


def test_what_cannot_be_exported_raises_with_the_remedy(tmp_path):
    """The recurrence in every format; a function that was traced with the ops."""
    needs("tf2onnx", "keras.src.export.onnx", "keras.src.export.litert")
    code = f"""
os.chdir({str(tmp_path)!r})
def raised(function):
    try:
        function()
    except NotImplementedError as error:
        print(str(error).replace("\\n", " "))
rnn = made(hw3tf.layers.IntegerRNN(3), "int32")
for format, ending in (("onnx", "onnx"), ("litert", "tflite")):
    raised(lambda: rnn.export("rnn." + ending, format=format, verbose=False))
functions = []
for model, dtype in ((rnn, "int32"), (models["ours"], "float32")):
    signature = [tf.TensorSpec((None, 9, 8), dtype)]
    function = tf.function(model, input_signature=signature)
    function.get_concrete_function()
    functions.append((function, signature))
import tf2onnx
for function, signature in functions:
    convert = lambda: tf2onnx.convert.from_function(
        function, signature, output_path="function.onnx")
    raised(convert)
print(os.listdir())
"""
    *errors, files = run_python(MODELS + code, HW3TF_PATH=None).splitlines()[-5:]
    assert files == "[]"
    for error, runtime in zip(errors[:3], ("ONNX", "LiteRT", "ONNX"), strict=True):
        assert f"recurrence cannot be exported to {runtime}, which lacks" in error
        assert "A SavedModel, `model.export(path)`, keeps it" in error
    assert "ONNX has no Hw3tfAttention, the op of hw3tf" in errors[3]
    assert "Call `hw3tf.restore(model)` first" in errors[3]
