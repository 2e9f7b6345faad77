"""The tables and the picture of attention/run.py, from its JSON."""

import libraries.report
from attention.cases import ODD_SHARE
from harness import table
from libraries.report import (
    ahead,
    ahead_in_words,
    curve_of,
    draw_rates,
    judged,
    libraries_of,
    rate,
)
from libraries.run import OURS


def share_of_peak(case, peak):
    """Of hw3tf: of the FMA peak, or of the read bandwidth; None if unknown.

    The bandwidth is the best of the case's own rounds: neighbours on a shared machine
    take it for minutes (24 to 52 GB/s in one run), while multiply-adds stay the same.
    """
    bound, done = case["bound"], case["flops"]
    if bound == "bandwidth":
        done = case["bytes"]
        peak = max(case["peaks"], key=lambda peak: peak.get(bound) or 0, default=None)
    if not peak or not peak[bound] or OURS not in case["libraries"]:
        return None
    return done / case["libraries"][OURS]["best"] * 1e-9 / peak[bound]


def verdict(case, run):
    """Whether the bars of the case are met, in words."""
    bars = []
    if case["ahead"]:
        bars.append((ahead(case)[0], case["ahead"], "{:.2f}x"))
    if case["of_peak"]:
        share = share_of_peak(case, run["peak"])
        bars.append((share, case["of_peak"], "{:.0%}"))
    if case["neighbour"]:
        ours = rate(case, OURS)
        beside = [c for c in run["cases"] if c["name"] == case["neighbour"]]
        rates = [rate(c, OURS) for c in beside if rate(c, OURS)]
        share = ours / rates[0] if ours and rates else None
        bars.append((share, ODD_SHARE, "{:.0%} of its neighbour"))
    return judged(bars)


def rates_table(run):
    peers = [name for name in libraries_of(run) if name != OURS]
    head = ["case (B x T x S x N x K x H)", OURS, "of peak", *peers]
    rows = []
    for case in run["cases"]:
        ours, share = rate(case, OURS), share_of_peak(case, run["peak"])
        median = rate(case, OURS, "median")
        cell = f"{ours:.1f} ({median:.1f})" if ours else "-"
        if ours and case["bound"] == "bandwidth":
            seconds = case["libraries"][OURS]["best"]
            cell += f", {case['bytes'] / seconds * 1e-9:.1f} GB/s"
        row = [case["name"], cell, "?" if share is None else f"{share:.0%}"]
        for name in peers:
            value = rate(case, name)
            row.append("-" if value is None else f"{value:.1f}")
        rows.append([*row, ahead_in_words(case), verdict(case, run)])
    return table([*head, "to the best peer", "bar"], rows)


def report(results):
    """Everything in Markdown."""
    words = (
        "Rates in GFLOP/s, best of all rounds; for hw3tf the median of the rounds in "
        "brackets. Only what is visible counts as work; training counts 3.5 times the "
        "forward pass. The bars were set for two threads."
    )
    return libraries.report.report(results, words, rates_table)


def draw(results, path):
    """Draws rate over length for every library, forward beside training.

    Args:
        results: What attention/run.py measured with `--curve`.
        path: PNG file to write.
    """
    run, curve = curve_of(results)
    panels = {
        title: {c["sizes"][1]: c for c in curve if c["training"] == training}
        for title, training in (("forward", False), ("forward and backward", True))
    }
    heads, size = curve[0]["sizes"][3], curve[0]["sizes"][5]
    labels = {
        "x": "length of the sequences, T = S",
        "title": f"Exact attention on the CPU, float32, {run['threads']} threads, "
        f"{heads} heads of {size}",
    }
    lengths = sorted({case["sizes"][1] for case in curve})
    draw_rates(path, panels, run, labels, [lengths, lengths])
