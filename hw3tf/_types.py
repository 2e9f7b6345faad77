"""Names for types that Keras and TensorFlow leave untyped: for readers, and for mypy,
which takes them for `Any`."""

from typing import Any, TypeAlias

# A tensor of Keras's backend, a `keras.KerasTensor`, or what the backend makes one of.
Tensor: TypeAlias = Any
RaggedTensor: TypeAlias = Any  # tf.RaggedTensor
DType: TypeAlias = Any  # a name, such as "int32", or the backend's object
Dataset: TypeAlias = Any  # tf.data.Dataset
Strategy: TypeAlias = Any  # tf.distribute.Strategy
