"""What can be said of one layer: whether it attends, and what to replace."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hw3tf.layers.fused_attention import overrides


@dataclass(frozen=True)
class Verdict:
    """Whether the kernel can take over a layer's attention.

    Attributes:
        attributes: Names and values to replace on the layer, none if it is on the
            kernel already; None if the kernel cannot take over.
        reason: What is replaced, or why nothing is: half a sentence.
    """

    attributes: dict[str, Any] | None
    reason: str


@dataclass(frozen=True)
class Family:
    """How the attention layers of one class go to the kernel.

    Attributes:
        replace: Function of the layer: a dict of names and functions to replace
            on it, or half a sentence why this layer has to stay as it is.
        methods: Names of the methods that `replace` reproduces or relies on. A
            subclass that overrides one of them is somebody else's attention.
    """

    replace: Callable[[Any], dict[str, Any] | str]
    methods: tuple[str, ...]

    def verdict(self, layer, known_class):
        overridden = overrides(layer, known_class, self.methods)
        if overridden:
            return Verdict(None, overridden)
        attributes = self.replace(layer)
        if isinstance(attributes, str):
            return Verdict(None, attributes)
        names = [name for name, value in attributes.items() if callable(value)]
        return Verdict(attributes, f"`{names[0]}` is on the kernel")


def qualified_name(cls):
    """Module and name, to tell a class without importing its package."""
    return f"{cls.__module__}.{cls.__qualname__}"
