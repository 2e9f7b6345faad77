"""Fast, exact attention and recurrent layers for Keras 3 on a CPU, and an integer
recurrence that never rounds, computed in C++.

>>> import hw3tf
>>> layer = hw3tf.layers.MultiHeadAttention(num_heads=2, key_dim=16)

One line puts the attention and the recurrent layers of an existing model onto kernels:

>>> model = keras.Sequential([keras.Input((10, 16))])
>>> report = hw3tf.accelerate(model)

Packages: `hw3tf.ops` (functions on tensors), `hw3tf.layers` (Keras layers),
`hw3tf.acceleration` (`accelerate` and `enable`, for existing models and code) and
`hw3tf.reference` (the same in pure Keras: the specification). The kernels serve Keras
on TensorFlow, JAX and PyTorch; `hw3tf.jax` and `hw3tf.torch` are for JAX and PyTorch
without Keras. The tutorials share
`hw3tf.course`, which is loaded only when it is asked for. `python -m hw3tf` prints what
a bug report needs.
"""

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from importlib.util import find_spec as _find_spec
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _find_spec("hw3tf._core") is None:
    raise ImportError(
        "The C++ extension of hw3tf is not built. Run `pip install .` in the "
        "checkout, and start Python outside it: there, the source folder hides "
        "the installed package."
    )

from hw3tf._startup import without_messages as _without_messages

with _without_messages():  # the first import of TensorFlow
    try:
        _import_module("keras")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"hw3tf needs Keras, and Keras needs a backend: {error.name} is not "
            "installed. Install it, or set KERAS_BACKEND to one that is: tensorflow, "
            "jax or torch"
        ) from error
    from hw3tf import _moved, _saved_names, layers, ops, reference
    from hw3tf.ops import load_op_library, op_library_path

if _TYPE_CHECKING:
    from hw3tf import acceleration
    from hw3tf.acceleration import accelerate, disable, enable, restore

__version__ = _version("hw3tf")
__all__ = [
    "__version__",
    "accelerate",
    "acceleration",
    "disable",
    "enable",
    "layers",
    "load_op_library",
    "op_library_path",
    "ops",
    "reference",
    "restore",
]

_moved.install()
_saved_names.register()


# What is loaded when it is asked for first: packages, and functions of one of them.
_PACKAGES = ("acceleration", "course", "jax", "torch")
_FUNCTIONS = ("accelerate", "disable", "enable", "restore")


def __getattr__(name: str) -> _Any:
    if name in _PACKAGES:
        return _import_module(f"hw3tf.{name}")
    if name in _FUNCTIONS:
        return getattr(_import_module("hw3tf.acceleration"), name)
    return _moved.attribute(__name__, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PACKAGES, *_FUNCTIONS})
