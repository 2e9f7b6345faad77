"""The layers of a model, and the functions that it has compiled."""

from collections.abc import Iterator
from typing import Any

import keras

# Functions that a model has compiled, and compiles again if they are None.
COMPILED = ("train_function", "test_function", "predict_function", "generate_function")


def walk(model: Any) -> Iterator[tuple[str, Any]]:
    """Path and layer of `model` and all in it, each once, in the order of the calls."""
    seen = {id(model)}

    def below(parent: Any, prefix: Any) -> Iterator[tuple[str, Any]]:
        for layer in parent._flatten_layers(include_self=False, recursive=False):
            if id(layer) not in seen:
                seen.add(id(layer))
                yield prefix + layer.name, layer
                yield from below(layer, f"{prefix}{layer.name}/")

    yield model.name, model
    yield from below(model, "")


def reset_functions(model: Any) -> None:
    """Lets the models in `model` compile their functions anew."""
    for _, layer in walk(model):
        for name in COMPILED:
            if isinstance(layer, keras.Model) and getattr(layer, name, None):
                setattr(layer, name, None)
