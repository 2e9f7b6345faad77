"""Pictures of tutorial 2: the net unrolled, its outputs, floats, overflow."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hw3tf.course.plots.common import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Place = tuple[float, float]


def _box(axis: Any, place: Place, text: str, color: str, shape: str) -> None:
    box = {"boxstyle": f"{shape},pad=0.5", "fc": color, "ec": "black"}
    x, y = place
    axis.text(x, y, text, ha="center", va="center", fontsize=12, bbox=box)


def _arrow(axis: Any, start: Place, end: Place, label: str, offset: Place) -> None:
    gap = 20 if start[0] == end[0] else 36  # in points: half a box
    style = {"arrowstyle": "-|>", "fc": "black", "shrinkA": gap, "shrinkB": gap}
    axis.annotate("", end, start, arrowprops=style)
    middle = np.add(start, end) / 2 + offset
    axis.text(*middle, label, ha="center", va="center", fontsize=11, color="C3")


def unrolled(layer: Any, output: Callable[[Any], Any], x: Sequence[int]) -> "Figure":
    """Draws a recurrent net of one unit, one column per step, with the layer's own
    weights and states.

    Args:
        layer: The recurrent layer: integers `(1, timesteps, 1)` -> states `(1, 1)`.
        output: What the net makes of the last state.
        x: The sequence.
    """
    w, u = (int(np.squeeze(weight)) for weight in layer.get_weights())
    array = np.reshape(x, (1, -1, 1))
    states = [layer(array[:, : t + 1]) for t in range(len(x))]
    size = max(11.0, 1.9 * len(x) + 3)
    figure, axes = new_figure(1, 1, (size, 3.9))
    axis, last = axes[0, 0], len(x)
    _box(axis, (0, 1), "$h_0 = 0$", "white", "round")
    for t, value in enumerate(x, 1):
        shape, color = ("round", "#cfe3f5") if t % 2 else ("square", "#fbe0b8")
        _box(axis, (t, 0), f"$x_{{{t}}} = {value}$", color, shape)
        state = int(states[t - 1][0, 0])
        _box(axis, (t, 1), f"$h_{{{t}}} = {state}$", "#e8e8e8", "round")
        _arrow(axis, (t, 0), (t, 1), f"${w}$", (0.1, 0))
        _arrow(axis, (t - 1, 1), (t, 1), f"${u}$", (0, 0.09))
    y = float(np.squeeze(output(states[-1])))
    _box(axis, (last + 1.15, 1), f"$y = {y:.3g}$", "#d5ecd4", "round")
    _arrow(axis, (last, 1), (last + 1.15, 1), "output", (0.05, 0.13))
    terms = " + ".join(f"({w * u ** (last - t)}) · {v}" for t, v in enumerate(x, 1))
    text = f"$h_{{{last}}}$ = {terms} = {int(states[-1][0, 0])}".replace(
        "-", "\N{MINUS SIGN}"
    )
    axis.text((last + 1) / 2, -0.5, text, ha="center", fontsize=11)
    axis.set(xlim=(-0.5, last + 1.7), ylim=(-0.65, 1.45), title="The net, unrolled")
    axis.axis("off")
    return figure


def plane(odd: np.ndarray, even: np.ndarray, outputs: np.ndarray) -> "Figure":
    """Draws sequences as points, at the sums of their numbers at odd and at even
    positions, by what the net puts out for them.

    Args:
        odd, even: The two sums, one pair per sequence.
        outputs: What the net puts out for each.
    """
    figure, axes = new_figure(1, 1, (6.4, 6.6))
    axis = axes[0, 0]
    looks = {0.0: ("v", "C1"), 0.5: ("o", "k"), 1.0: ("^", "C0")}
    for output, (marker, color) in looks.items():
        chosen = outputs == output
        label = f"$y = {output:g}$, {chosen.sum():,} times"
        axis.plot(odd[chosen], even[chosen], marker, color=color, ms=6, label=label)
    other = ~np.isin(outputs, list(looks))
    if other.any():
        axis.plot(odd[other], even[other], "x", color="C3", label="another output")
    axis.set(xlabel="$O$, sum at odd positions", ylabel="$E$, sum at even positions")
    axis.set(title="What the net puts out", aspect="equal")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    return figure


def floats(
    exact: np.ndarray, errors: Mapping[int, np.ndarray], limit: int = 2**24
) -> "Figure":
    """Draws a state that grows, and what float32 makes of it and of others.

    Args:
        exact: The states that grow by the first of the steps in `errors`.
        errors: Dict from a step to the float32 states minus the exact ones.
        limit: The largest number up to which float32 holds every integer.
    """
    figure, axes = new_figure(1, 2, (11, 4.0))
    left, right = axes[0]
    even = np.arange(2, len(exact) + 1, 2)
    left.plot(even, exact[1::2] / 1e6, label="exact state")
    left.axhline(limit / 1e6, color="C3", ls="--", label="$2^{24}$")
    left.set(ylabel="last state, in millions")
    left.set(title=f"A state that grows by {next(iter(errors))} a step")
    looks = ("C0-", "C2--", "k:", "C1-.", "C4-", "C5--")
    for (step, error), look in zip(errors.items(), looks, strict=False):
        right.plot(even, error[1::2], look, label=f"steps of {step}")
    right.set(title="What float32 makes of it", ylabel="float32 minus exact state")
    beyond = np.abs(exact) > limit
    if beyond.any():
        right.axvline(np.argmax(beyond), color="C3", ls="--", lw=0.8)
    for axis in (left, right):
        axis.set(xlabel="length of the sequence (even)")
        axis.set_xticks(np.linspace(0, len(exact), 5, dtype=int))
        axis.grid(alpha=0.3)
        axis.legend()
    return figure


def policies(states: Mapping[str, np.ndarray]) -> "Figure":
    """Draws what an int32 layer makes of a state that does not fit, by policy.

    Args:
        states: Dict of arrays, one state per step: `exact`, `wrap`, `saturate`.
    """
    figure, axes = new_figure(1, 1, (8, 4.2))
    axis = axes[0, 0]
    even = np.arange(2, len(states["exact"]) + 1, 2)
    for name, style in (("exact", "k:"), ("wrap", "C1s-"), ("saturate", "C0o-")):
        axis.plot(even, states[name][1::2] / 1e9, style, ms=4, label=name)
    for limit, name in ((-(2**31), "$-2^{31}$"), (2**31 - 1, "$2^{31} - 1$")):
        axis.axhline(limit / 1e9, color="C3", ls="--", lw=0.8)
        axis.text(2, limit / 1e9 + 0.1, name, color="C3")
    length = 1 + np.argmax(np.abs(states["exact"]) > 2**31 - 1)
    axis.axvline(length, color="C2", ls="-.", label="raise: OverflowError from here on")
    axis.set(xlabel="length of the sequence (even)", ylabel="last state, in $10^9$")
    axis.set(title="A state that does not fit into int32, by policy")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure
