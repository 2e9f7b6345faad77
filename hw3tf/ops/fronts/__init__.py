"""The implementations of the operations, one module per path.

Each has `attention` and `integer_rnn`, of one signature in all of them:

- `attention(query, key, value, options)`: float tensors of one dtype and
  `AttentionOptions`; returns the output and the logsumexp, with gradients. Those of the
  kernel take what `kernel_options` returns. Packed sequences have rank 3 there.
- `integer_rnn(tensors, options, state_dtype)`: a dictionary of the tensors or arrays
  that are given, `RecurrenceOptions`, and the dtype of the state; returns the states.

They are imported when they are needed: pure Keras runs without TensorFlow.
"""

from collections.abc import Callable
from typing import Any

# Given the path and the module of each call, while a model is measured
# (acceleration/measurement.py): what it returns is called instead.
watch: Callable[[str, Any], Any] | None = None


def front_of(path: str) -> Any:
    """The module of the path `"op"`, `"xla"`, `"ffi"`, `"torch"`, `"pybind"` or
    `"reference"`."""
    front = _module_of(path)
    return front if watch is None else watch(path, front)


# Not cached: `torch.compile` warns where it traces through a cache.
def _module_of(path: str) -> Any:
    if path == "op":
        from hw3tf.ops.fronts import tensorflow_op

        return tensorflow_op
    if path == "xla":
        from hw3tf.ops.fronts import xla

        return xla
    if path == "ffi":
        from hw3tf.ops.fronts import ffi

        return ffi
    if path == "torch":
        from hw3tf.ops.fronts import torch_ops

        return torch_ops
    if path == "pybind":
        from hw3tf.ops.fronts import pybind

        return pybind
    from hw3tf.ops.fronts import reference

    return reference
