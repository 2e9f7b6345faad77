"""The choice of a path: op, XLA's custom call, pybind11 or pure Keras."""

import functools
import logging
import os
from dataclasses import dataclass
from typing import Any

import keras

from hw3tf.ops.exporting import export_format
from hw3tf.ops.fronts.tensorflow_op import op_library_error
from hw3tf.ops.library import op_library_path
from hw3tf.reference.overflow import under_xla


class _Log:
    """The logger `hw3tf`; silent while PyTorch compiles what calls it, which would be
    an error in `torch.compile(fullgraph=True)`."""

    _logger = logging.getLogger("hw3tf")

    def debug(self, message: str, *args: Any) -> None:
        if not _compiled_by_torch():
            self._logger.debug(message, *args, stacklevel=2)

    def info(self, message: str, *args: Any) -> None:
        if not _compiled_by_torch():
            self._logger.info(message, *args, stacklevel=2)

    def warning(self, message: str, *args: Any) -> None:
        if not _compiled_by_torch():
            self._logger.warning(message, *args, stacklevel=2)


def _compiled_by_torch() -> bool:
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch.compiler.is_compiling()


logger = _Log()

FORCED = ("op", "pybind", "reference")
OTHERS = ("jax", "torch")  # backends of Keras, beside TensorFlow, that have a front
WITH_KERNELS = ("tensorflow", *OTHERS)


@dataclass(frozen=True)
class CallPath:
    """Which implementation a call takes, and why.

    Attributes:
        path: `"op"`, `"xla"` (the kernel, called by XLA), `"ffi"` (by JAX), `"torch"`,
            `"pybind"`, `"reference"`.
        reason: Half a sentence that explains the choice.
    """

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} ({self.reason})"


def forced_path() -> str | None:
    """The value of HW3TF_PATH, or None; ValueError if it names no path."""
    path = os.environ.get("HW3TF_PATH") or None
    if path is not None and path not in FORCED:
        raise ValueError(f"HW3TF_PATH must be one of {FORCED}. Received: {path!r}")
    return path


def kernel_path(compiled: bool | None = None) -> CallPath:
    """The path of a call that the kernel covers, on this machine, now.

    Args:
        compiled: Whether XLA compiles the call. Defaults to whether it compiles what
            is being traced.
    """
    forced = forced_path()
    if forced == "reference":
        return CallPath("reference", "HW3TF_PATH forces it")
    if forced in ("op", "pybind") and keras.backend.backend() in OTHERS:
        raise RuntimeError(
            f"HW3TF_PATH={forced} needs the backend tensorflow. The backend is "
            f"{keras.backend.backend()}, where HW3TF_PATH may be 'reference'"
        )
    if keras.backend.backend() == "jax":
        return _jax_path()
    if keras.backend.backend() == "torch":
        return _torch_path()
    if keras.backend.backend() != "tensorflow":
        return CallPath("reference", f"the backend is {keras.backend.backend()}")
    if _gpu_visible():
        return CallPath("reference", "TensorFlow sees a GPU")
    if made := _made_for():
        reason = f"the graph is made for {made}, which knows no op of hw3tf"
        logger.info("plain Keras computes: %s", reason)
        return CallPath("reference", reason)
    if under_xla() if compiled is None else compiled:
        if forced != "pybind":
            return _xla_path()
        return CallPath("reference", "the call is compiled by XLA")
    if forced == "pybind":
        return CallPath("pybind", "HW3TF_PATH forces it")
    error = op_library_error()
    if forced == "op":
        if error:
            raise RuntimeError(f"HW3TF_PATH=op, but the op library fails: {error}")
        return CallPath("op", "HW3TF_PATH forces it")
    if error:
        return CallPath("pybind", f"the op library fails: {error}")
    return CallPath("op", "the kernel covers the call")


def _jax_path() -> CallPath:
    from hw3tf.ops.fronts import ffi

    if not ffi.runs_on_cpu():
        return CallPath("reference", "JAX computes on another device than the CPU")
    if error := ffi.ffi_error():
        return CallPath("reference", f"JAX cannot call us: {error}")
    return CallPath("ffi", "the kernel covers the call")


def torch_ops_error() -> str:
    """Empty if PyTorch has the ops of hw3tf, otherwise why it has not. Makes them."""
    # Not cached: `torch.compile` warns where it traces through a cache.
    try:
        from hw3tf.ops.fronts import torch_ops  # noqa: F401
    except Exception as error:  # of a PyTorch that is too old
        return f"{type(error).__name__}: {error}"
    return ""


def _torch_path() -> CallPath:
    if error := torch_ops_error():
        return CallPath("reference", f"PyTorch cannot call us: {error}")
    from hw3tf.ops.fronts import torch_ops

    if made := torch_ops.exported_to():
        reason = f"the graph is made for {made}, which knows no op of hw3tf"
        logger.info("plain Keras computes: %s", reason)
        return CallPath("reference", reason)
    if device := torch_ops.other_device():
        return CallPath("reference", f"PyTorch computes on the device {device}")
    return CallPath("torch", "the kernel covers the call")


def _xla_path() -> CallPath:
    error = op_library_error()
    if not error:
        from hw3tf.ops.fronts import xla_probe

        error = xla_probe.call_error(op_library_path())
    if error:
        reason = f"the call is compiled by XLA, which cannot call us: {error}"
        return CallPath("reference", reason)
    return CallPath("xla", "the kernel covers the call, compiled by XLA")


@functools.cache
def _gpu_visible() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def _made_for() -> str | None:
    import tensorflow as tf

    return None if tf.executing_eagerly() else export_format()
