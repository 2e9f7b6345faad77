"""Gradients with respect to integers: an error, since integers have no gradients.

TensorFlow ends gradients at integer tensors before it asks any op: a gradient
registered for the op, or a `tf.custom_gradient` around it, is never called, and
`tape.gradient` answers `None`. What can be known is whether a tape is recording, when
the recurrence is called, what the integers are made of. That is asked here.
"""

from collections.abc import Mapping
from typing import Any

import keras

from hw3tf.ops.tapes import is_recording, records

# Their integers tell nothing of the values of what they are made of.
SHAPES = {"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike", "StopGradient"}


class _AsFloat:
    """What the tape asks of a tensor, with a dtype that it does not pass over."""

    def __init__(self, tensor: Any) -> None:
        import tensorflow as tf

        self._id, self.dtype = tensor._id, tf.float32


def _made_of(tensor: Any) -> list[Any]:
    """The tensor, and in a graph all integers that it is made of and the floats
    where they begin."""
    found, todo = {}, [tensor]
    while todo:
        x = todo.pop()
        if x._id in found:
            continue
        found[x._id] = x
        # Eager tensors do not know where they come from.
        graph = not hasattr(x, "numpy")
        if graph and not x.dtype.is_floating and x.op.type not in SHAPES:
            todo += [y for y in x.op.inputs if hasattr(y, "_id")]
    return list(found.values())


def refuse_gradients(tensors: Mapping[str, Any]) -> None:
    """Raises TypeError if a tape is recording what an argument is made of.

    Args:
        tensors: Dictionary of arguments by name. A mask is not looked at: nobody
            asks how much a condition matters.
    """
    if keras.backend.backend() != "tensorflow":
        return  # JAX and PyTorch have errors of their own
    if not is_recording():  # or this TensorFlow does not tell: nothing is refused
        return
    import tensorflow as tf

    for name, x in tensors.items():
        if name == "mask" or not (tf.is_tensor(x) or hasattr(x, "value")):
            continue
        for part in _made_of(tf.convert_to_tensor(x)):
            if records([_AsFloat(part)]):
                raise TypeError(
                    "integers have no gradient, and a tape is recording what "
                    f"`{name}` is made of: asked for its gradient, TensorFlow would "
                    "answer None. If nothing is to flow there, say so: "
                    "tf.stop_gradient before the cast to integers, "
                    "trainable=False for an integer variable. "
                    f"Received: {name} from {_in_words(part)}"
                )


def _in_words(tensor: Any) -> str:
    kind = f"of shape {tensor.shape} and dtype {tensor.dtype.name}"
    return f"a tensor {kind}" if hasattr(tensor, "numpy") else f"{tensor.name}, {kind}"
