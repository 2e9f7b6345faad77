"""Exported models in processes with hw3tf, with its op library alone, or without."""

import pathlib
import shutil
import subprocess

import keras
import numpy as np
import processes
import pytest
from checks import run_python

import hw3tf
from hw3tf.__main__ import main

# Tolerance between a graph and the same graph in another process: TensorFlow may
# rewrite products when it loads one; the numbers are near 1.
ATOL = 1e-5
EXAMPLE = pathlib.Path(__file__).parents[2] / "docs" / "serving.cc"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with an accelerated model, the same restored, inputs and outputs."""
    folder = tmp_path_factory.mktemp("exported")
    x = keras.Input((None, 8))
    y = keras.layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)
    model = keras.Model(x, keras.layers.Dense(3)(x + y))
    inputs = np.random.default_rng(0).standard_normal((2, 9, 8), np.float32)
    np.savez(folder / "data.npz", inputs=inputs, want=model(inputs))
    hw3tf.accelerate(model)
    model.export(folder / "accelerated", verbose=False)
    hw3tf.restore(model)
    model.export(folder / "restored", verbose=False)
    return folder


def run(folder, name, before):
    """Loads `name` in a fresh process after `before`; says whether it is right."""
    code = f"""
import sys
import numpy as np, tensorflow as tf
{before}
data = np.load(r"{folder / "data.npz"}")
try:
    model = tf.saved_model.load(r"{folder / name}")
except Exception as error:
    print(type(error).__name__, error)
    sys.exit()
np.testing.assert_allclose(model.serve(data["inputs"]), data["want"], atol={ATOL})
graph = model.signatures["serving_default"].graph.as_graph_def()
names = {{n.op for f in graph.library.function for n in f.node_def}}
print("equal", "Hw3tfAttention" in names, "hw3tf" in sys.modules)
"""
    return run_python(code, modules=processes.OTHERS).splitlines()[-1]


def test_accelerated_model_is_served_after_the_import(exported):
    assert run(exported, "accelerated", "import hw3tf") == "equal True True"


def test_accelerated_model_is_served_by_the_op_library_alone(exported, tmp_path):
    """The two libraries in a folder of their own, without hw3tf's Python."""
    path = pathlib.Path(hw3tf.op_library_path())
    for library in path.parent.glob("libhw3tf_*"):
        shutil.copy(library, tmp_path)
    before = f'tf.load_op_library(r"{tmp_path / path.name}")'
    assert run(exported, "accelerated", before) == "equal True False"


def test_accelerated_model_without_the_ops_is_refused(exported):
    assert "Hw3tfAttention" in run(exported, "accelerated", "")


def test_accelerated_model_is_served_by_a_cpp_program(exported, tmp_path):
    """docs/serving.cc, compiled against the installed TensorFlow."""
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    compiler = shutil.which("g++") or shutil.which("clang++")
    assert compiler, "the extension was built with one"
    folder = pathlib.Path(tf.__file__).parent
    program = tmp_path / "serving"
    warnings = ["-Wall", "-Wextra", "-Wconversion", "-Werror"]
    libraries = ["libtensorflow_cc.so.2", "libtensorflow_framework.so.2"]
    subprocess.run(
        [compiler, "-std=c++17", *warnings, EXAMPLE, "-o", program]
        + ["-isystem", folder / "include", f"-L{folder}", f"-Wl,-rpath,{folder}"]
        + [f"-l:{name}" for name in libraries],
        check=True,
    )
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((exported / "accelerated/saved_model.pb").read_bytes())
    signature = saved.meta_graphs[0].signature_def["serving_default"]
    ends = [*signature.inputs.values(), *signature.outputs.values()]
    names = [end.name.removesuffix(":0") for end in ends]
    data = np.load(exported / "data.npz")
    command = [program, hw3tf.op_library_path(), exported / "accelerated", *names]
    done = subprocess.run(
        [*command, "2,9,8"], input=data["inputs"].tobytes(), capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    output = np.frombuffer(done.stdout, np.float32).reshape(2, 9, 3)
    np.testing.assert_allclose(output, data["want"], atol=ATOL)

    done = subprocess.run(
        [program, tmp_path / "none.so", *command[2:], "2,9,8"], capture_output=True
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"serving: the library: " in done.stderr


def test_restored_model_is_served_without_hw3tf(exported):
    assert run(exported, "restored", "") == "equal False False"


def test_op_library_is_printed_and_loads_once(capsys):
    main(["--op-library"])
    printed = capsys.readouterr().out.strip()
    assert printed == hw3tf.op_library_path()
    assert pathlib.Path(printed).exists()
    assert hw3tf.load_op_library() is hw3tf.load_op_library()
    assert hasattr(hw3tf.load_op_library(), "hw3tf_attention")
