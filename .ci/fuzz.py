"""Random cases for some time, and a table of the totals.

    python .ci/fuzz.py FOLDER --seconds 600

runs the C++ fuzzers in FOLDER on every instruction set of this machine, and
fuzz_ops.py, fuzz_models.py and stress.py of tests/helpers, as many at once as there are
processors. `nox -s fuzz` builds the former and runs this. Seeds follow from the day,
unless `--seed` is given. `--page docs/reliability.md` writes the tables there, after a
long run. The second one counts the paths that cases took through the kernels; a path
that no case took on more than one thread is a failure.
"""

import argparse
import concurrent.futures
import datetime
import os
import pathlib
import re
import subprocess
import sys

from pages import write_between

ROOT = pathlib.Path(__file__).parents[1]
INSTRUCTION_SETS = ("base", "avx2", "avx512", "avx512_bf16")
SKIPPED = 77  # the program's status on a machine without the instruction set
PER_DAY = 10**7  # seeds, more than a day's cases


def run(command, **environment):
    """(status, standard output); the output is also printed."""
    done = subprocess.run(
        [*map(str, command)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    print(done.stdout, end="", flush=True)
    return done.returncode, done.stdout


def can_run(program, name):
    status, _ = run([program, "--cases", 1], HW3TF_ISA=name)
    return status != SKIPPED


def path_counts(text):
    """{path: [cases, on more than one thread, cut, tasks]} of a program's lines."""
    line = r"^path (.+): (\d+) cases, (\d+) on threads, (\d+) cut, (\d+) tasks$"
    return {name: list(map(int, x)) for name, *x in re.findall(line, text, re.M)}


def total_paths(texts):
    totals = {}
    for name, counts in (item for text in texts for item in path_counts(text).items()):
        totals[name] = list(
            map(sum, zip(totals.get(name, [0] * 4), counts, strict=True))
        )
    return totals


def row(what, judge, seed, status, text):
    """The cells of a program's run, from the last line that it prints."""
    cases, failed = (re.findall(rf"(\d+) {x}", text) for x in ("cases", "failed"))
    if not cases or not failed:
        raise SystemExit(f"{what}: no totals, status {status}")
    failures = max(int(failed[-1]), int(status != 0 or cases[-1] == "0"))
    return what, judge, f"{int(cases[-1]):,}", str(failures), seed


# Shares of the time. Calls from Python are slow, and cover everything.
OPS, MODELS, ATTENTION, RECURRENCE, RNN, STRESS = 3, 1, 1, 0.25, 0.5, 1
KERNELS = (("attention", ATTENTION), ("recurrence", RECURRENCE), ("rnn", RNN))


def runs(folder, seconds, seed, most):
    """(what, judge, first seed, command, environment) of each program.

    `seconds` is the time of all programs together, one after the other.
    """
    folder = folder.absolute()
    names = [
        name for name in INSTRUCTION_SETS if can_run(folder / "attention_fuzz", name)
    ] or [""]
    kernels = sum(part for _, part in KERNELS)
    share = seconds / (OPS + MODELS + kernels * len(names) + STRESS)

    def options(part):
        return ("--seconds", max(1, int(part * share)))

    # The longest first.
    command = [
        sys.executable,
        "tests/helpers/fuzz_ops.py",
        *options(OPS),
        "--cases",
        most,
    ]
    judge = "`hw3tf.reference`, or a message"
    yield "ops and module", judge, str(seed), [*command, "--seed", seed], {}
    command = [sys.executable, "tests/helpers/fuzz_models.py", *options(MODELS)]
    command += ["--cases", most, "--seed", seed]
    yield "models", "stock Keras in float64", str(seed), command, {}
    judges = {
        "attention": "the formula in float64",
        "recurrence": "the formula",
        "rnn": "the formula in float64",
    }
    for i, name in enumerate(names):
        first = str(seed + i * PER_DAY // 10)
        environment = {"HW3TF_ISA": name} if name else {}
        for what, part in KERNELS:
            command = [folder / f"{what}_fuzz", *options(part), "--cases", most]
            command += ["--seed", first]
            yield f"{what}, {name}", judges[what], first, command, environment
    command = [sys.executable, "tests/helpers/stress.py", *options(STRESS)]
    judge = "the same call alone, bit for bit; memory"
    yield "64 threads at once, then one", judge, "", command, {}


def run_row(program):
    """(the cells of a program's row, what it printed)."""
    what, judge, first, command, environment = program
    status, text = run(command, **environment)
    return row(what, judge, first, status, text), text


def markdown(head, rows):
    lines = [f"| {' | '.join(x)} |" for x in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines) + "\n"


def tables(cells, totals, seconds, jobs, day):
    """The table of the programs, and that of the paths, as path_counts() gives them."""
    at_once = f", {jobs} programs at once" if jobs > 1 else ""
    programs = markdown(["what", "judged by", "cases", "failed", "first seed"], cells)
    head = ["path", "cases", "on more than one thread", "cut", "tasks"]
    rows = [[name, *(f"{x:,}" for x in counts)] for name, counts in totals.items()]
    dated = f"{day}, {seconds} seconds in all{at_once}.\n"
    return f"{programs}\n{markdown(head, rows)}\n{dated}"


def check(cells, totals):
    """Raises SystemExit if a case failed, or no case of a path ran on two threads."""
    if any(failed != "0" for *_, failed, _ in cells):
        raise SystemExit("cases failed: run each program with --case SEED")
    serial = [name for name, (_, on_threads, *_) in totals.items() if not on_threads]
    if serial or not totals:
        names = ", ".join(serial) or "any path"
        raise SystemExit(f"no case ran on more than one thread: {names}")


def main(argv=None):
    today = datetime.date.today()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=today.toordinal() % 200 * PER_DAY)
    parser.add_argument("--cases", type=int, default=10**12, help="at most, of each")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at once")
    parser.add_argument("--page", type=pathlib.Path, help="to write the table into")
    args = parser.parse_args(argv)
    if min(args.jobs, args.seconds, args.cases) < 1:
        parser.error("--jobs, --seconds and --cases must be at least 1")
    time, seed = args.seconds * args.jobs, max(1, args.seed)
    programs = runs(args.folder, time, seed, args.cases)
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        cells, texts = zip(*pool.map(run_row, programs), strict=True)
    totals = total_paths(texts)
    text = tables(cells, totals, args.seconds, args.jobs, today)
    print(text)
    if args.page:
        write_between(args.page, "fuzz.py", text)
    check(cells, totals)


if __name__ == "__main__":
    main()
