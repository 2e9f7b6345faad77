"""The table of tutorials/README.md: what every model of tutorial 4 reaches on IMDB.

    TFDS_DATA_DIR=... python benchmarks/imdb_models.py --rows fused none --seeds 0 1 2

Every run is the tutorial's own program in a process of its own, `--at-once` of them at
a time, each on its share of the processors. Its last line of JSON says the accuracy on
the 25,000 test reviews, the seconds from the texts to the trained model, and the
largest memory of the process. `--json` keeps the runs; those that it holds are not
repeated.
"""

import argparse
import json
import os
import pathlib
import queue
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

PROGRAM = pathlib.Path(__file__).parents[1] / "tutorials/04_imdb_sentiment.py"
ROWS = {
    "bag": ("words, logistic regression", ["--model", "bag"]),
    "naive_bayes": ("naive-Bayes features alone", ["--model", "naive_bayes"]),
    "gru": ("GRU in place of attention", ["--model", "gru"]),
    "keras": ("Keras's attention", ["--attention", "keras"]),
    "fused": ("fused attention", ["--attention", "fused"]),
    "none": ("without the attention block", ["--attention", "none"]),
    "none_max": (
        "without it, pooled by the maximum, too",
        ["--attention", "none", "--max-pool"],
    ),
    "best": ("`--recipe best`", ["--recipe", "best"]),
}


def run_tutorial(arguments, seed, processors):
    """One run of the tutorial on some processors: the dict of its last line."""
    os.sched_setaffinity(0, processors)  # of this thread, and of what it starts
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(PROGRAM), *arguments]
        command += ["--data", "imdb", "--seed", str(seed), "--out", folder]
        done = subprocess.run(
            command,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    results = json.loads(done.stdout.splitlines()[-1])
    results["cores"] = len(processors)
    return {k: v for k, v in results.items() if k != "probabilities"}


def run_missing(rows, seeds, known, at_once, keep):
    """Adds the runs that `known` lacks, and calls `keep()` after each of them."""
    every = sorted(os.sched_getaffinity(0))
    shares = queue.SimpleQueue()
    for first in range(at_once):
        shares.put(every[first::at_once])

    def run(row, seed):
        processors = shares.get()
        try:
            results = run_tutorial(ROWS[row][1], seed, processors)
        finally:
            shares.put(processors)
        known.setdefault(row, {})[str(seed)] = results
        keep()
        print(row, seed, results["accuracy"], file=sys.stderr, flush=True)

    wanted = [(row, seed) for row in rows for seed in seeds]
    missing = [w for w in wanted if str(w[1]) not in known.get(w[0], {})]
    with ThreadPoolExecutor(at_once) as pool:
        for future in [pool.submit(run, *w) for w in missing]:
            future.result()


def table_line(name, runs):
    """One line of the table, of the runs with different seeds."""
    accuracies = [run["accuracy"] for run in runs]
    every = ", ".join(f"{rate:.4f}" for rate in accuracies)
    seconds = statistics.mean(run["seconds"] for run in runs)
    peak = max(run["peak_mib"] for run in runs)
    # Not the same number for the words of every seed's division.
    parameters = runs[0].get("parameters")
    size = f"{parameters:,}" if parameters else ""
    mean = statistics.mean(accuracies)
    cells = [name, f"**{mean:.4f}**", every, f"{seconds:.0f}", str(runs[0]["cores"])]
    return "| " + " | ".join([*cells, f"{peak:.0f}", size]) + " |"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--at-once", type=int, default=1, help="runs side by side")
    parser.add_argument("--json", type=pathlib.Path, help="file of the runs")
    args = parser.parse_args(argv)
    if not 1 <= args.at_once <= len(os.sched_getaffinity(0)):
        parser.error(f"--at-once {args.at_once} leaves runs without a processor")
    known = {}
    if args.json and args.json.exists():
        known = json.loads(args.json.read_text())

    def keep():
        if args.json:
            args.json.write_text(json.dumps(known, indent=1) + "\n")

    run_missing(args.rows, args.seeds, known, args.at_once, keep)
    print("| model | accuracy, mean | every seed | s | cores | peak MiB | parameters |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for row in args.rows:
        runs = [known[row][str(seed)] for seed in args.seeds]
        print(table_line(ROWS[row][0], runs))


if __name__ == "__main__":
    main()
