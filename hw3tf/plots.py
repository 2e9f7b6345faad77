"""Pictures that more than one tutorial draws. Needs matplotlib (the extra
`tutorials`); writes PNG files, opens no window."""

import numpy as np


def _figure(rows, columns, size):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, np.atleast_1d(figure.subplots(rows, columns))


def plot_learning_curves(history, path):
    """Draws loss and accuracy over the epochs, training beside validation.

    Args:
        history: Dict of lists `loss`, `accuracy`, `val_loss`, `val_accuracy`,
            one entry per epoch: `History.history` of `keras.Model.fit`.
        path: PNG file to write.
    """
    epochs = range(1, len(history["loss"]) + 1)
    figure, axes = _figure(1, 2, (9, 3.6))
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        axis.plot(epochs, history[name], "o-", label="training, with dropout")
        axis.plot(epochs, history[f"val_{name}"], "s-", label="validation")
        axis.set(xlabel="epoch", ylabel=name, xticks=list(epochs))
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle("Learning curves")
    figure.savefig(path, dpi=120)


def plot_attention(scores, words, path):
    """Draws attention weights as heat maps, one panel per head.

    Args:
        scores: Array of shape `(num_heads, length, length)`; rows sum to 1.
        words: The `length` words of the text.
        path: PNG file to write.

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
    figure, axes = _figure(1, len(scores), (len(scores) * side, side))
    for head, axis in enumerate(axes):
        picture = axis.imshow(scores[head], cmap="viridis", vmin=0)
        axis.set_xticks(range(len(words)), words, rotation=90, fontsize=8)
        axis.set_yticks(range(len(words)), words, fontsize=8)
        axis.set(title=f"head {head}", xlabel="attends to")
        figure.colorbar(picture, ax=axis, shrink=0.7)
    figure.suptitle("Attention weights: the words at the left look at those below")
    figure.savefig(path, dpi=120)
