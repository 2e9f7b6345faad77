"""What backends compile: conditions on values that are known only when a call runs."""

from collections.abc import Callable
from typing import Any

import keras


def cond(
    condition: Any, if_true: Callable[[], Any], if_false: Callable[[], Any]
) -> Any:
    """`keras.ops.cond`, decided at once where JAX knows the value: it would compile
    both branches anew at every call that is not traced."""
    if keras.backend.backend() == "jax":
        import jax

        if not isinstance(condition, jax.core.Tracer):
            return if_true() if condition else if_false()
    return keras.ops.cond(condition, if_true, if_false)


def compiled_by_xla(function: Callable[..., Any]) -> Any:
    """`function` as one of TensorFlow's that XLA compiles."""
    import tensorflow as tf

    return tf.function(function, jit_compile=True)
