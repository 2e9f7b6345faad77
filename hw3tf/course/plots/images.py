"""Pictures of tutorial 1: images as rows, and nets compared. A net has one colour, line
and marker in all of them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hw3tf.course.plots.common import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Name of a net: colour, line and marker. They can be told apart in grey.
LOOKS = {
    "CNN": ("C0", "o-"),
    "GRU": ("C1", "s--"),
    "bidirectional GRU": ("C2", "^:"),
    "CNN trained on cut images": ("C3", "d-."),
    "GRU of Keras": ("C4", "x-"),
}


def images_and_rows(images: np.ndarray, names: Sequence[str]) -> "Figure":
    """Draws images side by side, and below the first as the sequence of its rows.

    Args:
        images: Array `(images, rows, columns)`, 0 = background.
        names: What each image shows.
    """
    count, rows, columns = images.shape
    figure, axes = new_figure(2, 1, (11, 4.6))
    grid, sequence = axes[:, 0]
    framed = np.pad(images, ((0, 0), (1, 1), (2, 2)))
    grid.imshow(np.concatenate(framed, axis=1), cmap="gray_r")
    grid.set_xticks((np.arange(count) + 0.5) * (columns + 4) - 0.5, names)
    grid.set(yticks=[], title="What the CNN looks at: grids")
    upright = np.zeros((columns, 2 * rows - 1), images.dtype)
    upright[:, ::2] = images[0].T
    sequence.imshow(upright, cmap="gray_r", aspect="auto")
    sequence.set_xticks(2 * np.arange(rows), range(1, rows + 1))
    sequence.set(yticks=[], xlabel="row")
    sequence.set_title(f"What the RNN reads: the rows of the first image, {names[0]}")
    return figure


def tall_images(images: np.ndarray, names: Sequence[str]) -> "Figure":
    """Draws tall images side by side.

    Args:
        images: Array `(images, rows, columns)`, 0 = background.
        names: The title of each.
    """
    figure, axes = new_figure(1, len(images), (1.9 * len(images), 4.6))
    for axis, image, name in zip(axes[0], images, names, strict=True):
        rows, columns = image.shape  # the first row is row 1
        place = (0.5, columns + 0.5, rows + 0.5, 0.5)
        axis.imshow(image, cmap="gray_r", extent=place)
        axis.set(xticks=[])
        axis.set_title(name, fontsize=9)
    axes[0, 0].set_ylabel("row")
    return figure


def by_class(
    right: Mapping[str, np.ndarray], labels: np.ndarray, class_names: Sequence[str]
) -> "Figure":
    """Draws how often each net is right, for each class.

    Args:
        right: Dict from the name of a net to whether it is right, for each image.
        labels: The class of each image.
        class_names: The names of the classes.
    """
    figure, axes = new_figure(1, 1, (11, 4))
    axis, width = axes[0, 0], 0.8 / len(right)
    places = np.arange(len(class_names))
    for i, (name, found) in enumerate(right.items()):
        shares = [np.mean(found[labels == label]) for label in places]
        left = places + width * (i - (len(right) - 1) / 2)
        color, hatch = LOOKS[name][0], ("", "//", "..")[i]
        look = {"color": color, "hatch": hatch, "edgecolor": "white"}
        axis.bar(left, shares, width, label=f"{name}: {np.mean(found):.3f}", **look)
    axis.set_xticks(places, class_names)
    axis.set(ylabel="share named right", ylim=(0, 1))
    axis.grid(alpha=0.3, axis="y")
    figure.legend(loc="outside upper center", ncols=len(right))
    return figure


def influence(changes: Mapping[str, np.ndarray]) -> "Figure":
    """Draws how much a net's features change with each row of an image; where they do
    not change at all, there is no mark.

    Args:
        changes: Dict from the name of a net to one number per row.
    """
    figure, axes = new_figure(1, 1, (8, 4))
    axis = axes[0, 0]
    for name, change in changes.items():
        color, style = LOOKS[name]
        shown = np.where(change > 0, change, np.nan)
        axis.plot(
            np.arange(1, 1 + len(change)), shown, style, color=color, ms=4, label=name
        )
    axis.set(yscale="log", xlabel="row that is changed", ylabel="largest change")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def curves(*panels: Mapping[str, Any], **common: Any) -> "Figure":
    """Draws a curve per net, in panels side by side.

    Args:
        *panels: Dicts with `x`, the places, `lines`, from the name of a net to its
            values, and what matplotlib's `axis.set` takes: `title`, `xlabel`, ... The
            `ylabel` is "accuracy" by default. A panel whose `xscale` is `"log"`
            has its ticks at `x`.
        **common: For all panels.

    Example:

    >>> lines = {"CNN": [0.9, 0.8], "GRU": [0.9, 0.3]}
    >>> figure = curves({"x": [0, 4], "lines": lines, "xlabel": "pixels"})
    """
    width = 1.5 + 4.8 * len(panels)
    figure, axes = new_figure(1, len(panels), (width, 4.2))
    for axis, panel in zip(axes[0], panels, strict=True):
        words = {"ylabel": "accuracy", **common, **panel}
        x, lines = words.pop("x"), words.pop("lines")
        for name, y in lines.items():
            color, style = LOOKS[name]
            axis.plot(x, y, style, color=color, ms=4, label=name)
        axis.set(**words)
        if words.get("xscale") == "log":
            axis.set_xticks(x, x)
            axis.xaxis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend()
    return figure
