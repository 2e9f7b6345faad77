"""Functions on tensors, computed by the C++ kernels where they serve.

A call takes the first path that serves. On TensorFlow that is the op, or, under XLA, a
custom call of the kernel; else the same kernel through pybind11. On JAX it is a call of
XLA's, on PyTorch an op. Where none of them serves, `hw3tf.reference` computes. Nothing
falls back in silence: `attention_path`, `lstm_path`, `gru_path`, `simple_rnn_path` and
`integer_rnn_path` tell which path a call takes and why, and the logger `hw3tf` writes
the same at level DEBUG. The environment variable `HW3TF_PATH` forces `op`, `pybind` or
`reference`.
"""

import keras as _keras

from hw3tf.ops.attention.api import (
    attention_dropout_mask,
    attention_path,
    dot_product_attention,
)
from hw3tf.ops.attention.ragged import ragged_dot_product_attention
from hw3tf.ops.attention.symbolic import DotProductAttention
from hw3tf.ops.exporting import refuse_in_tf2onnx as _refuse_in_tf2onnx
from hw3tf.ops.fronts.tensorflow_op import load_op_library
from hw3tf.ops.fronts.tensorflow_op import op_library_error as _op_library_error
from hw3tf.ops.library import op_library_path
from hw3tf.ops.paths import CallPath as AttentionPath
from hw3tf.ops.paths import torch_ops_error as _torch_ops_error
from hw3tf.ops.recurrence.api import integer_rnn, integer_rnn_path
from hw3tf.ops.rnn.api import (
    gru,
    gru_path,
    lstm,
    lstm_path,
    simple_rnn,
    simple_rnn_path,
)
from hw3tf.ops.rnn.symbolic import RnnOperation
from hw3tf.ops.runtime import num_threads, runtime_info, set_num_threads

__all__ = [
    "AttentionPath",
    "DotProductAttention",
    "RnnOperation",
    "attention_dropout_mask",
    "attention_path",
    "dot_product_attention",
    "gru",
    "gru_path",
    "integer_rnn",
    "integer_rnn_path",
    "load_op_library",
    "lstm",
    "lstm_path",
    "num_threads",
    "op_library_path",
    "ragged_dot_product_attention",
    "runtime_info",
    "set_num_threads",
    "simple_rnn",
    "simple_rnn_path",
]

if _keras.backend.backend() == "tensorflow":
    # A saved model that contains the ops can be loaded from here on. An error is
    # no obstacle: the pybind11 path serves, and `runtime_info` shows the reason.
    _op_library_error()
    _refuse_in_tf2onnx()
elif _keras.backend.backend() == "torch":
    # Likewise programs of `torch.export`.
    _torch_ops_error()
