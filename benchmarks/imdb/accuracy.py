"""Accuracy on IMDB of every model of tutorial 4: the table of tutorials/README.md.

    TFDS_DATA_DIR=... python benchmarks/imdb/accuracy.py --rows fused none --seeds 0 1 2

Every run is the tutorial's program for one model, in a process of its own, `--at-once`
of them at a time, each on its share of the processors. Its last line of JSON says the
accuracy on the 25,000 test reviews, the seconds from the texts to the trained model,
and the largest memory of the process. `--json` keeps the runs; those that it holds are
not repeated.
"""

import json
import os
import pathlib
import queue
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

if not __package__:  # run as a program: what it imports is in the folder above
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

import harness

ROWS = {
    "bag": ("words, logistic regression", ["--model", "bag"]),
    "naive_bayes": ("naive-Bayes features alone", ["--model", "naive_bayes"]),
    "gru": ("GRU in place of attention", ["--model", "gru"]),
    "lstm": ("LSTM in place of attention", ["--model", "lstm"]),
    "keras": ("Keras's attention", ["--attention", "keras"]),
    "fused": ("fused attention", ["--attention", "fused"]),
    "none": ("without the attention block", ["--attention", "none"]),
    "best": ("`--recipe best`", ["--recipe", "best"]),
}


def run_tutorial(arguments, seed, processors):
    """One run of the tutorial on some processors: the dict of its last line."""
    os.sched_setaffinity(0, processors)  # of this thread, and of what it starts
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hw3tf.course.sentiment", *arguments]
        command += ["--seed", str(seed), "--out", folder]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    results = json.loads(done.stdout.splitlines()[-1])
    results["cores"] = len(processors)
    return {k: v for k, v in results.items() if k != "probabilities"}


def run_missing(options, more, known, keep):
    """Adds the runs that `known` lacks, and calls `keep()` after each of them."""
    every = sorted(os.sched_getaffinity(0))
    shares = queue.SimpleQueue()
    for first in range(options.at_once):
        shares.put(every[first :: options.at_once])

    def run(row, seed):
        processors = shares.get()
        try:
            results = run_tutorial([*ROWS[row][1], *more], seed, processors)
        finally:
            shares.put(processors)
        known.setdefault(row, {})[str(seed)] = results
        keep()
        harness.say(row, seed, results["accuracy"])

    wanted = [(row, seed) for row in options.rows for seed in options.seeds]
    missing = [w for w in wanted if str(w[1]) not in known.get(w[0], {})]
    with ThreadPoolExecutor(options.at_once) as pool:
        for future in [pool.submit(run, *w) for w in missing]:
            future.result()


def cells(row, runs):
    """One line of the table, of the runs with different seeds."""
    accuracies = [run["accuracy"] for run in runs]
    every = ", ".join(f"{rate:.4f}" for rate in accuracies)
    seconds = statistics.mean(run["seconds"] for run in runs)
    peak = max(run["peak_mib"] for run in runs)
    # Not the same number for the words of every seed's division.
    parameters = runs[0].get("parameters")
    size = f"{parameters:,}" if parameters else ""
    mean = f"**{statistics.mean(accuracies):.4f}**"
    cores = str(runs[0]["cores"])
    return [ROWS[row][0], mean, every, f"{seconds:.0f}", cores, f"{peak:,.0f}", size]


def report(results):
    """The Markdown table of the rows that were run."""
    head = ["model", "accuracy, mean", "every seed", "s", "cores", "peak MiB"]
    rows = [cells(row, [*results[row].values()]) for row in ROWS if row in results]
    return harness.table([*head, "parameters"], rows) + "\n"


def main(argv=None):
    parser = harness.parser(__doc__)
    add = parser.add_argument
    add("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    add("--seeds", nargs="*", type=int, default=[0, 1, 2])
    add("--at-once", type=int, default=1, help="runs side by side")
    options = parser.parse_args(argv)
    if not 1 <= options.at_once <= len(os.sched_getaffinity(0)):
        parser.error(f"--at-once {options.at_once} leaves runs without a processor")

    def measure():
        known = {}
        if options.json and options.json.exists():
            known = json.loads(options.json.read_text())

        def keep():
            if options.json:
                harness.write_json(known, options.json)

        more = ["--quick", "--data", "sample"] if options.quick else ["--data", "imdb"]
        run_missing(options, more, known, keep)
        return known

    return harness.publish("imdb/accuracy.py", options, measure, report)


if __name__ == "__main__":
    main()
