"""Pictures that more than one tutorial draws, and how figures become files."""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

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
