"""The table of tutorials/README.md: what every model of tutorial 4 reaches on IMDB.

    TFDS_DATA_DIR=... python benchmarks/imdb_models.py --rows fused none --seeds 0 1 2

Every run is the tutorial's own program in a process of its own, one at a time. Its last
line of JSON says the accuracy on the 25,000 test reviews, the seconds from the texts to
the trained model, and the largest memory of the process. `--json` keeps the runs; those
that it holds are not repeated.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

PROGRAM = pathlib.Path(__file__).parents[1] / "tutorials/04_imdb_sentiment.py"
ROWS = {
    "bag": ("words, logistic regression", ["--model", "bag"]),
    "naive_bayes": ("naive-Bayes features alone", ["--model", "naive_bayes"]),
    "gru": ("GRU in place of attention", ["--model", "gru"]),
    "keras": ("Keras's attention", ["--attention", "keras"]),
    "fused": ("fused attention", ["--attention", "fused"]),
    "none": ("without the attention block", ["--attention", "none"]),
    "best": ("`--recipe best`", ["--recipe", "best"]),
}


def run_tutorial(arguments, seed):
    """One run of the tutorial: the dict of its last line."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(PROGRAM), *arguments]
        command += ["--data", "imdb", "--seed", str(seed), "--out", folder]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    results = json.loads(done.stdout.splitlines()[-1])
    return {k: v for k, v in results.items() if k != "probabilities"}


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
    return (
        f"| {name} | **{mean:.4f}** | {every} | {seconds:.0f} | {peak:.0f} | {size} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--json", type=pathlib.Path, help="file of the runs")
    args = parser.parse_args()
    known = {}
    if args.json and args.json.exists():
        known = json.loads(args.json.read_text())
    for row in args.rows:
        for seed in args.seeds:
            runs = known.setdefault(row, {})
            if str(seed) not in runs:
                runs[str(seed)] = run_tutorial(ROWS[row][1], seed)
                if args.json:
                    args.json.write_text(json.dumps(known, indent=1) + "\n")
    print("| model | accuracy, mean | every seed | s | peak MiB | parameters |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in args.rows:
        runs = [known[row][str(seed)] for seed in args.seeds]
        print(table_line(ROWS[row][0], runs))


if __name__ == "__main__":
    main()
