"""Replacement of attributes of one layer, which can be undone.

They are put into the layer's `__dict__` without `setattr`: Keras and TensorFlow track
attributes that are set, and would save them. Config, class and weights stay as they
are; copies, clones and saved files do not contain the replacements.
"""

from typing import Any

_PATCH = "_hw3tf_patch"
_ABSENT = object()


class _Patch:
    """The replaced attributes. They are in an object of their own, because Keras looks
    for weights inside the dicts and lists that a layer has as attributes."""

    def __init__(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        self.before, self.after = before, after


def is_attached(layer: Any) -> bool:
    """Whether `attach` was called on `layer`, and `detach` not since."""
    return _PATCH in layer.__dict__


def attached(layer: Any) -> dict[str, Any]:
    """The attributes that `attach` has put on `layer`."""
    return dict(layer.__dict__[_PATCH].after)


def attach(layer: Any, attributes: dict[str, Any]) -> None:
    """Replaces `attributes`, a dict of names and values, on `layer` alone."""
    before = {name: layer.__dict__.get(name, _ABSENT) for name in attributes}
    layer.__dict__[_PATCH] = _Patch(before, attributes)
    layer.__dict__.update(attributes)


def detach(layer: Any) -> bool:
    """Undoes `attach`. Returns whether there was anything to undo."""
    patch = layer.__dict__.pop(_PATCH, None)
    if patch is None:
        return False
    for name, value in patch.before.items():
        if value is _ABSENT:
            layer.__dict__.pop(name, None)
        else:
            layer.__dict__[name] = value
    return True
