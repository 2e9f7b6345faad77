"""Layers of `hw3tf.course` in saved models.

Keras loads only classes that it has been told of, and `import hw3tf` does not import
the course. So it tells Keras of these by name, and imports them for a file that has
one.
"""

import importlib
import sys
from typing import Any

import keras

# The name under which Keras saves a layer -> its module.
SAVED_NAMES = {
    "hw3tf>NaiveBayesFeatures": "hw3tf.course.data.naive_bayes",
    "hw3tf>ReviewTokenizer": "hw3tf.course.data.text",
}


class _Later:
    """Stands for a class until it is imported, which puts the class in its place."""

    def __init__(self, saved_name: str) -> None:
        self.saved_name = saved_name

    def from_config(self, config: dict[str, Any]) -> keras.layers.Layer:
        module = importlib.import_module(SAVED_NAMES[self.saved_name])
        layer = getattr(module, self.saved_name.partition(">")[2])
        return layer.from_config(config)


def register() -> None:
    """Tells Keras of the layers that are not imported yet."""
    for name, module in SAVED_NAMES.items():
        if module not in sys.modules:
            keras.saving.get_custom_objects()[name] = _Later(name)
