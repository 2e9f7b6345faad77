"""One call of a recurrent layer: its arguments checked, its path chosen, run."""

from collections.abc import Mapping
from typing import Any

from hw3tf.ops.paths import CallPath, logger
from hw3tf.ops.rnn.options import RnnOptions
from hw3tf.reference.rnn import rnn


class RnnCall:
    """The arguments of an LSTM, a GRU or a simple RNN, checked and converted.

    Args:
        cell: `"lstm"`, `"gru"` or `"simple_rnn"`.
        tensors: The tensors by the names of the operands: `inputs`, `kernel`,
            `recurrent_kernel`, `bias`, `recurrent_bias` (GRU), `initial_h`,
            `initial_c` (LSTM), `mask`, `lengths`, `input_dropout`,
            `recurrent_dropout`; None, or no entry, for one that is not given. Shapes
            as in `hw3tf.reference.rnn`.
        options: What else the call is made with.

    Attributes:
        path: The `CallPath` that the call takes.
    """

    def __init__(
        self, cell: str, tensors: Mapping[str, Any], options: RnnOptions
    ) -> None:
        self.cell, self.options = cell, options
        self.tensors = {k: x for k, x in tensors.items() if x is not None}
        self.path = CallPath("reference", "nothing else is there yet")

    def run(self) -> tuple[Any, Any, Any]:
        """Outputs, `(batch, timesteps, units)` with `return_sequences`, else `(batch,
        1, units)`; the last `h`, `(batch, units)`; the last `c`, or None."""
        logger.debug("%s takes the path %s", self.cell, self.path)
        return rnn(self.cell, **self.tensors, **vars(self.options))
