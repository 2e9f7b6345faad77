"""Whether a recurrent layer holds what the kernel stands for: one of Keras's three
cells, as Keras made it, with activations that the kernel computes."""

from dataclasses import dataclass
from typing import Any

import keras

from hw3tf.layers.fallback import overrides
from hw3tf.ops.rnn.activations import WORDS, in_words, resolved


@dataclass(frozen=True)
class KerasCell:
    """One of Keras's cells.

    Attributes:
        name: What `RnnCall` calls it.
        cls: Its class.
        gates: Number of matrices side by side in each of its kernels.
        states: Number of its states.
        gated: Whether it has a recurrent activation, and takes dropout as LSTM and GRU
            do: a rate of 1 drops nothing, and `implementation=1`, which recurrent
            dropout brings about, draws a mask for each gate.
        methods: What the kernel computes, or takes for granted.
    """

    name: str
    cls: type[keras.layers.Layer]
    gates: int
    states: int = 1
    gated: bool = True
    methods: tuple[str, ...] = (
        "call",
        "get_dropout_mask",
        "get_recurrent_dropout_mask",
    )


_LSTM_METHODS = ("_compute_carry_and_output", "_compute_carry_and_output_fused")
LSTM = KerasCell(
    "lstm",
    keras.layers.LSTMCell,
    gates=4,
    states=2,
    methods=KerasCell.methods + _LSTM_METHODS,
)
GRU = KerasCell("gru", keras.layers.GRUCell, gates=3)
SIMPLE = KerasCell("simple_rnn", keras.layers.SimpleRNNCell, gates=1, gated=False)
CELLS = {known.cls: known for known in (LSTM, GRU, SIMPLE)}


class StockRecurrence:
    """The checks of `keras.layers.RNN` and its subclasses."""

    def changed(self, layer: Any) -> str:
        """Empty if the kernel computes what `layer` does, else half a sentence: what
        it does not compute."""
        cell = layer.cell
        known = CELLS.get(type(cell))
        if known is None:
            *some, last = (cls.__name__ for cls in CELLS)
            names = f"{', '.join(some)} or {last}"
            return f"`cell` is of type {type(cell).__name__}, not {names}"
        if changed := overrides(cell, known.cls, known.methods):
            return f"`cell`: {changed}"
        return (
            _changed_activation(cell, known)
            or _changed_options(cell)
            # Keras says that there is no cuDNN.
            or ("`use_cudnn` is True" if _wants_cudnn(layer) else "")
        )


def _changed_activation(cell: Any, known: KerasCell) -> str:
    for name in ("activation", "recurrent_activation")[: 1 + known.gated]:
        function = resolved(name, getattr(cell, name))
        if not isinstance(function, str):
            return f"`{name}` is {in_words(function)}, not Keras's {', '.join(WORDS)}"
    return ""


def _changed_options(cell: Any) -> str:
    if not cell.autocast:
        return "`cell.autocast` is False"
    if cell.activity_regularizer is not None:
        return "`cell` has an activity regularizer"
    return ""


def _wants_cudnn(layer: Any) -> bool:
    return getattr(layer, "use_cudnn", None) is True


STOCK_RECURRENCE = StockRecurrence()
