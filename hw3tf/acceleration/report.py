"""The report of `accelerate`, layer by layer."""

from dataclasses import dataclass
from typing import Any

from hw3tf.acceleration.patches import detach
from hw3tf.ops.paths import CallPath


@dataclass(frozen=True)
class LayerReport:
    """One layer of a model with attention or recurrence.

    Attributes:
        path: Names of the layers from the model down to this one, joined by `/`.
        class_name: Name of the layer's class.
        fused: Whether it runs on the kernel.
        reason: A phrase that says what was replaced, or why nothing was.
    """

    path: str
    class_name: str
    fused: bool
    reason: str


class AccelerationReport:
    """The changes of a call of `hw3tf.accelerate`; prints as a table.

    In a `with` statement it undoes the changes of that call on leaving.

    Attributes:
        layers: List of `LayerReport`, one for each layer with attention or recurrence.
        path: The `hw3tf.ops.AttentionPath` of calls in this process.
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
        self, layers: Any, path: CallPath, changed: list[Any], reset: Any
    ) -> None:
        self.layers = list(layers)
        self.path = path
        self._changed = changed
        self._reset = reset

    @property
    def num_fused(self) -> int:
        return sum(layer.fused for layer in self.layers)

    def __enter__(self) -> "AccelerationReport":
        return self

    def __exit__(self, *_: Any) -> None:
        for layer in self._changed:
            detach(layer)
        if self._changed:
            self._reset()
        self._changed = []

    def __str__(self) -> str:
        if not self.layers:
            return f"No layer with attention or recurrence found. Kernel: {self.path}"
        rows = [("layer", "class", "fused", "why")]
        for layer in self.layers:
            fused = "yes" if layer.fused else "no"
            rows.append((layer.path, layer.class_name, fused, layer.reason))
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row[:3], widths, strict=True))
            + "  "
            + row[3]
            for row in rows
        ]
        count = f"{self.num_fused} of {len(self.layers)} layers"
        words = f"{count} with attention or recurrence are fused"
        lines.append(f"{words}. Kernel: {self.path}")
        return "\n".join(lines)

    __repr__ = __str__
