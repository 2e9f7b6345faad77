"""The tables and the picture of attention/run.py, from its JSON."""

import harness
from attention.cases import ODD_SHARE
from harness import table

OURS = "hw3tf"
UNITS = {"float32": "peak", "bfloat16": "peak", "bandwidth": "read bandwidth"}


def rate(case, library, which="best"):
    """GFLOP/s; None if the library was left out."""
    answer = case["libraries"].get(library)
    return None if answer is None else case["flops"] / answer[which] * 1e-9


def best_peer(case):
    """(name, GFLOP/s) of the fastest library that is not ours; None without any."""
    rates = [
        (rate(case, name), name)
        for name in case["libraries"]
        if not name.startswith(OURS)
    ]
    return max(rates, default=(None, None))[::-1]


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
    ours, peer = rate(case, OURS), best_peer(case)[1]
    bars = []
    if case["ahead"]:
        bars.append((ours / peer if ours and peer else None, case["ahead"], "{:.2f}x"))
    if case["of_peak"]:
        share = share_of_peak(case, run["peak"])
        bars.append((share, case["of_peak"], "{:.0%}"))
    if case["neighbour"]:
        beside = [c for c in run["cases"] if c["name"] == case["neighbour"]]
        rates = [rate(c, OURS) for c in beside if rate(c, OURS)]
        share = ours / rates[0] if ours and rates else None
        bars.append((share, ODD_SHARE, "{:.0%} of its neighbour"))
    if not bars:
        return ""
    words = ", ".join(text.format(bar) for _, bar, text in bars)
    if any(value is None for value, _, _ in bars):
        return f"{words}: unknown"
    missed = [text.format(value) for value, bar, text in bars if value < bar]
    return f"{words}: {'missed, ' + ', '.join(missed) if missed else 'met'}"


def libraries_of(run):
    """All that computed a case, ours first."""
    found = {name for case in run["cases"] for name in case["libraries"]}
    return [name for name in STYLES if name in found]


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
        name, value = best_peer(case)
        row.append(f"{ours / value:.2f}x {name}" if ours and value else "-")
        rows.append([*row, verdict(case, run)])
    return table([*head, "to the best peer", "bar"], rows)


def memory_table(run):
    libraries = libraries_of(run)
    rows = []
    for case in run["cases"]:
        found = [case["libraries"].get(n, {}).get("peak_mib") for n in libraries]
        rows.append(
            [case["name"], *("-" if mib is None else f"{mib:.1f}" for mib in found)]
        )
    return table(["case", *libraries], rows)


def remarks(run):
    """The libraries that were left out and why, and notes: a list in Markdown."""
    pairs = []
    for case in run["cases"]:
        for name, why in case["left_out"].items():
            pairs.append((f"{name} left out: {why}", case["name"]))
        for name, answer in case["libraries"].items():
            for text in filter(None, (answer["way"], answer["note"])):
                pairs.append((f"{name}: {text}", case["name"]))
    return harness.remarks(pairs, len(run["cases"]))


def peak_in_words(peak):
    if not peak:
        return "unknown (no C++ compiler)"
    words = [
        f"{name} {peak[name]:.{digits}f} {unit}"
        for name, unit, digits in (
            ("float32", "GFLOP/s", 0),
            ("bfloat16", "GFLOP/s", 0),
            ("bandwidth", "GB/s read", 1),
        )
        if peak[name]
    ]
    return ", ".join(words)


def report(results):
    """Everything in Markdown."""
    commands = dict.fromkeys(run["command"] for run in results["runs"])
    parts = [
        harness.heading_in_words(results, commands),
        "Rates in GFLOP/s, best of all rounds; for hw3tf the median of the rounds in "
        "brackets. Only what is visible counts as work; training counts 3.5 times the "
        "forward pass. The bars were set for two threads.",
    ]
    if any(run["quick"] for run in results["runs"]):
        parts.append("**Tiny sizes (`--quick`): the figures mean nothing.**")
    for run in results["runs"]:
        threads = f"{run['threads']} thread{'s' if run['threads'] > 1 else ''}"
        parts += [
            f"### {threads}; peak: {peak_in_words(run['peak'])}",
            f"Rounds: {run['rounds']}, of {run['seconds']:g} s.",
            rates_table(run),
            f"Peak memory in MiB, {threads}: growth of the resident set by one call, "
            "beyond inputs and outputs, after a first call that traces and compiles "
            "(`VmHWM` less what the process took before the case):",
            memory_table(run),
        ]
        if remarks(run):
            parts.append(remarks(run))
    return "\n\n".join(parts) + "\n"


# hw3tf stands out, the peers are told apart by colour and marker.
STYLES = {
    "hw3tf": ("#c1121f", "o", 2.6),
    "hw3tf-core": ("#f4a261", "o", 1.3),
    "torch": ("#e76f00", "s", 1.3),
    "onnxruntime": ("#1d6fa5", "^", 1.3),
    "openvino": ("#6a4c93", "D", 1.3),
    "jax": ("#2a9d5c", "v", 1.3),
    "keras": ("#7f7f7f", "X", 1.3),
    "keras-xla": ("#222222", "P", 1.3),
}


def draw(results, path):
    """Draws rate over length for every library, forward beside training.

    Args:
        results: What attention/run.py measured with `--curve`.
        path: PNG file to write.
    """
    run = max(results["runs"], key=lambda run: run["threads"])
    curve = [case for case in run["cases"] if case["group"] == "curve"]
    if not curve:
        raise SystemExit("nothing to draw: the picture needs --curve")
    peak = (run["peak"] or {}).get("float32")
    panels = {
        title: {
            name: [
                (case["sizes"][1], rate(case, name))
                for case in curve
                if case["training"] == training and name in case["libraries"]
            ]
            for name in libraries_of({"cases": curve})
        }
        for title, training in (("forward", False), ("forward and backward", True))
    }
    lengths = sorted({case["sizes"][1] for case in curve})

    def finish(axes):
        for axis in axes:
            axis.set_xscale("log", base=2)
            axis.set_xticks(lengths, map(str, lengths))
            axis.minorticks_off()
            axis.set_ylim(bottom=0)
        if peak:
            for axis in axes:
                line = {"color": "#444444", "linestyle": "--", "linewidth": 1}
                axis.axhline(peak, **line, label="FMA peak")
            right = axes[1].secondary_yaxis(
                "right", functions=(lambda x: 100 * x / peak, lambda x: x * peak / 100)
            )
            right.set_ylabel("% of peak")
            axes[0].set_ylim(0, 1.1 * peak)

    heads, size = curve[0]["sizes"][3], curve[0]["sizes"][5]
    labels = {
        "x": "length of the sequences, T = S",
        "y": "GFLOP/s",
        "title": f"Exact attention on the CPU, float32, {run['threads']} threads, "
        f"{heads} heads of {size}",
    }
    harness.draw(path, panels, STYLES, labels, finish)
