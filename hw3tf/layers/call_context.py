"""Keras's record of the layer call under way."""

import importlib
from typing import Any

_global_state = importlib.import_module("keras.src.backend.common.global_state")


def call_context() -> Any:
    """The `CallContext` of the outermost layer being called, or None.

    Outside of a layer call, Keras's own `Layer._get_call_context` makes one and leaves
    it to `Layer.__call__` to remove it. A direct `layer.call(x)` never removed it, and
    later layers took `training` from it.
    """
    return _global_state.get_global_attribute("current_call_ctx")


def training_under_way() -> bool | None:
    """Whether the layer call under way is one of training, for layers whose `call`
    has no such argument; None if no layer is being called."""
    context = call_context()
    return None if context is None else context.get_value("training")
