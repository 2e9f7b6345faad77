"""The two paths into the kernels, `hw3tf._core` and the TensorFlow op, behind one
signature: NumPy arrays and the keywords of `_core`. A path is "core", "op", or "graph",
the op in a graph that knows no shapes."""

import numpy as np
import tensorflow as tf

from hw3tf import _core, ops

# The optional inputs of the op, in its order, and their types.
OPTIONAL = {
    "bias": None,
    "mask": "bool",
    "query_mask": "bool",
    "key_mask": "bool",
    "query_lengths": "int32",
    "key_lengths": "int32",
    "query_splits": "int64",
    "key_splits": "int64",
}


def real_of(dtype):
    return "float64" if dtype == "float64" else "float32"


def op_arguments(query, key, value, scale, options):
    """The 13 inputs and the attributes."""
    inputs = [tf.convert_to_tensor(x) for x in (query, key, value)]
    for name, dtype in OPTIONAL.items():
        x = options.pop(name, None)
        none = tf.zeros([0], dtype or real_of(query.dtype))
        inputs.append(none if x is None else tf.convert_to_tensor(x))
    inputs.append(tf.constant(options.pop("dropout_seed", 0), "int64"))
    numbers = [options.pop(name, 0.0) for name in ("soft_cap", "dropout_rate")]
    inputs.append(tf.constant([scale, *numbers], "float64"))
    return inputs, options


def _run(path, function, inputs, attributes):
    if path == "graph":
        # Nothing of the shapes is known while the graph is made.
        specs = [tf.TensorSpec(None, x.dtype) for x in inputs]
        graph = tf.function(lambda *x: function(*x, **attributes), specs)
        return [x.numpy() for x in graph(*inputs)]
    return [x.numpy() for x in function(*inputs, **attributes)]


def forward(path, query, key, value, *, scale, **options):
    """[output, statistics, logsumexp] as arrays."""
    if path == "core":
        return list(_core.attention_forward(query, key, value, scale=scale, **options))
    inputs, attributes = op_arguments(query, key, value, scale, options)
    return _run(path, ops.load_op_library().hw3tf_attention, inputs, attributes)


def backward(
    path,
    query,
    key,
    value,
    output,
    statistics,
    grad_output,
    grad_logsumexp=None,
    *,
    scale,
    **options,
):
    """[grad_query, grad_key, grad_value, grad_bias] as arrays, the last None
    without a bias."""
    results = (output, statistics, grad_output)
    if path == "core":
        return list(
            _core.attention_backward(
                query, key, value, *results, grad_logsumexp, scale=scale, **options
            )
        )
    without_bias = options.get("bias") is None
    inputs, attributes = op_arguments(query, key, value, scale, options)
    if grad_logsumexp is None:
        grad_logsumexp = np.zeros([0], statistics.dtype)
    inputs += [tf.constant(x) for x in (*results, grad_logsumexp)]
    grads = _run(path, ops.load_op_library().hw3tf_attention_grad, inputs, attributes)
    if without_bias:
        assert grads[3].shape == (0,)
        grads[3] = None
    return grads
