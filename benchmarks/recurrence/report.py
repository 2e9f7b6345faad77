"""The tables and the picture of recurrence/run.py, from its JSON."""

import harness
from harness import table
from recurrence.cases import TABLE
from recurrence.peers import PEERS

OURS = "hw3tf"
# name -> colour, marker, width of the line
STYLES = {
    "hw3tf": ("#c1121f", "o", 2.6),
    "hw3tf-core": ("#f4a261", "o", 1.3),
    "keras-cell": ("#7f7f7f", "X", 1.3),
    "keras-function": ("#222222", "P", 1.3),
    "keras-simple-rnn": ("#b08968", "<", 1.3),
    "numpy": ("#1d6fa5", "^", 1.3),
    "scipy-lfilter": ("#6a4c93", "D", 1.3),
    "numba": ("#2a9d5c", "s", 1.3),
    "jax-scan": ("#e76f00", "v", 1.3),
}


def _bars():
    """The bars: words, (case, peer) of the time above the line, (case,
    peer) of the time below, at least."""
    for words, case, bound in (
        ("256 x 10,000: share of reading", "rows-last", "read"),
        ("10^8, last state: share of reading", "line-last", "read"),
        ("10^8, all states: share of copying", "line-all", "copy"),
    ):
        yield words, (case, bound), (case, OURS), 0.6
    # The cell of `keras.layers.RNN` wraps; what raises in pure Keras is a function.
    for size, case, least in (
        ("256 x 10,000", "rows-last", 300),
        ("64 units", "dense-64", 100),
    ):
        for policy, peer, below in (
            (
                "wrap: `keras.layers.RNN` with the reference cell",
                "cell",
                f"{case}-wrap",
            ),
            ("raise: the reference function", "function", case),
        ):
            yield f"{size}, {policy}", (below, f"keras-{peer}"), (below, OURS), least
    for peer, least in (("numpy", 3), ("keras-simple-rnn", 1)):
        yield f"64 units: {peer}", ("dense-64", peer), ("dense-64", OURS), least
    for bits, case in ((32, "dense-256"), (16, "dense-256-short")):
        words = f"256 units, int8: int32 with weights of {bits} bits"
        yield words, (case, OURS), ("dense-256-int8", OURS), 2


RAISE_AT_MOST = 1.2
WITH_WRAP = ("rows-last", "line-last", "line-all", "dense-64")


def seconds(results, case, peer):
    """The best time of a peer, None if it was not measured."""
    for result in results["cases"]:
        if result["name"] == case:
            return result["times"].get(peer, {}).get("best")
    return None


def verdicts(results):
    """(words, bar, measured, "met", "missed" or "unknown") of each bar."""
    rows = []
    for words, above, below, least in _bars():
        times = seconds(results, *above), seconds(results, *below)
        shape = "{:.0%}" if least < 1 else "{:.1f}x" if least < 10 else "{:.0f}x"
        measured = times[0] / times[1] if None not in times else None
        rows.append(_row(words, shape, least, measured, lambda x, b: x >= b))
    for case in WITH_WRAP:
        times = [seconds(results, c, OURS) for c in (case, f"{case}-wrap")]
        measured = times[0] / times[1] if None not in times else None
        words = f"{case}: the time of raise over that of wrap, at most"
        rows.append(
            _row(words, "{:.2f}x", RAISE_AT_MOST, measured, lambda x, b: x <= b)
        )
    return rows


def _row(words, shape, bar, measured, holds):
    if measured is None:
        return [words, shape.format(bar), "-", "unknown"]
    met = "met" if holds(measured, bar) else "missed"
    return [words, shape.format(bar), shape.format(measured), met]


def times_table(results):
    cases = [r for r in results["cases"] if r["name"] in TABLE]
    found = {name for r in cases for name in r["times"]}
    names = [n for n in [*PEERS, "read", "copy"] if n in found]
    rows = []
    for result in cases:
        times = [result["times"].get(n) for n in names]
        cells = [
            f"{1e3 * t['best']:.3g} ({1e3 * t['median']:.3g})" if t else "-"
            for t in times
        ]
        rows.append([result["name"], *cells])
    return table(["case", *names], rows)


def left_out(results):
    """The peers that were left out and why: a list in Markdown."""
    pairs = [
        (f"{name} left out: {why}", result["name"])
        for result in results["cases"]
        for name, why in result["left_out"].items()
    ]
    return harness.remarks(pairs, len(results["cases"]))


def report(results):
    """Everything in Markdown."""
    parts = [harness.heading_in_words(results, [results["command"]])]
    if results["quick"]:
        parts.append("**Tiny sizes (`--quick`): the figures mean nothing.**")
    parts += [
        f"Milliseconds, best (median) of {results['rounds']} rounds of "
        f"{results['seconds']:g} s, {results['threads']} threads.",
        times_table(results),
        "Times of the peers over that of hw3tf, best against best:",
        table(["what", "bar", "measured", ""], verdicts(results)),
    ]
    if left_out(results):
        parts.append(left_out(results))
    return "\n\n".join(parts) + "\n"


def curve(results, sequences):
    """The results of one line, one batch entry, by length."""
    found = {
        r["timesteps"]: r
        for r in results["cases"]
        if r["batch"] == r["features"] == r["units"] == 1
        and r["sequences"] == sequences
        and r["overflow"] == "raise"
    }
    return [found[timesteps] for timesteps in sorted(found)]


def draw(results, path):
    """Draws the rate over the length for every peer, last state beside all states.

    Args:
        results: What recurrence/run.py measured, `curve-*` among the cases.
        path: PNG file to write.
    """
    curves = [curve(results, sequences) for sequences in (False, True)]
    if not all(curves):
        raise SystemExit("nothing to draw: the picture needs the cases line-*, curve-*")
    bounds = ("read", "copy")
    titles = ("last state, beside reading", "all states, beside copying")
    panels = {
        title: {name: _rates(cases, name) for name in (*PEERS, bound)}
        for title, cases, bound in zip(titles, curves, bounds, strict=True)
    }

    def finish(axes):
        for axis in axes:
            axis.set_xscale("log")
            axis.set_yscale("log")

    labels = {
        "x": "timesteps",
        "y": "GB/s of inputs",
        "title": "An exact recurrence, one sequence, one unit, int64, overflow raises, "
        f"{results['threads']} threads",
    }
    bandwidth = ("#444444", "", 1.0)
    styles = STYLES | dict.fromkeys(bounds, bandwidth)
    harness.draw(path, panels, styles, labels, finish)


def _rates(cases, name):
    """(length, GB/s) of a peer, where it was measured."""
    return [
        (c["timesteps"], c["bytes"] / c["times"][name]["best"] * 1e-9)
        for c in cases
        if name in c["times"]
    ]
