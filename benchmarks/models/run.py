"""Whole models, as they are and after `hw3tf.accelerate(model)`.

    python benchmarks/models/run.py --json models.json --markdown models.md

KerasHub's models and models of recurrent layers, with random weights: nothing is
downloaded. A process per case holds both kinds of the same model, traced before and
after the one line; they take turns, the order changes in every round. The peak of
memory is measured in two more processes, one for each kind.

    python benchmarks/models/run.py --list
    python benchmarks/models/run.py --cases 'bert-*,llama-like-4096' --seconds 5
"""

import dataclasses
import json
import pathlib
import statistics
import sys

if not __package__:  # run as a program: what it imports is in the folder above
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

import harness
from models.cases import chosen, shrunk

PROGRAM = "models/run.py"
KINDS = ("stock", "accelerated")
PACKAGES = ("hw3tf", "keras", "keras-hub", "tensorflow")


def ask(case, do, **message):
    """The answer of a process that builds the model."""
    return harness.ask_once("models.worker", json.dumps(vars(case)), do=do, **message)


def measure(case, seconds, peaks):
    """A dict: the case, what was timed, and the verdict on each bar."""
    result = dataclasses.asdict(case)
    if not case.memory_only:
        answer = ask(case, "times", seconds=seconds)
        rounds = answer.pop("times")
        result |= answer | {"rounds": rounds}
        for kind in KINDS:
            result[kind] = {
                "best": min(rounds[kind]),
                "median": statistics.median(rounds[kind]),
            }
        pairs = zip(rounds["stock"], rounds["accelerated"], strict=True)
        result["ratio"] = result["stock"]["best"] / result["accelerated"]["best"]
        result["median_ratio"] = statistics.median(s / a for s, a in pairs)
    if peaks or case.memory_only:
        found = {kind: ask(case, "peak", kind=kind)["peak_mib"] for kind in KINDS}
        result["peak_mib"] = found
    return result | {"verdict": verdict(result)}


def verdict(result):
    """Whether the bars of the case are met, in words."""
    words = []
    if "ratio" in result:
        met = "met" if result["ratio"] >= result["bar"] else "missed"
        words.append(f"{result['bar']:.2f}x: {met}")
    if result["memory_bar"] is not None:
        peaks = result.get("peak_mib") or dict.fromkeys(KINDS)
        if None in peaks.values():
            words.append("memory: unknown")
        else:
            met = peaks["accelerated"] < result["memory_bar"] * peaks["stock"]
            share = f"{result['memory_bar']:.0%} of the memory"
            words.append(f"{share}: {'met' if met else 'missed'}")
    return ", ".join(words)


def row(result):
    """The cells of one case."""
    cells = [result["name"]]
    if "ratio" in result:
        cells += [
            f"{1e3 * result[k]['best']:.4g} ({1e3 * result[k]['median']:.4g})"
            for k in KINDS
        ]
        cells.append(f"{result['ratio']:.2f}x ({result['median_ratio']:.2f}x)")
        cells.append(f"{result['difference']:.1e}")
    else:
        cells += ["-"] * 4
    peaks = result.get("peak_mib") or dict.fromkeys(KINDS)
    cells += ["-" if peaks[k] is None else f"{peaks[k]:,.0f}" for k in KINDS]
    return [*cells, result["verdict"]]


def generation(cases):
    """The table of tokens a second, of all of the batch, the prompt's time included;
    nothing if no case generates any."""
    rows = []
    for case in (c for c in cases if c.get("generated") and "ratio" in c):
        tokens = case["batch"] * case["generated"]
        rates = [f"{tokens / case[kind]['best']:.1f}" for kind in KINDS]
        rows.append([case["name"], *rates, f"{case['ratio']:.2f}x"])
    head = ["case", "stock, tokens/s", "accelerated, tokens/s", "ratio"]
    return rows and harness.table(head, rows)


def report(results):
    """The table, in Markdown."""
    head = ["case", "stock, ms", "accelerated, ms", "ratio", "difference"]
    head += ["stock, MiB", "accelerated, MiB", "bar"]
    cases = results["cases"]
    parts = [
        harness.heading_in_words(results, [results["command"]]),
        harness.table(head, map(row, cases)),
        *filter(None, [generation(cases)]),
        "Best of the rounds (median); ratio of the bests (median of the rounds' "
        "ratios); the largest difference of outputs, in training of gradients without "
        "dropout, relative to the largest number; growth of the resident set by one "
        "call.",
        "\n".join(f"- {case['name']}: {case['words']}" for case in cases),
    ]
    return "\n\n".join(parts) + "\n"


def parse_arguments(argv):
    parser = harness.parser(__doc__)
    add = parser.add_argument
    add("--cases", default="*", help="names or patterns of --list, with commas")
    add("--seconds", type=float, default=12.0, help="of turns, for each case")
    add("--no-peaks", action="store_true", help="memory only where there is a bar")
    add("--list", action="store_true", help="name the cases and end")
    options = parser.parse_args(argv)
    options.cases = chosen(options.cases.split(","))
    if not options.cases:
        parser.error("--cases: no case has such a name; see --list")
    if not 0 <= options.seconds < float("inf"):
        parser.error(f"--seconds is at least 0, not {options.seconds}")
    return options


def run(options, command):
    results = harness.heading(PACKAGES) | {"command": command, "cases": []}
    progress = harness.Progress(len(options.cases))
    for case in options.cases:
        words = str(case)
        if options.quick:
            case = shrunk(case)
        seconds = 0.0 if options.quick else options.seconds
        result = measure(case, seconds, not options.no_peaks) | {"words": words}
        results["cases"].append(result)
        progress.step(*row(result))
    return results


def main(argv=None):
    options = parse_arguments(argv)
    if options.list:
        print("\n".join(f"{case.name}: {case}" for case in options.cases))
        return None
    command = harness.command(PROGRAM, argv)
    return harness.publish(PROGRAM, options, lambda: run(options, command), report)


if __name__ == "__main__":
    main()
