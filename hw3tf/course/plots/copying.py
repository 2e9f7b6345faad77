"""Pictures of tutorial 3: scores, weights, and how good the copies are."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hw3tf.course.plots.common import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _names(count: int) -> list[str]:
    return [f"$x_{i}$" for i in range(1, count + 1)]


def _heat_map(axis: Any, values: np.ndarray, title: str, digits: int = 2) -> None:
    """A matrix with its numbers: rows are queries, columns keys."""
    axis.imshow(values, cmap="Blues", vmin=0, vmax=1.4 * np.max(values))
    for (i, j), value in np.ndenumerate(values):
        axis.text(j, i, f"{value:.{digits}f}", ha="center", va="center")
    names = _names(len(values))
    axis.set_xticks(range(len(names)), names)
    axis.set_yticks(range(len(names)), names)
    axis.set(title=title, xlabel="looks at", ylabel="query")


def scores_and_weights(
    betas: Sequence[float], scores: np.ndarray, weights: np.ndarray
) -> "Figure":
    """Draws the scores above the weights that the softmax makes of them, one column
    per norm.

    Args:
        betas: The norms.
        scores, weights: Arrays of shape `(norms, tokens, tokens)`.
    """
    figure, axes = new_figure(2, len(betas), (3.5 * len(betas), 6.8))
    for column, beta in enumerate(betas):
        top, bottom = axes[:, column]
        rounded = scores[column].round(9) + 0.0  # no "-0.0"
        _heat_map(top, rounded, f"scores, $\\beta = {beta:g}$", digits=1)
        _heat_map(bottom, weights[column], f"weights, $\\beta = {beta:g}$")
    return figure


def weights_by_norm(betas: np.ndarray, weights: np.ndarray) -> "Figure":
    """Draws four of the weights over the norm.

    Args:
        betas: The norms.
        weights: Array of shape `(norms, 3, 3)`.
    """
    figure, axes = new_figure(1, 1, (7, 4.2))
    axis = axes[0, 0]
    shown = betas <= 4
    lines = (((0, 0), "-"), ((1, 1), "-."), ((0, 2), "--"), ((0, 1), ":"))
    for (i, j), style in lines:
        name = f"$w_{{{i + 1}{j + 1}}}$: $x_{i + 1}$ looks at $x_{j + 1}$"
        axis.plot(betas[shown], weights[shown, i, j], style, label=name)
    axis.set(xlabel=r"$\beta$, norm of $a, b, c, d$", ylabel="weight")
    axis.set(title="Weights that the kernel computes")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def copy_errors(
    betas: np.ndarray,
    errors: np.ndarray,
    exact: np.ndarray,
    kernel_off_by: np.ndarray,
    good: tuple[float, float],
) -> "Figure":
    """Draws how far the outputs are from the tokens, on paper and on the kernel.

    Args:
        betas: The norms of the vectors.
        errors: The kernel's errors: `(norms, 2)`, of x1 and of x2.
        exact: Those of the closed form.
        kernel_off_by: The difference between kernel and closed form, one per norm.
        good: The norm from which on a copy is good, and the error that is good.
    """
    figure, axes = new_figure(1, 1, (8, 4.6))
    axis = axes[0, 0]
    for i, style in enumerate(("-", "-.")):
        name = f"copy of $x_{i + 1}$, closed form"
        (line,) = axis.plot(betas, exact[:, i], style, label=name)
        color, name = line.get_color(), f"copy of $x_{i + 1}$, kernel"
        axis.plot(betas[::4], errors[::4, i], "os"[i], ms=4, color=color, label=name)
    axis.plot(betas, kernel_off_by, "k:", label="kernel minus closed form")
    beta, error = good
    axis.axhline(error, color="gray", lw=0.8)
    axis.axvline(beta, color="gray", lw=0.8, label=rf"$\beta$ = {beta:.2f}")
    axis.set(xscale="log", yscale="log", ylim=(1e-9, 3))
    axis.set(title="How far the output is from the token")
    axis.set(xlabel=r"$\beta$, norm of $a, b, c, d$", ylabel="norms of the token")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    return figure


def weights_of_tokens(weights: np.ndarray, title: str) -> "Figure":
    """Draws one matrix of weights `(tokens, tokens)` with its numbers."""
    figure, axes = new_figure(1, 1, (4.6, 4.4))
    _heat_map(axes[0, 0], weights, title)
    return figure


def scaled_norms(found: Mapping[int, float], beta: float) -> "Figure":
    """Draws the norm that a copy needs if scores are divided by the root of the size.

    Args:
        found: Dict from the size of a vector to the norm that was found.
        beta: The norm without the division.
    """
    figure, axes = new_figure(1, 1, (6.4, 4.2))
    axis = axes[0, 0]
    sizes = np.array(list(found))
    line = rf"${beta:.2f}\,n^{{1/4}}$"
    axis.loglog(sizes, beta * sizes**0.25, "-", label=line)
    axis.loglog(sizes, list(found.values()), "ko", ms=5, label="kernel, by bisection")
    axis.set(title=r"Scores divided by $\sqrt{n}$: the norm that a copy needs")
    axis.set(xlabel="$n$, numbers in a vector", ylabel=r"$\beta$ of a copy to 0.001")
    axis.set_xticks(sizes, sizes)
    axis.set_yticks([3, 5, 10, 15], [3, 5, 10, 15])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def noisy_copies(rows: np.ndarray, heads: Sequence[float] | None = None) -> "Figure":
    """Draws the share of tokens that are copied in spite of noise in their norms.

    Args:
        rows: One row per size of the noise: the size, the share on paper, the share
            that attention without weights copies.
        heads: The share that two heads copy. Left out if None, the default.
    """
    figure, axes = new_figure(1, 1, (6.4, 4.2))
    axis = axes[0, 0]
    sigma, expected, plain = rows.T
    axis.plot(sigma, expected, "-", label=r"$\Phi(\ln 2/(\sigma\sqrt{2}))$")
    axis.plot(sigma, plain, "ko", ms=5, label="kernel, without weights")
    if heads is not None:
        axis.plot(sigma, heads, "s--", ms=5, label="kernel, two heads")
    axis.set(title="Noisy norms: how many tokens are copied", ylim=(0.5, 1.03))
    axis.set(xlabel=r"$\sigma$ of the noise", ylabel="share of tokens")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def heads(points: np.ndarray, weights: np.ndarray) -> "Figure":
    """Draws where the heads send the tokens, and the weights that follow.

    Args:
        points: Queries and keys of a head: `(tokens, 2)`.
        weights: Array of shape `(heads, tokens, tokens)`.
    """
    figure, axes = new_figure(1, 1 + len(weights), (4.1 * (1 + len(weights)), 4.2))
    axis = axes[0, 0]
    turn, radius = np.linspace(0, 2 * np.pi, 100), np.linalg.norm(points, axis=1).max()
    axis.plot(radius * np.cos(turn), radius * np.sin(turn), ":", color="gray")
    for name, point in zip(_names(len(points)), points, strict=True):
        axis.annotate("", point, (0, 0), arrowprops={"arrowstyle": "-|>", "fc": "k"})
        axis.text(*(1.2 * point), name, ha="center", va="center", fontsize=13)
    limits = (-1.5 * radius, 1.5 * radius)
    axis.set(xlim=limits, ylim=limits, aspect="equal")
    axis.set(title="Queries and keys", xlabel="first", ylabel="second")
    for head, axis in enumerate(axes[0, 1:]):
        _heat_map(axis, weights[head], f"Weights of head {head}")
    return figure


def trained_maps(
    maps: Mapping[str, np.ndarray], tokens: np.ndarray, accuracies: Mapping[str, float]
) -> "Figure":
    """Draws what trained layers look at, in one sequence.

    Args:
        maps: Dict from the name of a layer to its weights `(length, length)`.
        tokens: The tokens of the sequence.
        accuracies: The share of tokens that each layer gets right.
    """
    figure, axes = new_figure(1, len(maps), (3.7 * len(maps), 4.9))
    for axis, (name, weights) in zip(axes[0], maps.items(), strict=True):
        axis.imshow(weights, cmap="Greys", vmin=0, vmax=1)
        axis.set_xticks(range(len(tokens)), tokens, fontsize=8)
        axis.set_yticks(range(len(tokens)), tokens, fontsize=8)
        title = f"{name}\n{accuracies[name]:.1%} right"
        axis.set(title=title, xlabel="looks at token")
    axes[0, 0].set_ylabel("token at the query")
    figure.suptitle("Attention of the trained layers, one sequence")
    return figure
