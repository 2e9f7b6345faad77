"""The options of one call of the integer recurrence, in one object."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RecurrenceOptions:
    """As in `hw3tf.ops.integer_rnn`: the numbers and words, not the tensors."""

    activation: str | None = None
    clip: tuple[int, int] | None = None
    reverse: bool = False
    return_sequences: bool = False
    overflow: str = "raise"
    fractional_bits: int = 0

    @property
    def kernel_attributes(self) -> dict[str, Any]:
        """What op and module take beside the tensors and `return_sequences`."""
        low, high = self.clip or (0, 0)
        return {
            "activation": self.activation or "none",
            "clip_low": int(low),
            "clip_high": int(high),
            "reverse": self.reverse,
            "overflow": self.overflow,
            "fractional_bits": self.fractional_bits,
        }
