"""Functions on tensors, computed by the C++ kernels where they serve.

A call takes the first path that serves: the TensorFlow op; else the same kernel
through pybind11; else `hw3tf.reference`. Nothing falls back in silence:
`attention_path` and `integer_rnn_path` tell which path a call takes and why, and
the logger `hw3tf` writes the same at level DEBUG. The environment variable
`HW3TF_PATH` forces `op`, `pybind` or `reference`.
"""

from hw3tf.ops.attention import (
    attention_dropout_mask,
    attention_path,
    dot_product_attention,
)
from hw3tf.ops.attention_operation import DotProductAttention
from hw3tf.ops.integer_rnn import integer_rnn, integer_rnn_path
from hw3tf.ops.libraries import (
    AttentionPath,
    load_op_library,
    num_threads,
    op_library_path,
    runtime_info,
    set_num_threads,
)
from hw3tf.ops.ragged_attention import ragged_dot_product_attention

__all__ = [
    "AttentionPath",
    "DotProductAttention",
    "attention_dropout_mask",
    "attention_path",
    "dot_product_attention",
    "integer_rnn",
    "integer_rnn_path",
    "load_op_library",
    "num_threads",
    "op_library_path",
    "ragged_dot_product_attention",
    "runtime_info",
    "set_num_threads",
]
