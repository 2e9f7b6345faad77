"""Whole models of KerasHub: as they are, and after `hw3tf.accelerate(model)`.

    python benchmarks/models.py --json models.json --markdown benchmarks/README.md

Random weights, nothing is downloaded. A process per case holds both kinds of the same
model, traced before and after the one line; they take turns, the order changes in every
round. The peak of memory is measured in two more processes, one for each kind.

    python benchmarks/models.py --list
    python benchmarks/models.py --cases 'bert-*,llama-like-4096' --seconds 5
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import time

import attention_report
from models_cases import chosen, shrunk

WORKER = pathlib.Path(__file__).with_name("models_worker.py")
BEGIN = "<!-- models.py writes from here -->"
KINDS = ("stock", "accelerated")
PACKAGES = ("hw3tf", "keras", "keras-hub", "tensorflow")
ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "KERAS_BACKEND": "tensorflow",
    "CUDA_VISIBLE_DEVICES": "",
}


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def in_a_process(case, *arguments):
    """The worker's answer; SystemExit with its last words if it fails."""
    command = [sys.executable, WORKER, json.dumps(vars(case)), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | ENVIRONMENT
    )
    if done.returncode:
        raise SystemExit(f"{case.name} {arguments[0]} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(case, seconds, peaks):
    """A dict: the case, what was timed, and the verdict on each bar."""
    result = dataclasses.asdict(case)
    if not case.memory_only:
        answer = in_a_process(case, "times", seconds)
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
        found = {kind: in_a_process(case, kind)["peak_mib"] for kind in KINDS}
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


def report(results):
    """The table, in Markdown."""
    head = ["case", "stock, ms", "accelerated, ms", "ratio", "difference"]
    head += ["stock, MiB", "accelerated, MiB", "bar"]
    versions = ", ".join(f"{k} {v}" for k, v in results["versions"].items())
    lines = [
        f"Machine: {results['machine']}. {results['date']}.",
        f"{versions}.",
        "",
        f"```\n{results['command']}\n```",
        "",
        attention_report.table(head, [row(result) for result in results["cases"]]),
        "",
        "Best of the rounds (median); ratio of the bests (median of the rounds' "
        "ratios); the largest difference of outputs, in training of gradients without "
        "dropout, relative to the largest number; growth of the resident set by one "
        "call.",
        "",
    ]
    return "\n".join(lines + [f"- {result['name']}: {result['words']}"
                              for result in results["cases"]] + [""])  # fmt: skip


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog=__doc__.split("\n\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--cases", default="*", help="names or patterns of --list, with commas")
    add("--seconds", type=float, default=12.0, help="of turns, for each case")
    add("--no-peaks", action="store_true", help="memory only where there is a bar")
    add("--quick", action="store_true", help="tiny sizes: only to see that all works")
    add("--list", action="store_true", help="name the cases and end")
    add("--json", type=pathlib.Path, help="write every figure here")
    add(
        "--markdown",
        type=pathlib.Path,
        help="write the table here, or between the marks of this file",
    )
    options = parser.parse_args(argv)
    options.cases = chosen(options.cases.split(","))
    if not options.cases:
        parser.error("--cases: no case has such a name; see --list")
    if not 0 <= options.seconds < float("inf"):
        parser.error(f"--seconds is at least 0, not {options.seconds}")
    return options


def main(argv=None):
    options = parse_arguments(argv)
    if options.list:
        print("\n".join(f"{case.name}: {case}" for case in options.cases))
        return None
    arguments = sys.argv[1:] if argv is None else argv
    results = {
        "machine": attention_report.machine(),
        "date": time.strftime("%Y-%m-%d"),
        "command": shlex.join(["python", "benchmarks/models.py", *arguments]),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "cases": [],
    }
    start = time.monotonic()
    for number, case in enumerate(options.cases):
        words = str(case)
        if options.quick:
            case = shrunk(case)
        seconds = 0.0 if options.quick else options.seconds
        result = measure(case, seconds, not options.no_peaks) | {"words": words}
        results["cases"].append(result)
        spent = (time.monotonic() - start) / 60
        done = f"{number + 1} of {len(options.cases)}, {spent:.1f} min"
        say(f"[{done}]", *row(result))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    text = report(results)
    if options.markdown:
        attention_report.write_markdown(text, options.markdown, BEGIN)
    print(text)
    return results


if __name__ == "__main__":
    main()
