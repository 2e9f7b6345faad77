"""Libraries that meet in one process: the package imported again, copies of it in other
folders, kernels of another build."""

import pathlib
import re
import shutil
import sys
import textwrap

import processes
import pytest
from checks import run_python

import hw3tf
from hw3tf import _core

PACKAGE = pathlib.Path(_core.__file__).parent
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="its libraries end in .so")

START = """
import importlib, sys, tempfile
import keras, numpy as np, tensorflow as tf
import hw3tf

def import_again():
    for name in [n for n in sys.modules if n.partition(".")[0] == "hw3tf"]:
        del sys.modules[name]
    return importlib.import_module("hw3tf")

x = np.random.default_rng(0).standard_normal((2, 9, 2, 8)).astype("float32")
def output_and_gradient(package):
    y = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(y)
        z = package.ops.dot_product_attention(y, y, y, is_causal=True)
    return np.stack([z, tape.gradient(z, y)])
"""


@pytest.fixture
def copy(tmp_path):
    """The package in another folder."""
    shutil.copytree(PACKAGE, tmp_path / "hw3tf")
    return tmp_path / "hw3tf"


def run(code, **environment):
    return run_python(START + textwrap.dedent(code), **environment)


def test_package_imported_again_takes_the_same_paths():
    """`importlib.reload`, and an import after all modules are gone, twice: the ops,
    their gradients and XLA's calls are there once. What the first import made works."""
    code = """
    path = lambda package: package.ops.attention_path(x, x, x).path
    want, first = output_and_gradient(hw3tf), hw3tf
    inputs = keras.Input((4, 6))
    model = keras.Model(inputs, hw3tf.layers.MultiHeadAttention(2, 3)(inputs, inputs))
    for again in (importlib.reload(hw3tf), import_again(), import_again()):
        assert path(again) == "op"
        assert np.array_equal(output_and_gradient(again), want)
        compiled = tf.function(
            lambda y: again.ops.dot_product_attention(y, y, y, is_causal=True),
            jit_compile=True,
        )
        assert np.array_equal(compiled(x), want[0])
    assert again is not first and again.layers is not first.layers
    assert np.array_equal(output_and_gradient(first), want)
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder + "/model.keras")
        loaded = keras.models.load_model(folder + "/model.keras")
    assert isinstance(loaded.layers[-1], again.layers.MultiHeadAttention)
    y = np.ones((1, 4, 6), "float32")
    assert np.array_equal(model(y), loaded(y))
    print("right")
    """
    assert run(code, HW3TF_PATH=None) == "right\n"


def test_enable_is_one_switch_for_every_import():
    """A package that is imported again does not wrap the wrapped function."""
    code = """
    backend = importlib.import_module("keras.src.backend").nn
    stock = backend.dot_product_attention
    hw3tf.enable()
    ours = backend.dot_product_attention
    assert ours is not stock
    again = import_again()
    again.enable()
    assert backend.dot_product_attention is ours
    again.disable()
    assert backend.dot_product_attention is stock
    with again.enable():
        assert backend.dot_product_attention.__wrapped__ is stock
    hw3tf.disable()
    assert backend.dot_product_attention is stock
    print("right")
    """
    assert run(code, HW3TF_PATH=None) == "right\n"


@LINUX
def test_second_copy_is_refused_and_named(copy):
    """By the import, with both files, instead of an error of TensorFlow at the first
    call; the first copy goes on. TensorFlow's own function registers nothing anew."""
    code = f"""
    want = output_and_gradient(hw3tf)
    mine = {{n: m for n, m in sys.modules.items() if n.partition(".")[0] == "hw3tf"}}
    sys.path.insert(0, {str(copy.parent)!r})
    try:
        import_again()
    except ImportError as error:
        print(error)
    sys.path.pop(0)
    for name in [n for n in sys.modules if n.partition(".")[0] == "hw3tf"]:
        del sys.modules[name]
    sys.modules.update(mine)
    assert np.array_equal(output_and_gradient(hw3tf), want)
    module = tf.load_op_library({str(copy / "libhw3tf_ops.so")!r})
    assert not hasattr(module, "hw3tf_attention")
    assert np.array_equal(output_and_gradient(hw3tf), want)
    from hw3tf.ops import library
    print(library.ask({str(copy / "libhw3tf_ops.so")!r}, "Hw3tfLoadError"))
    """
    first, second = run(code, HW3TF_PATH=None).splitlines()
    # pybind11 2 loads a second module, and the ops are what is refused.
    files = [
        path for path in (_core.__file__, hw3tf.op_library_path()) if path in first
    ]
    assert len(files) == 1
    for message, path in ((first, files[0]), (second, hw3tf.op_library_path())):
        assert message.startswith("this process has loaded the ")
        assert f"of another copy of hw3tf, {path}, and" in message
        theirs = copy / pathlib.Path(path).name
        assert f"Received: {theirs}. Start a new process in which" in message


@LINUX
def test_kernels_of_another_build_are_refused(copy):
    """A file of the package that was replaced without the others: by the module, and by
    the op library, which TensorFlow Serving loads alone."""
    kernels = copy / f"libhw3tf_kernels-{_core.__version__}.so"
    (build,) = set(re.findall(rb"\d[\w.]*\+[0-9a-f]{16}\0", kernels.read_bytes()))
    wrong = build[:-17] + b"0" * 16 + b"\0"
    kernels.write_bytes(kernels.read_bytes().replace(build, wrong))
    code = f"""
    import ctypes, sys
    sys.path.insert(0, {str(copy.parent)!r})
    try:
        import hw3tf
    except ImportError as error:
        print(error)
    import tensorflow as tf
    library = {str(copy / "libhw3tf_ops.so")!r}
    assert not hasattr(tf.load_op_library(library), "hw3tf_attention")
    ask = ctypes.CDLL(library).Hw3tfLoadError
    ask.restype = ctypes.c_char_p
    print(ask().decode())
    """
    messages = run_python(textwrap.dedent(code), modules=processes.OTHERS).splitlines()
    for message, name in zip(messages, ("_core*.so", "libhw3tf_ops.so"), strict=True):
        (path,) = copy.glob(name)
        assert message == (
            f"{path} was built with the kernels {build[:-1].decode()}, but {kernels}, "
            f"which this process uses, has the kernels {wrong[:-1].decode()}. Install "
            "hw3tf again with `pip install --force-reinstall`, and start a new process "
            "that imports only one copy of it"
        )


@LINUX
def test_versions_share_no_kernels():
    """The name that the linker looks for has the version in it."""
    names = [path.name for path in PACKAGE.glob("libhw3tf_kernels*")]
    assert names == [f"libhw3tf_kernels-{_core.__version__}.so"]
