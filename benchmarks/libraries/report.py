"""Tables and curves of runs in which libraries take turns."""

import harness
from harness import table
from libraries.run import OURS, UNLIMITED_NOTE

# hw3tf stands out, the peers are told apart by colour and marker.
STYLES = {
    "hw3tf": ("#c1121f", "o", 2.6),
    "hw3tf-core": ("#f4a261", "o", 1.3),
    "hw3tf-jax": ("#f4a261", "^", 1.3),
    "hw3tf-torch": ("#f4a261", "s", 1.3),
    "torch": ("#e76f00", "s", 1.3),
    "onnxruntime": ("#1d6fa5", "^", 1.3),
    "openvino": ("#6a4c93", "D", 1.3),
    "jax": ("#2a9d5c", "v", 1.3),
    "keras": ("#7f7f7f", "X", 1.3),
    "keras-xla": ("#222222", "P", 1.3),
}


def rate(case, library, which="best"):
    """GFLOP/s; None if the library was left out."""
    answer = case["libraries"].get(library)
    return None if answer is None else case["flops"] / answer[which] * 1e-9


def best_peer(case):
    """(name, GFLOP/s) of the fastest library that is not ours, and uses no wider
    instructions; None without any."""
    rates = [
        (rate(case, name), name)
        for name, answer in case["libraries"].items()
        if not name.startswith(OURS) and UNLIMITED_NOTE not in answer["note"]
    ]
    return max(rates, default=(None, None))[::-1]


def libraries_of(run):
    """All that computed a case, ours first."""
    found = {name for case in run["cases"] for name in case["libraries"]}
    return [name for name in STYLES if name in found]


def ahead(case):
    """hw3tf's rate over that of the best peer, and its name; None if unknown."""
    ours, (name, peer) = rate(case, OURS), best_peer(case)
    return (ours / peer, name) if ours and peer else (None, name)


def ahead_in_words(case):
    ratio, name = ahead(case)
    return f"{ratio:.2f}x {name}" if ratio else "-"


def judged(bars):
    """Whether bars are met, in words.

    Args:
        bars: (what was measured or None, the least it must be, form of both).
    """
    if not bars:
        return ""
    words = ", ".join(text.format(bar) for _, bar, text in bars)
    if any(value is None for value, _, _ in bars):
        return f"{words}: unknown"
    missed = [text.format(value) for value, bar, text in bars if value < bar]
    return f"{words}: {'missed, ' + ', '.join(missed) if missed else 'met'}"


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


def report(results, words, cases_table):
    """Everything in Markdown.

    Args:
        results: Of `libraries.run.measure`.
        words: What the tables hold.
        cases_table: Makes the table of a run.
    """
    commands = dict.fromkeys(run["command"] for run in results["runs"])
    parts = [harness.heading_in_words(results, commands), words]
    if any(run["quick"] for run in results["runs"]):
        parts.append("**Tiny sizes (`--quick`): the figures mean nothing.**")
    for run in results["runs"]:
        threads = f"{run['threads']} thread{'s' if run['threads'] > 1 else ''}"
        if run.get("isa"):
            threads += f", {run['isa']}"
        parts += [
            f"### {threads}; peak: {peak_in_words(run['peak'])}",
            f"Rounds: {run['rounds']}, of {run['seconds']:g} s.",
            cases_table(run),
            f"Peak memory in MiB, {threads}: growth of the resident set by one call, "
            "beyond inputs and outputs, after a first call that traces and compiles "
            "(`VmHWM` less what the process took before the case):",
            memory_table(run),
        ]
        if remarks(run):
            parts.append(remarks(run))
    return "\n\n".join(parts) + "\n"


def curve_of(results):
    """The run with most threads that measured the curve, and its cases there."""
    for run in sorted(results["runs"], key=lambda run: run["threads"], reverse=True):
        curve = [case for case in run["cases"] if case["group"] == "curve"]
        if curve:
            return run, curve
    raise SystemExit("nothing to draw: the picture needs --curve")


def draw_rates(path, panels, run, labels, ticks):
    """Draws rates of every library beside the peak of the machine.

    Args:
        path: PNG file to write.
        panels: Title -> (number on the axis -> case): two in a row, the second of each
            with a scale in % of the peak.
        run: That of the cases.
        labels: "title" of the picture, "x" of the axes.
        ticks: Numbers on the axis of each panel.
    """
    peak = (run["peak"] or {}).get("float32")
    lines = {
        title: {
            name: [
                (x, rate(case, name))
                for x, case in cases.items()
                if name in case["libraries"]
            ]
            for name in libraries_of({"cases": cases.values()})
        }
        for title, cases in panels.items()
    }

    def finish(axes):
        for axis, where in zip(axes, ticks, strict=True):
            axis.set_xscale("log", base=2)
            axis.set_xticks(where, map(str, where))
            axis.minorticks_off()
            axis.set_ylim(bottom=0)
        if not peak:
            return
        for axis in axes:
            line = {"color": "#444444", "linestyle": "--", "linewidth": 1}
            axis.axhline(peak, **line, label="FMA peak")
        for axis in axes[1::2]:
            right = axis.secondary_yaxis(
                "right", functions=(lambda x: 100 * x / peak, lambda x: x * peak / 100)
            )
            right.set_ylabel("% of peak")
        axes[0].set_ylim(0, 1.1 * peak)

    harness.draw(path, lines, STYLES, {"y": "GFLOP/s", **labels}, finish)
