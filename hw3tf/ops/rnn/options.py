"""The options of one call of a recurrent layer, in one object."""

from dataclasses import dataclass, fields, replace
from typing import Any

from hw3tf.ops.operations import RNN


@dataclass(frozen=True)
class RnnOptions:
    """What a call is made with beside its tensors.

    Attributes:
        activation: `"tanh"`, `"sigmoid"`, `"relu"`, `"linear"`, `"hard_sigmoid"`, or a
            function of tensors, which only the reference computes.
        recurrent_activation: Likewise, of the gates; the simple RNN has none.
        reset_after: Of the GRU: whether the reset gate comes after the product.
        reverse: Whether steps are taken from the last to the first. Outputs come in the
            order in which they are made.
        return_sequences: Whether all outputs are wanted, or the last.
        zero_output_for_mask: Whether the output of a masked step is 0 instead of the
            output before it.
    """

    activation: Any = "tanh"
    recurrent_activation: Any = "sigmoid"
    reset_after: bool = True
    reverse: bool = False
    return_sequences: bool = False
    zero_output_for_mask: bool = False

    def with_booleans(self) -> "RnnOptions":
        """The same with True or False for what counts as such: an op would take None
        for its own default."""
        names = [x.name for x in fields(self) if x.type in (bool, "bool")]
        return replace(self, **{name: bool(getattr(self, name)) for name in names})

    def attributes(self, cell: str) -> dict[str, Any]:
        """What op and module take beside the tensors and `keep`."""
        named = (attribute["name"] for attribute in RNN[cell].attributes)
        return {name: getattr(self, name) for name in named if name != "keep"}
