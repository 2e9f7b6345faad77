"""Pictures that more than one tutorial draws, and how figures become files."""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from hw3tf.course.tutorial import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(
    rows: int, columns: int, size: tuple[float, float]
) -> "tuple[Figure, np.ndarray]":
    """Returns a figure of `size` (width, height) inches and its array of axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def save_figure(figure: "Figure", path: str | pathlib.Path) -> None:
    """Writes a figure as PNG and, beside it, as SVG; in a notebook, shows it too.

    The files are written under another name and renamed when they are whole. Equal
    figures give equal files.

    Args:
        figure: A matplotlib figure.
        path: The PNG file; the SVG file has the same name but for its suffix.
    """
    import matplotlib

    path = pathlib.Path(path)
    for kind, options in (("png", {"dpi": 120}), ("svg", {"metadata": {"Date": None}})):
        with (
            whole_file(path.with_suffix(f".{kind}")) as beside,
            matplotlib.rc_context({"svg.hashsalt": "hw3tf"}),
        ):
            figure.savefig(beside, format=kind, **options)
    if "ipykernel" in sys.modules:
        from IPython.display import Image, display

        display(Image(filename=path))


def plot_learning_curves(
    history: Mapping[str, Sequence[float]], path: str | pathlib.Path
) -> None:
    """Draws loss and accuracy over the epochs, training beside validation.

    Args:
        history: Dict of lists `loss`, `accuracy`, `val_loss`, `val_accuracy`,
            one entry per epoch: `History.history` of `keras.Model.fit`.
        path: PNG file to write; the SVG file stands beside it.
    """
    epochs = range(1, len(history["loss"]) + 1)
    figure, axes = new_figure(1, 2, (9, 3.6))
    for axis, name in zip(axes[0], ("loss", "accuracy"), strict=True):
        axis.plot(epochs, history[name], "o-", label="training, with dropout")
        axis.plot(epochs, history[f"val_{name}"], "s-", label="validation")
        axis.set(xlabel="epoch", ylabel=name, xticks=list(epochs))
        axis.grid(alpha=0.3)
    axes[0, 0].legend()
    figure.suptitle("Learning curves")
    save_figure(figure, path)


def plot_attention(
    scores: ArrayLike, words: Sequence[str], path: str | pathlib.Path
) -> None:
    """Draws attention weights as heat maps, one panel per head.

    Args:
        scores: Array of shape `(num_heads, length, length)`; rows sum to 1.
        words: The `length` words of the text.
        path: PNG file to write; the SVG file stands beside it.

    Raises:
        ValueError: If there is another number of words than of scores.
    """
    scores = np.asarray(scores)
    if scores.ndim != 3 or scores.shape[1:] != (len(words), len(words)):
        raise ValueError(
            f"`scores` must have shape (num_heads, {len(words)}, {len(words)}). "
            f"Received: scores.shape={scores.shape}"
        )
    side = 1.6 + 0.22 * len(words)
    figure, axes = new_figure(1, len(scores), (len(scores) * side, side))
    for head, axis in enumerate(axes[0]):
        picture = axis.imshow(scores[head], cmap="viridis", vmin=0)
        axis.set_xticks(range(len(words)), words, rotation=90, fontsize=8)
        axis.set_yticks(range(len(words)), words, fontsize=8)
        axis.set(title=f"head {head}", xlabel="attends to")
        figure.colorbar(picture, ax=axis, shrink=0.7)
    figure.suptitle("Attention weights: the words at the left look at those below")
    save_figure(figure, path)


_LINES = ("o-", "s--", "^:", "d-.", "x-")


def plot_panels(path: str | pathlib.Path, *panels: Mapping[str, Any]) -> None:
    """Draws curves, in panels side by side. They can be told apart in grey: each curve
    of a panel has its own line and marker.

    Args:
        path: PNG file to write; the SVG file stands beside it.
        *panels: Dicts with `x`, the places, `lines`, from the name of a curve to its
            values, and what matplotlib's `axis.set` takes: `title`, `xlabel`, ... A
            panel whose `xscale` is `"log"` has its ticks at `x`.

    Raises:
        ValueError: If a panel has more curves than there are looks.

    Example:

    >>> panel = {"x": [1, 2], "lines": {"square": [1, 4]}, "xlabel": "metres"}
    >>> plot_panels(path, panel)  # doctest: +SKIP
    """
    figure, axes = new_figure(1, len(panels), (1.5 + 4.8 * len(panels), 4.2))
    for axis, panel in zip(axes[0], panels, strict=True):
        names = dict(panel)
        x, lines = names.pop("x"), names.pop("lines")
        if len(lines) > len(_LINES):
            raise ValueError(
                f"a panel must hold at most {len(_LINES)} lines. Received: {len(lines)}"
            )
        for style, (name, y) in zip(_LINES, lines.items(), strict=False):
            axis.plot(x, y, style, ms=4, label=name)
        axis.set(**names)
        if names.get("xscale") == "log":
            axis.set_xticks(x, x)
            axis.xaxis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend()
    save_figure(figure, path)


def plot_confusion(
    matrices: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    path: str | pathlib.Path,
) -> None:
    """Draws confusion matrices side by side, with their counts.

    Args:
        matrices: Dict from a title to an integer array `(classes, classes)`: rows are
            the true classes, columns the predicted ones.
        class_names: The names of the classes.
        path: PNG file to write; the SVG file stands beside it.

    Raises:
        ValueError: If a matrix has another shape.
    """
    size = len(class_names)
    for title, matrix in matrices.items():
        if np.shape(matrix) != (size, size):
            raise ValueError(
                f"`matrices` must have shape ({size}, {size}). "
                f"Received: {np.shape(matrix)} for {title!r}"
            )
    side = 2.2 + 0.38 * size
    figure, axes = new_figure(1, len(matrices), (side * len(matrices), side + 0.6))
    for axis, (title, matrix) in zip(axes[0], matrices.items(), strict=True):
        axis.imshow(np.sqrt(matrix), cmap="Greys")  # the root: mistakes are few
        middle = np.max(matrix) / 4
        for (i, j), count in np.ndenumerate(matrix):
            if count:
                color = "white" if count > middle else "black"
                axis.text(
                    j, i, count, ha="center", va="center", fontsize=7, color=color
                )
        axis.set_xticks(range(size), class_names, rotation=45, ha="right", fontsize=8)
        axis.set_yticks(range(size), class_names, fontsize=8)
        axis.set(title=title, xlabel="predicted class", ylabel="true class")
    figure.suptitle("Confusion: test images by true and predicted class")
    save_figure(figure, path)
