"""Pictures of tutorial 5: the time at every step, errors, losses."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hw3tf.course.plots.common import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINES = ("o-", "s--")


def times(groups: Mapping[str, Mapping[str, float]]) -> "Figure":
    """Draws times as bars, one below the other, on a logarithmic axis.

    Args:
        groups: Dict from what is computed to the times of each way to compute it, in
            nanoseconds. A group has a colour and a pattern of its own.

    Raises:
        ValueError: If there is no time, or one is not positive.
    """
    found = [time for group in groups.values() for time in group.values()]
    if not found or min(found) <= 0:
        raise ValueError(f"`groups` must hold positive times. Received: {groups}")
    figure, axes = new_figure(1, 1, (9, 1.3 + 0.36 * len(found)))
    axis, names = axes[0, 0], list[str]()
    looks = zip(groups.items(), ("C0", "C1", "C2"), ("", "//", ".."), strict=False)
    for (what, group), color, hatch in looks:
        places = range(len(names), len(names) + len(group))
        look = {"color": color, "hatch": hatch, "edgecolor": "white", "label": what}
        bars = axis.barh(places, list(group.values()), **look)
        axis.bar_label(bars, fmt="{:.2f} ns", padding=4)
        names += group
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set(xscale="log", xlim=(min(found) / 3, max(found) * 3))
    axis.set(xlabel="time per number in ns, logarithmic")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(loc="lower right")
    return figure


def errors(columns: Sequence[int], found: Mapping[str, np.ndarray]) -> "Figure":
    """Draws the largest errors of results over the length of a row.

    Args:
        columns: The lengths.
        found: Dict from a way to compute to an array `(lengths, 3)`: the errors of y
            and of the gradients of x and of the scale.
    """
    figure, axes = new_figure(1, 3, (12, 3.6))
    titles = ("y", "gradient of x", "gradient of the scale")
    for i, (axis, title) in enumerate(zip(axes[0], titles, strict=True)):
        for style, (name, error) in zip(_LINES, found.items(), strict=True):
            axis.plot(columns, error[:, i], style, ms=4, label=name)
        axis.set(xscale="log", yscale="log", xlabel="numbers in a row", title=title)
        axis.set_xticks(columns, columns)
        axis.xaxis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0, 0].set(ylabel="largest error")
    axes[0, 0].legend()
    return figure


def losses(found: Mapping[str, Sequence[float]]) -> "Figure":
    """Draws the losses of two models over the epochs of their training.

    Args:
        found: Dict from the name of a model to its loss after every epoch.
    """
    figure, axes = new_figure(1, 1, (6.4, 3.8))
    axis = axes[0, 0]
    for style, (name, loss) in zip(_LINES, found.items(), strict=True):
        epochs = range(1, len(loss) + 1)
        axis.plot(epochs, loss, style, ms=5, label=name)
        axis.set_xticks(epochs)
    axis.set(xlabel="epoch", ylabel="mean squared error")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure
