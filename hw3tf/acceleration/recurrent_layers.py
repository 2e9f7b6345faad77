"""Keras's recurrent layers on the kernel."""

import functools
from typing import Any

import keras

from hw3tf.acceleration.coverage import Family, Verdict
from hw3tf.layers.fallback import Refused
from hw3tf.layers.rnn.loop import fused_loop
from hw3tf.layers.rnn.stock import CELLS, STOCK_RECURRENCE


def verdict_on_recurrent_layer(layer: Any) -> Verdict | None:
    """A `Verdict`, or None if `layer` is not a `keras.layers.RNN`.

    Neither for the cell inside of one: what becomes of it is said of the layer.
    """
    for known_class in (*_WITH_A_CELL, keras.layers.RNN):
        if isinstance(layer, known_class):
            return _FAMILY.verdict(layer, known_class)
    return None


def _replace(layer: Any) -> dict[str, Any]:
    return {"inner_loop": functools.partial(_inner_loop, layer)}


def _inner_loop(
    layer: Any,
    sequences: Any,
    initial_state: Any,
    mask: Any,
    training: Any = False,
) -> Any:
    """Replaces `keras.layers.RNN.inner_loop`, with its errors and faults."""
    if mask is not None and _zeroes_other_steps(layer):
        raise Refused("Keras, unrolled and backwards, zeroes other steps than masked")
    try:
        return fused_loop(layer, sequences, initial_state, mask, training)
    except (TypeError, ValueError) as error:
        raise Refused(str(error)) from error


def _zeroes_other_steps(layer: Any) -> bool:
    """Whether Keras's unrolled loop, which reverses the mask for the states and not for
    the zeros, is the loop of this layer."""
    return (
        layer.unroll
        and layer.go_backwards
        and layer.zero_output_for_mask
        and layer.return_sequences
    )


_WITH_A_CELL = (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)
_FAMILY = Family(_replace, ("inner_loop",), STOCK_RECURRENCE)
