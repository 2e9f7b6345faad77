"""Fast, exact attention and an exact integer recurrence for Keras 3 on TensorFlow,
computed in C++.

>>> import hw3tf
>>> layer = hw3tf.layers.MultiHeadAttention(num_heads=2, key_dim=16)

One line puts the attention of an existing model onto the kernel:

>>> model = keras.Sequential([keras.Input((10, 16))])
>>> report = hw3tf.accelerate(model)

Packages: `hw3tf.ops` (functions on tensors), `hw3tf.layers` (Keras layers),
`hw3tf.acceleration` (`accelerate` and `enable`, for existing models and code) and
`hw3tf.reference` (the same in pure Keras: the specification). The tutorials share
`hw3tf.data`, `hw3tf.plots`, `hw3tf.training` and `hw3tf.tutorial`; `hw3tf.demo` is a
page to try the model of one of them. `python -m hw3tf` prints what a bug report needs.
"""

from importlib.metadata import version as _version
from importlib.util import find_spec as _find_spec

if _find_spec("hw3tf._core") is None:
    raise ImportError(
        "The C++ extension of hw3tf is not built. Run `pip install .` in the "
        "checkout, and start Python outside it: there, the source folder hides "
        "the installed package."
    )

from hw3tf import acceleration, data, layers, ops, plots, reference
from hw3tf.acceleration import accelerate, disable, enable, restore
from hw3tf.ops import load_op_library, op_library_path

__version__ = _version("hw3tf")
__all__ = [
    "__version__",
    "accelerate",
    "acceleration",
    "data",
    "disable",
    "enable",
    "layers",
    "load_op_library",
    "op_library_path",
    "ops",
    "plots",
    "reference",
    "restore",
]
