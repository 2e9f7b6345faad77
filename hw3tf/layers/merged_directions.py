"""Merge modes of `Bidirectional` under which Keras would let integer states wrap."""

import keras

from hw3tf.layers.call_context import call_context


def refuse_merging(layer: keras.layers.RNN) -> bool:
    """Raises ValueError if the call of `layer` under way is that of a direction of a
    `keras.layers.Bidirectional` which adds or multiplies both in an integer dtype:
    integers that do not fit wrap there.

    Args:
        layer: The `IntegerRNN`. With `overflow="wrap"` sums and products may wrap, too,
            but not a mean.

    Returns:
        Whether there was something to ask: an outer layer that is being called.
    """
    context = call_context()
    outer = layer if context is None else context.entry_layer
    if outer is layer or not hasattr(outer, "_flatten_layers"):
        return False
    modes = ("ave",) if layer.overflow == "wrap" else ("sum", "mul", "ave")
    for parent in outer._flatten_layers():
        if (
            isinstance(parent, keras.layers.Bidirectional)
            and layer in (parent.forward_layer, parent.backward_layer)
            and parent.merge_mode in modes
            and "int" in parent.compute_dtype
        ):
            raise ValueError(
                f"`Bidirectional` would combine the states of both directions in "
                f"{parent.compute_dtype}, where what does not fit wraps without an "
                "error. Pass merge_mode=None or 'concat' and combine them in a dtype "
                "that is wide enough, as keras.ops.cast(states, 'int64'), or pass "
                "dtype='float64' to `Bidirectional`. Received: "
                f"merge_mode={parent.merge_mode!r}"
            )
    return True
