"""Which share of many threads' time is work: the plan of a call, simulated.

    python benchmarks/attention/scaling.py --json scaling.json --markdown scaling.md

Compiles and runs csrc/tests/attention/scaling_test.cc. It hands the tasks of the real
plan to threads and lets them wait for each other as the kernels do. The time of a task
is the number of its query-key pairs; memory, waking and the pool cost nothing. So this
says what the cut of the work allows, not what a machine reaches, and is the same on
every machine.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

if not __package__:  # run as a program: what it imports is in the folder above
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

import harness

PROGRAM = "attention/scaling.py"
CSRC = pathlib.Path(__file__).parents[2] / "csrc"
SOURCES = (
    "tests/attention/scaling_test.cc",
    "kernels/attention/plan.cc",
    "kernels/runtime/test_hooks.cc",
)
TILES = {32: "AVX-512", 16: "AVX2"}


def simulate():
    """A list of dicts: pass, tile, call, threads, tasks, share.

    Raises:
        RuntimeError: The program did not compile, or misses a bar of its own.
    """
    with tempfile.TemporaryDirectory(prefix="hw3tf-scaling-") as folder:
        program = pathlib.Path(folder, "scaling")
        command = ["c++", "-std=c++17", "-O2", f"-I{CSRC}", "-o", program]
        command += [CSRC / name for name in SOURCES]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{command} failed:\n{done.stderr}")
        done = subprocess.run([program], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{SOURCES[0]} failed:\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def measure(options, command):
    return {**harness.heading(("hw3tf",)), "command": command, "cases": simulate()}


def report(results):
    parts = [harness.heading_in_words(results, [results["command"]])]
    for tile, name in TILES.items():
        rows, threads = {}, {}
        for case in results["cases"]:
            if case["tile"] == tile:
                share = f"{100 * case['share']:.0f} %"
                rows.setdefault(case["call"], []).append(share)
                threads[case["threads"]] = None
        first, *others = map(str, threads)
        head = ["call"]
        for kind in ("forward", "backward"):
            head += [f"{kind}, {first}", *others]
        body = [[call, *shares] for call, shares in rows.items()]
        parts += [f"Tiles of {tile} queries, {name}:", harness.table(head, body)]
    return "\n\n".join(parts) + "\n"


def main(argv=None):
    return harness.run(PROGRAM, __doc__, measure, report, argv)


if __name__ == "__main__":
    main()
