"""Threads, and what a bug report needs."""

import keras

from hw3tf import _core
from hw3tf.ops.fronts.tensorflow_op import op_library_error
from hw3tf.ops.paths import kernel_path


def num_threads() -> int:
    """Threads that a large call uses.

    In this order: `set_num_threads`, the environment's `HW3TF_NUM_THREADS`,
    TensorFlow's `intra_op_parallelism_threads` (for the op) or
    `torch.get_num_threads()` (under PyTorch), the processors that this process
    may use.
    """
    return _core.num_threads()


def set_num_threads(threads: int) -> None:
    """Sets the threads of later calls. Results do not depend on it.

    Args:
        threads: Integer from 1 to 1024, or 0 for the default.

    Raises:
        ValueError: If `threads` is outside 0..1024.
    """
    _core.set_num_threads(threads)


def runtime_info() -> dict[str, str]:
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
