"""Which activations the kernels know, by all of the names that they have."""

import functools
from collections.abc import Callable
from typing import Any

import keras

from hw3tf.reference.rnn import ACTIVATIONS

WORDS = tuple(ACTIVATIONS)


def resolved(name: str, activation: Any) -> str | Callable[[Any], Any]:
    """The word of an activation that the kernels know, or the function that it is.

    Args:
        name: That of the parameter, for errors.
        activation: A word of the kernels, a name that Keras knows, a function of
            tensors, or None, which is `"linear"`.

    Raises:
        ValueError: If it is no such thing.
    """
    if activation is None:
        return "linear"
    if isinstance(activation, str):
        if activation in WORDS:
            return activation
        try:
            return resolved(name, keras.activations.get(activation))
        except ValueError:
            pass
    elif callable(activation):
        for function, word in _words():
            if activation is function:
                return word
        return activation
    raise ValueError(
        f"`{name}` must be one of {WORDS}, another name of keras.activations, a "
        f"function of tensors, or None. Received: {name}={activation!r}"
    )


@functools.cache
def _words() -> list[tuple[Callable[..., Any], str]]:
    """The functions of Keras and TensorFlow that compute what the words say."""
    places = [keras.activations, keras.ops]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        places += [tf, tf.nn, tf.math]
    return [
        (function, word)
        for place in places
        for word in WORDS
        if (function := getattr(place, word, None)) is not None
    ]


def in_words(activation: Any) -> str:
    """The name of a function, for messages."""
    return str(getattr(activation, "__name__", activation))
