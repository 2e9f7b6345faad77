"""The tables and the picture of recurrence/layers/run.py, from its JSON."""

import libraries.report
from harness import table
from libraries.report import (
    ahead,
    ahead_in_words,
    curve_of,
    draw_rates,
    judged,
    libraries_of,
)
from libraries.run import OURS
from recurrence.layers.cases import CURVES


def share_of_peak(case, run):
    """Of hw3tf; None if unknown."""
    peak = (run["peak"] or {}).get("float32")
    if not peak or OURS not in case["libraries"]:
        return None
    return case["flops"] / case["libraries"][OURS]["best"] * 1e-9 / peak


def rate_of_cache(case, run):
    """GB/s per thread at which hw3tf reads recurrent weights; None if unknown."""
    if OURS not in case["libraries"]:
        return None
    seconds = case["libraries"][OURS]["best"]
    return case["bytes_from_cache"] / seconds * 1e-9 / run["threads"]


def verdict(case, run):
    """Whether the bars of the case are met, in words."""
    bars = []
    if case["ahead"]:
        bars.append((ahead(case)[0], case["ahead"], "{:.2f}x"))
    if case["of_peak"]:
        bars.append((share_of_peak(case, run), case["of_peak"], "{:.0%}"))
    if case["of_cache"]:
        rate = rate_of_cache(case, run)
        bars.append((rate, case["of_cache"], "{:.0f} GB/s per thread"))
    return judged(bars)


def times_table(run):
    peers = [name for name in libraries_of(run) if name != OURS]
    head = ["case (B x T x F x U)", OURS, "of peak", *peers]
    rows = []
    for case in run["cases"]:
        found, share = case["libraries"], share_of_peak(case, run)
        cells = {k: f"{1e3 * v['best']:.3g}" for k, v in found.items()}
        if OURS in found:
            cells[OURS] += f" ({1e3 * found[OURS]['median']:.3g})"
        row = [case["name"], cells.get(OURS, "-")]
        row += ["?" if share is None else f"{share:.0%}"]
        row += [cells.get(name, "-") for name in peers]
        rows.append([*row, ahead_in_words(case), verdict(case, run)])
    return table([*head, "to the best peer", "bar"], rows)


def report(results):
    """Everything in Markdown."""
    words = (
        "Milliseconds, best of all rounds; for hw3tf the median of the rounds in "
        "brackets. The products of steps that take part count as work, three times in "
        "training. The bars were set for two threads."
    )
    return libraries.report.report(results, words, times_table)


def draw(results, path):
    """Draws rates over timesteps, batch and units for every library, forward beside
    training.

    Args:
        results: What recurrence/layers/run.py measured with `--curve`.
        path: PNG file to write.
    """
    run, curve = curve_of(results)
    panels, ticks = {}, []
    for words, points in CURVES.items():
        for kind, training in (("forward", False), ("training", True)):
            of_sizes = {
                tuple(case["sizes"]): case
                for case in curve
                if case["training"] == training
            }
            found = {x: of_sizes[s] for x, s in points.items() if s in of_sizes}
            panels[f"{kind}, over {words}"] = found
            ticks.append(list(points))
    labels = {
        "x": "\n".join(CURVES),
        "title": f"LSTM on the CPU, float32, {run['threads']} threads; where it does "
        "not vary, B = 32, T = U = F = 128",
    }
    draw_rates(path, panels, run, labels, ticks)
