"""The C++ libraries: loading them, and choosing between them."""

import functools
import logging
import os
import pathlib
from dataclasses import dataclass

import keras

from hw3tf import _core
from hw3tf.ops.exporting import export_format, refuse_in_tf2onnx
from hw3tf.reference.overflow import under_xla

logger = logging.getLogger("hw3tf")

# pybind11 answers with the module of this name that it has, whatever the file.
if _core.__spec__ is not None and _core.__file__ != _core.__spec__.origin:
    raise ImportError(
        "this process has loaded the C++ extension of another copy of hw3tf, "
        f"{_core.__file__}, and can have it only once. Received: "
        f"{_core.__spec__.origin}. Start a new process in which one of the two folders "
        "is imported"
    )

PATHS = ("op", "pybind", "reference")


@dataclass(frozen=True)
class AttentionPath:
    """Which implementation a call takes, and why.

    Attributes:
        path: `"op"`, `"xla"` (the kernel, called by XLA), `"pybind"`, `"reference"`.
        reason: Half a sentence that explains the choice.
    """

    path: str
    reason: str

    def __str__(self):
        return f"{self.path} ({self.reason})"


def op_library_path():
    """Path of the library with the TensorFlow ops.

    For `tf.load_op_library` where hw3tf's Python is not wanted, TensorFlow Serving or
    a C++ program; `python -m hw3tf --op-library` prints it. The library needs
    `libhw3tf_kernels` beside it, nothing else of hw3tf.

    Returns:
        A string.

    Raises:
        FileNotFoundError: If the library is not installed.

    Example:

    >>> hw3tf.op_library_path()  # doctest: +ELLIPSIS
    '...libhw3tf_ops...'
    """
    package = pathlib.Path(_core.__file__).parent
    for name in ("libhw3tf_ops.so", "libhw3tf_ops.dylib"):
        if (package / name).exists():
            return str(package / name)
    raise FileNotFoundError(
        f"`libhw3tf_ops` is not in {package}. Install hw3tf with `pip install .`"
    )


@functools.cache
def load_op_library():
    """Loads the TensorFlow ops, once; registers their gradients, and XLA's calls.

    `import hw3tf` does this on the TensorFlow backend, so that saved models
    that contain the ops can be loaded.

    Returns:
        The module of generated functions, as `tf.load_op_library`.

    Raises:
        FileNotFoundError: If the library is not installed.
        tensorflow.errors.NotFoundError: If TensorFlow cannot load it.
        ImportError: If the process has loaded another copy of it, from another
            folder, or the kernels of another build.

    Example:

    >>> ops = hw3tf.load_op_library()
    >>> ops is hw3tf.load_op_library()
    True
    """
    import tensorflow as tf

    from hw3tf.ops import attention_gradient, xla_probe

    library = tf.load_op_library(op_library_path())
    if error := xla_probe.ask(op_library_path(), "Hw3tfLoadError"):
        raise ImportError(error)
    attention_gradient.register(library)
    xla_probe.register_targets(op_library_path())
    return library


@functools.cache
def op_library_error():
    """Empty if the op library is loaded, otherwise why it could not be.

    Raises:
        ImportError: As `load_op_library`: what is loaded does not belong together, and
            no other path would be right.
    """
    try:
        load_op_library()
    except ImportError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def forced_path():
    """The value of HW3TF_PATH, or None; ValueError if it names no path."""
    path = os.environ.get("HW3TF_PATH") or None
    if path is not None and path not in PATHS:
        raise ValueError(f"HW3TF_PATH must be one of {PATHS}. Received: {path!r}")
    return path


def kernel_path(compiled: bool | None = None) -> AttentionPath:
    """The path of a call that the kernel covers, on this machine, now.

    Args:
        compiled: Whether XLA compiles the call. Defaults to whether it compiles what
            is being traced.
    """
    forced = forced_path()
    if forced == "reference":
        return AttentionPath("reference", "HW3TF_PATH forces it")
    if keras.backend.backend() != "tensorflow":
        return AttentionPath("reference", f"the backend is {keras.backend.backend()}")
    if _gpu_visible():
        return AttentionPath("reference", "TensorFlow sees a GPU")
    if made := _made_for():
        reason = f"the graph is made for {made}, which knows no op of hw3tf"
        logger.info("plain Keras computes: %s", reason)
        return AttentionPath("reference", reason)
    if under_xla() if compiled is None else compiled:
        if forced != "pybind":
            return _xla_path()
        return AttentionPath("reference", "the call is compiled by XLA")
    if forced == "pybind":
        return AttentionPath("pybind", "HW3TF_PATH forces it")
    error = op_library_error()
    if forced == "op":
        if error:
            raise RuntimeError(f"HW3TF_PATH=op, but the op library fails: {error}")
        return AttentionPath("op", "HW3TF_PATH forces it")
    if error:
        return AttentionPath("pybind", f"the op library fails: {error}")
    return AttentionPath("op", "the kernel covers the call")


def _xla_path():
    error = op_library_error()
    if not error:
        from hw3tf.ops import xla_probe

        error = xla_probe.call_error(op_library_path())
    if error:
        reason = f"the call is compiled by XLA, which cannot call us: {error}"
        return AttentionPath("reference", reason)
    return AttentionPath("xla", "the kernel covers the call, compiled by XLA")


@functools.cache
def _gpu_visible():
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def _made_for() -> str | None:
    import tensorflow as tf

    return None if tf.executing_eagerly() else export_format()


def num_threads():
    """Threads that a large call uses.

    In this order: `set_num_threads`, the environment's `HW3TF_NUM_THREADS`,
    TensorFlow's `intra_op_parallelism_threads` (for the op), the processors
    that this process may use.
    """
    return _core.num_threads()


def set_num_threads(threads):
    """Sets the threads of later calls. Results do not depend on it.

    Args:
        threads: Integer from 1 to 1024, or 0 for the default.

    Raises:
        ValueError: If `threads` is outside 0..1024.
    """
    _core.set_num_threads(threads)


def runtime_info():
    """What a bug report needs: a dict of names and printable values."""
    import platform

    import numpy as np

    info = {
        "hw3tf": _core.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": np.__version__,
        "keras": f"{keras.__version__} on {keras.backend.backend()}",
    }
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        info["tensorflow"] = tf.__version__
        info["op library"] = op_library_error() or "loaded"
    supported = _core.supported_instruction_sets()
    info["instruction set"] = _core.instruction_set()
    info["compiled"] = ", ".join(
        name if name in supported else f"{name} (not on this machine)"
        for name in _core.compiled_instruction_sets()
    )
    info["threads"] = str(_core.num_threads())
    info["attention"] = str(kernel_path())
    return info


if keras.backend.backend() == "tensorflow":
    # A saved model that contains the ops can be loaded from here on. An error is
    # no obstacle: the pybind11 path serves, and `runtime_info` shows the reason.
    op_library_error()
    refuse_in_tf2onnx()
