"""A check that an attention layer still holds what Keras or KerasHub gave it.

The kernel computes softmax, dropout and scale by itself. A layer whose class or object
was given others computes something else, even if no method of it is overridden: a
`_softmax` set in `build`, a dropout with a `noise_shape`, a scale that is learned.
"""

import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from hw3tf.layers.fallback import overrides

_LAST_AXIS = ((-1,),)


@dataclass(frozen=True)
class Stock:
    """What the kernel takes for granted about the layers of one class, beside their
    methods. Attributes that a layer does not have yet, as before it is built, are
    not looked at.

    Attributes:
        softmax: Name of the attribute that must be a `keras.layers.Softmax`.
        softmax_dtype: Its dtype; None for that of the layer.
        axes: Function of the layer: the tuples of axes that it may run over.
        dropout: Name of the attribute that must be a `keras.layers.Dropout`, applied
            to the attention weights.
        rate: Name of the attribute that switches this dropout on; None if it is
            always applied.
        scales: Names of attributes that must be numbers.
        values: Function of the layer: attributes and the values that they must have.
    """

    softmax: str | None = None
    softmax_dtype: str | None = "float32"
    axes: Callable[[Any], tuple[tuple[int, ...], ...]] = lambda layer: _LAST_AXIS
    dropout: str | None = None
    rate: str | None = None
    scales: Sequence[str] = field(default=())
    values: Callable[[Any], dict[str, Any]] = lambda layer: {}

    def changed(self, layer: Any) -> str:
        """Empty if `layer` is as it was made, else half a sentence: what differs."""
        return (
            self._changed_softmax(layer)
            or self._changed_dropout(layer)
            or self._changed_scale(layer)
            or self._changed_value(layer)
        )

    def dropout_of(self, layer: Any) -> Any:
        """The dropout that `layer` applies to its attention weights, or None."""
        if self.dropout is None or (self.rate and not getattr(layer, self.rate)):
            return None
        return getattr(layer, self.dropout)

    def _changed_softmax(self, layer: Any) -> str:
        name = self.softmax
        if name is None or not hasattr(layer, name):
            return ""
        part = getattr(layer, name)
        changed = _changed_part(name, part, keras.layers.Softmax)
        if changed:
            return changed
        axis = part.axis if isinstance(part.axis, tuple | list) else (part.axis,)
        axes = self.axes(layer)
        if tuple(axis) not in axes:
            return f"`{name}` runs over the axis {part.axis}, not {axes[0]}"
        dtype = self.softmax_dtype or layer.compute_dtype
        if part.compute_dtype != dtype:
            return f"`{name}` is of dtype {part.compute_dtype}, not {dtype}"
        return ""

    def _changed_dropout(self, layer: Any) -> str:
        name = self.dropout
        if name is None or not hasattr(layer, name):
            return ""
        part = self.dropout_of(layer)
        if part is None:
            return ""
        changed = _changed_part(name, part, keras.layers.Dropout)
        if not changed and part.noise_shape is not None:
            return f"`{name}` has a `noise_shape`"
        return changed

    def _changed_scale(self, layer: Any) -> str:
        for name in self.scales:
            value = getattr(layer, name, 1.0)
            if not isinstance(value, numbers.Real):
                return f"`{name}` is no number, but of type {type(value).__name__}"
        return ""

    def _changed_value(self, layer: Any) -> str:
        for name, wanted in self.values(layer).items():
            value = getattr(layer, name, wanted)
            if type(value) is not type(wanted) or value != wanted:
                return f"`{name}` is {value!r}, not {wanted!r}"
        return ""


def _changed_part(name: str | None, part: Any, cls: type[keras.layers.Layer]) -> str:
    """Empty if `part` is a layer of the class `cls` itself, as Keras made it."""
    if type(part) is not cls:
        return f"`{name}` is of type {type(part).__name__}, not {cls.__name__}"
    changed = overrides(part, cls, ("call",))
    if changed:
        return f"`{name}`: {changed}"
    if part.activity_regularizer is not None:
        return f"`{name}` has an activity regularizer"
    return ""


# A class that the kernel assumes nothing about, beside its methods.
NOTHING = Stock()
