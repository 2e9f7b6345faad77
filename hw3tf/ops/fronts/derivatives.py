"""What is said of derivatives that the kernels do not compute, on every backend."""

import functools
import warnings

import keras

# What the reference keeps of each.
KEEPS = {
    "attention": "matrices of query length x key length",
    "a recurrent layer": "all timesteps",
}
STOP = {"jax": "jax.lax.stop_gradient", "torch": "Tensor.detach"}


def remedy(what: str) -> str:
    """What to do about it, in a sentence.

    Args:
        what: A key of `KEEPS`.
    """
    stop = STOP.get(keras.backend.backend(), "tf.stop_gradient")
    return (
        f"`hw3tf.restore(model)`, or HW3TF_PATH=reference in the environment, computes "
        f"{what} in pure Keras, which has all derivatives; `{stop}` around a gradient "
        "that is used as a number says that no derivative of it is wanted."
    )


@functools.cache
def say_once(what: str) -> None:
    """Warns that a second derivative is computed in pure Keras.

    Args:
        what: A key of `KEEPS`.
    """
    warnings.warn(
        f"hw3tf: a second derivative of {what}, or forward mode, is computed in pure "
        f"Keras, which keeps {KEEPS[what]}. {remedy(what)}",
        RuntimeWarning,
        stacklevel=3,
    )
