"""Masks that subtract a number from the scores, and the condition for replacing them.

`keras.layers.Attention` subtracts 1e9 (65504 in float16) from the scores of masked keys
instead of replacing them. The result is the same as long as such a key gets a weight of
exactly 0. For that the query must see another key, and no score may be nearly as large
as the number. Otherwise masked keys have weights and gradients, and the layer itself
has to compute them.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras.src import backend

from hw3tf.layers.fallback import Refused
from hw3tf.ops.branches import cond
from hw3tf.ops.paths import kernel_path

ops = keras.ops

# exp(x) is 0 for x below -745.2 in float64, below -104 in float32; the rest is for
# the rounding of the number and of the bounds.
_UNDERFLOW = 800.0


def masked_keys_are_out(
    query: Any,
    key: Any,
    mask: Any = None,
    is_causal: bool = False,
    *,
    subtracted: float = 1e9,
    scale: float = 1.0,
) -> Any:
    """Whether masked keys surely have a weight of 0: a boolean scalar.

    Args:
        query, key: Tensors whose products over the last axis are the scores.
        mask: Optional tensor, nonzero = takes part, that ends with the axis of the
            keys; `(batch, key_length)` if `is_causal`.
        is_causal: Whether query `t` sees keys `0..t` only.
        subtracted: The number.
        scale: Factor of the scores.
    """
    dtype = keras.backend.result_type(query.dtype, key.dtype)
    real = "float64" if dtype == "float64" else "float32"

    def longest(x: Any) -> Any:
        return ops.sqrt(ops.max(ops.sum(ops.square(ops.cast(x, real)), axis=-1)))

    # Two scores of a query differ by no more than twice the largest. NaN is not less.
    difference = 2.0 * scale * longest(query) * longest(key)
    out = ops.less_equal(difference, subtracted - _UNDERFLOW)
    if mask is None:
        return out
    seen = ops.cast(mask, "bool")
    seen = seen[:, :1] if is_causal else ops.any(seen, axis=-1)
    return ops.logical_and(out, ops.all(seen))


def if_out(
    out: Any, fused: Callable[[], Any], own: Callable[[], Any], drops: bool
) -> Any:
    """`fused()` if `out`, else `own()`.

    Args:
        out: A boolean scalar, known perhaps only when a graph runs.
        fused, own: Functions of nothing.
        drops: Whether they draw dropout.

    Raises:
        Refused: If they cannot be the branches of a graph.
    """
    path = kernel_path()
    if path.path in ("reference", "xla"):
        # XLA: what the gradient of a branch needs would be of unknown size outside.
        raise Refused(f"its mask cannot be read: {path.reason}")
    if drops and backend.in_stateless_scope():
        # A seed drawn in a branch of a graph could not leave it with the new state.
        raise Refused("its mask and its dropout are combined in a stateless call")
    return cond(out, fused, own)
