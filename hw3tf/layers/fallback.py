"""When a layer computes as in Keras: what the kernel cannot take, and what a class or
an object has replaced."""

from collections.abc import Sequence
from typing import Any, Protocol


class Refused(ValueError):
    """The kernel cannot take these arguments. Nothing has happened yet: no dropout
    was drawn, no Keras mask taken off."""


class Checks(Protocol):
    """What the kernel takes for granted about the layers of one class, beside their
    methods."""

    def changed(self, layer: Any) -> str:
        """Empty if `layer` is as it was made, else half a sentence: what differs."""


def overrides(layer: Any, known_class: type, methods: Sequence[str]) -> str:
    """Empty if `layer` has `methods` of `known_class`, as its module defines them, else
    what it has instead."""
    for name in methods:
        if name in layer.__dict__:
            return f"the layer has a `{name}` of its own"
        for cls in type(layer).__mro__:
            if name not in cls.__dict__:
                continue
            if cls not in known_class.__mro__:
                return f"`{cls.__name__}` overrides `{name}`"
            if not _is_defined_in(cls, name):
                return f"`{cls.__name__}.{name}` was replaced"
            break
    return ""


def _is_defined_in(cls: type, name: str) -> bool:
    """Whether the method was written where `cls` was. What replaces it later comes from
    elsewhere, and `functools.wraps` does not hide its globals."""
    function = cls.__dict__[name]
    function = getattr(function, "__func__", function)  # of a static or class method
    code = getattr(function, "__code__", None)
    module = getattr(function, "__globals__", {}).get("__name__")
    return code is not None and code.co_name == name and module == cls.__module__
