"""`Logistic`: a yes or no, and everything between, from an integer."""

import math
from typing import Any

import keras
from keras import ops

# Beyond this, the logistic function is 0 or 1 in every float type.
_SATURATED = 1000.0


@keras.saving.register_keras_serializable(package="hw3tf")
class Logistic(keras.layers.Layer):
    """The logistic function of slope `gain`: `1 / (1 + exp(-gain * x))`.

    Made for integers: with the default, all of them are told apart from 0. In
    float32 the result is 1 for `x >= 1`, exactly 0.5 for `x = 0`, and 0 for
    `x <= -1`. A smaller gain gives what lies between.

    No `x` is too large: as a float, it is clamped to the range in which the function
    changes before it is multiplied, so nothing overflows, not even on the way.

    Gradients: the layer has no weights, and integers have no gradient; what comes
    before an integer does not train, what comes after it does. A float `x` has the
    gradient `gain * y * (1 - y)`, which is 0 where `y` is 0 or 1.

    The Keras mask of the input is passed on.

    Args:
        gain: Positive finite number, the slope at 0 times 4. Defaults to 1000.
        **kwargs: Passed to `keras.layers.Layer`; `dtype`, that of the output,
            defaults to float32.

    Call arguments:
        inputs: Integer or float tensor of any shape.

    Returns:
        Float tensor of the shape of `inputs`.

    Raises:
        ValueError: If `gain` is not positive and finite in the dtype of the layer,
            or if this is not a float dtype.
        TypeError: If the inputs are complex or strings.

    Example:

    >>> Logistic()(np.array([-(2**63), -1, 0, 1, 2**63 - 1])).numpy().tolist()
    [0.0, 0.0, 0.5, 1.0, 1.0]

    Reference:
        - Haykin, *Neural Networks*, 2nd edition, section 1.3, for the slope
    """

    def __init__(self, gain: float = 1000.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if "float" not in self.compute_dtype:
            raise ValueError(
                f"`dtype` must be a float dtype. Received: dtype={self.compute_dtype}"
            )
        number = isinstance(gain, (int, float)) and not isinstance(gain, bool)
        limit = _largest(self.compute_dtype)
        if not number or not (math.isfinite(gain) and 0 < gain <= limit):
            raise ValueError(
                f"`gain` must be a positive number, finite in {self.compute_dtype}. "
                f"Received: gain={gain!r}"
            )
        self.gain = float(gain)
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        if "int" not in dtype and "float" not in dtype and dtype != "bool":
            raise TypeError(
                "`inputs` must be integers or real numbers. "
                f"Received: inputs.dtype={dtype}"
            )
        # Clamped before it is multiplied: nothing on the way is infinite. A float32
        # holds every integer of 64 bits, rounded by at most 6e-8 of it.
        limit = min(_SATURATED / self.gain, _largest(self.compute_dtype))
        x = ops.clip(ops.cast(inputs, self.compute_dtype), -limit, limit)
        return ops.sigmoid(x * ops.convert_to_tensor(self.gain, x.dtype))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gain": self.gain}


def _largest(dtype: str) -> float:
    """The largest finite number of a float dtype."""
    return {"float16": 65504.0, "float64": 1.7976931348623157e308}.get(dtype, 3.3e38)
