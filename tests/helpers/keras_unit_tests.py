"""Keras's own unit tests, from the installed package, on layers of ours."""

import importlib.util
import pathlib

import keras
from keras.src import testing


class Layers:
    """`keras.layers` with some layers replaced."""

    def __init__(self, **replaced):
        self.__dict__.update(replaced)

    def __getattr__(self, name):
        return getattr(keras.src.layers, name)


def keras_tests(module, **replaced):
    """The test class in a module of Keras, such as `rnn.lstm_test`, which is loaded
    anew: in this copy the names of layers stand for others."""
    path = pathlib.Path(keras.src.layers.__file__).parent.joinpath(*module.split("."))
    name = f"{module.replace('.', '_')}_on_ours"
    spec = importlib.util.spec_from_file_location(name, f"{path}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    loaded.layers = Layers(**replaced)
    classes = [x for x in vars(loaded).values() if isinstance(x, type)]
    (found,) = [
        x
        for x in classes
        if x.__module__ == loaded.__name__ and issubclass(x, testing.TestCase)
    ]
    return found
