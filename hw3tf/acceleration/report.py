"""The report of `accelerate`, layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hw3tf.acceleration.measurement import Measurement, measure
from hw3tf.acceleration.model_layers import reset_functions, walk
from hw3tf.acceleration.patches import detach, is_attached
from hw3tf.acceleration.table import table
from hw3tf.ops.paths import CallPath


@dataclass(frozen=True)
class LayerReport:
    """One layer of a model with attention or recurrence.

    Attributes:
        path: Names of the layers from the model down to this one, joined by `/`.
        class_name: Name of the layer's class.
        fused: Whether it runs on the kernel.
        reason: A phrase that says what was replaced, or why nothing was.
        gains_from: The sequence length from which on its attention or recurrence was
            faster than that of Keras in every case of benchmarks/libraries/lengths.py
            (inference on TensorFlow, float32); shorter ones may gain or not. None if
            the layer is not fused.
    """

    path: str
    class_name: str
    fused: bool
    reason: str
    gains_from: int | None = None


class AccelerationReport:
    """The changes of a call of `hw3tf.accelerate`; prints as a table.

    In a `with` statement it undoes the changes of that call on leaving.

    Attributes:
        layers: List of `LayerReport`, one for each layer with attention or recurrence.
        path: The `hw3tf.ops.AttentionPath` of calls in this process.
        notes: List of sentences on what else was changed.
        num_fused: How many of the layers run on the kernel.

    Example:

    >>> x = keras.Input((10, 16))
    >>> y = keras.layers.MultiHeadAttention(2, 8, name="attention")(x, x)
    >>> model = keras.Model(x, y)
    >>> with hw3tf.accelerate(model) as report:
    ...     _ = model(keras.random.normal((1, 10, 16)))
    >>> report.num_fused, report.layers[0].path
    (1, 'attention')
    """

    def __init__(
        self,
        model: Any,
        layers: Any,
        path: CallPath,
        changed: list[Any],
        notes: Sequence[str] = (),
    ) -> None:
        self.layers = list(layers)
        self.path = path
        self.notes = list(notes)
        self._model = model
        self._changed = changed

    @property
    def num_fused(self) -> int:
        return sum(layer.fused for layer in self.layers)

    def measure(self, inputs: Any, seconds: float = 3.0) -> Measurement:
        """Times the model on `inputs`, before and after `accelerate`.

        What a model gains depends on the share of its time that the kernels take over,
        and that depends on its sizes and on its inputs. Both forms of the model are
        compiled as `predict` compiles them, and take turns. The calls of the kernels
        are timed one by one, in calls of the model outside of a graph.

        Training gains differ: this measures inference alone. Afterwards the model is as
        before, the states of its layers included. Nothing else should run on the
        machine, and no other thread may call the model meanwhile.

        Args:
            inputs: A batch, as for the model's `predict_on_batch`: as large, and its
                sequences as long, as those that the model will get.
            seconds: How long to measure, beside what it takes to compile the model
                twice. Each form runs at least three times.

        Returns:
            A `hw3tf.acceleration.Measurement`, which prints as a table.

        Raises:
            TypeError: If `accelerate` was given a layer that is not a `keras.Model`.
            ValueError: If `seconds` is negative or not a number, or `accelerate` has
                changed no layer of the model, or they have been restored; or if the
                model traces its own calls, so that the kernels cannot be timed.

        Example:

        >>> x = keras.Input((10, 16))
        >>> model = keras.Model(x, keras.layers.LSTM(8, name="lstm")(x))
        >>> report = hw3tf.accelerate(model)
        >>> print(report.measure(np.zeros((2, 10, 16)), 0))  # doctest: +ELLIPSIS
        layer  calls  kernel, ms  of the model
        lstm   1      ...
        A call of the model: ... ms stock, ... ms accelerated, ...x as fast.
        ...
        """
        return measure(self._model, inputs, seconds)

    def __enter__(self) -> "AccelerationReport":
        return self

    def __exit__(self, *_: Any) -> None:
        for layer in self._changed:
            detach(layer)
        if self._changed:
            reset_functions(self._model)
        self._changed = []

    def __str__(self) -> str:
        if not self.layers:
            return f"No layer with attention or recurrence found. Kernel: {self.path}"
        rows = [("layer", "class", "fused", "faster from", "why")]
        for layer in self.layers:
            fused, gains = "yes" if layer.fused else "no", "-"
            if layer.gains_from is not None:
                gains = f"length {layer.gains_from}"
            row = layer.path, layer.class_name, fused, gains, layer.reason
            rows.append(row)
        count = f"{self.num_fused} of {len(self.layers)} layers"
        words = f"{count} with attention or recurrence are fused"
        lines = [table(rows), f"{words}. Kernel: {self.path}", *self.notes]
        if any(is_attached(layer) for _, layer in walk(self._model)):
            lines.append("`report.measure(inputs)` times the model before and after.")
        return "\n".join(lines)

    __repr__ = __str__
