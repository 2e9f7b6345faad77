"""The TensorFlow op, with its gradient."""

import pathlib

import tensorflow as tf

_library = next(pathlib.Path(__file__).parent.glob("libops.*"))
_ops = tf.load_op_library(str(_library))


def rms_norm(x, scale, epsilon=1e-6, threads=0):
    """x * scale / sqrt(mean(x^2) + epsilon), with the mean over the last axis.

    `x` and `scale` are float32, `scale` has one number for each along the last axis.
    `threads` is the largest number of threads, 0 for one per processor."""
    x, scale = tf.convert_to_tensor(x), tf.convert_to_tensor(scale)
    for name, value in (("x", x), ("scale", scale)):
        if value.dtype != tf.float32:
            raise TypeError(f"`{name}` must be float32. Received: {value.dtype.name}")
    if x.shape.rank == 0:
        raise ValueError("`x` must have at least 1 axis. Received: a scalar")
    if not scale.shape.is_compatible_with(x.shape[-1:]):
        want, got = x.shape[-1:], scale.shape
        raise ValueError(f"`scale` must have shape {want}. Received: {got}")
    return _ops.own_op_rms_norm(x, scale, epsilon=epsilon, threads=threads)


@tf.RegisterGradient("OwnOpRmsNorm")
def _rms_norm_gradient(op, dy):
    options = {name: op.get_attr(name) for name in ("epsilon", "threads")}
    return _ops.own_op_rms_norm_grad(*op.inputs, dy, **options)
