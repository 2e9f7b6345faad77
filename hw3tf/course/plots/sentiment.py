"""Pictures of tutorial 4: accuracies, where attention looks, and where a net errs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from hw3tf.course.plots.common import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def accuracies(found: Mapping[str, float], chance: float = 0.5) -> "Figure":
    """Draws one bar per model, in the order of the dict, with its number.

    Args:
        found: Names of models and their accuracies.
        chance: What guessing gets: a dashed line, if the bars reach down to it.
    """
    figure, axes = new_figure(1, 1, (7.5, 1.2 + 0.42 * len(found)))
    axis, rates = axes[0, 0], list(found.values())
    bars = axis.barh(range(len(found)), rates, color="#1f5fbf", height=0.65)
    bars[-1].set_color("#d95f02")  # the newest
    axis.bar_label(bars, [f"{rate:.4f}" for rate in rates], padding=4)
    lowest = max(0.0, min(rates) - 0.03)
    if lowest < chance:
        axis.axvline(chance, color="gray", ls="--", lw=1)
    axis.set_yticks(range(len(found)), list(found))
    axis.invert_yaxis()
    axis.set(xlim=(lowest, max(rates) + 0.012 + 0.06 * (max(rates) - lowest)))
    axis.set(xlabel="share of the test reviews that are classified correctly")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def attention(
    weights: ArrayLike, words: Sequence[str], kept: Sequence[int] | None = None
) -> "Figure":
    """Draws attention weights as heat maps, one panel per head.

    Args:
        weights: Array of shape `(num_heads, length, length)`; rows sum to 1.
        words: The `length` words of the text.
        kept: The words to show, by their index. None, the default, for all.

    Raises:
        ValueError: If there is another number of words than of weights.
    """
    weights = np.asarray(weights)
    if weights.ndim != 3 or weights.shape[1:] != (len(words), len(words)):
        raise ValueError(
            f"`weights` must have shape (num_heads, {len(words)}, {len(words)}). "
            f"Received: weights.shape={weights.shape}"
        )
    shown = list(range(len(words))) if kept is None else list(kept)
    names = [words[i] for i in shown]
    side = 2.0 + 0.34 * len(shown)
    figure, axes = new_figure(1, len(weights), (len(weights) * side, side))
    for head, axis in enumerate(axes[0]):
        picture = axis.imshow(weights[head][np.ix_(shown, shown)], cmap="Blues", vmin=0)
        axis.set_xticks(range(len(shown)), names, rotation=90)
        axis.set_yticks(range(len(shown)), names)
        axis.set(title=f"head {head}", xlabel="is looked at")
        figure.colorbar(picture, ax=axis, shrink=0.7)
    axes[0, 0].set_ylabel("looks")
    return figure


def lengths(right: np.ndarray, words: np.ndarray) -> "Figure":
    """Draws accuracy in ten groups of equal size, from short reviews to long ones, with
    two standard errors.

    Args:
        right: Boolean array, whether each review is classified correctly.
        words: Integer array, the words that each has.
    """
    groups = np.array_split(np.argsort(words, kind="stable"), 10)
    middle = [float(np.median(words[rows])) for rows in groups]
    rates = np.array([right[rows].mean() for rows in groups])
    error = 2 * np.sqrt(rates * (1 - rates) / [len(rows) for rows in groups])
    figure, axes = new_figure(1, 1, (6.5, 4))
    axis = axes[0, 0]
    axis.errorbar(middle, rates, error, fmt="ko-", capsize=3, label="a tenth of them")
    axis.axhline(right.mean(), color="gray", ls="--", label="all test reviews")
    axis.set(ylabel="accuracy", xlabel="words, median of the group", xscale="log")
    axis.minorticks_off()
    ticks = [
        n for n in (25, 50, 100, 200, 400, 800) if middle[0] < 2 * n < 4 * middle[-1]
    ]
    axis.set_xticks(ticks, labels=[str(n) for n in ticks])
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def learning_curves(history: Mapping[str, Sequence[float]]) -> "Figure":
    """Draws loss and accuracy over the epochs, training beside validation.

    Args:
        history: Dict of lists `loss`, `accuracy`, `val_loss`, `val_accuracy`,
            one entry per epoch: `History.history` of `keras.Model.fit`.
    """
    epochs = range(1, len(history["loss"]) + 1)
    figure, axes = new_figure(1, 2, (9, 3.6))
    for axis, name in zip(axes[0], ("loss", "accuracy"), strict=True):
        axis.plot(epochs, history[name], "o-", label="training, with dropout")
        axis.plot(epochs, history[f"val_{name}"], "s-", label="validation")
        axis.set(xlabel="epoch", ylabel=name, xticks=list(epochs))
        axis.grid(alpha=0.3)
    axes[0, 0].legend()
    return figure
