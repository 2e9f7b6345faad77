"""The file of the library with the TensorFlow ops: where it is, and what it says."""

import ctypes
import functools
import pathlib

from hw3tf import _core

# pybind11 answers with the module of this name that it has, whatever the file.
if _core.__spec__ is not None and _core.__file__ != _core.__spec__.origin:
    raise ImportError(
        "this process has loaded the C++ extension of another copy of hw3tf, "
        f"{_core.__file__}, and can have it only once. Received: "
        f"{_core.__spec__.origin}. Start a new process in which one of the two folders "
        "is imported"
    )


def op_library_path() -> str:
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


def ask(library_path: str, function: str) -> str:
    """What a function of the op library without arguments says.

    Args:
        library_path: That of the op library, which is loaded.
        function: Name of the function.
    """
    ask = getattr(ctypes.CDLL(library_path), function)
    ask.restype = ctypes.c_char_p
    return str(ask().decode())


@functools.cache
def register_targets(library_path: str) -> str:
    """Makes the kernel's custom calls known to XLA, once.

    Args:
        library_path: That of the op library, which is loaded.

    Returns:
        Empty, or why it cannot be done.
    """
    return ask(library_path, "Hw3tfRegisterXlaTargets")
