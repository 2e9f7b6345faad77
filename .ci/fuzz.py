"""Random cases for some time, and a table of the totals.

    python .ci/fuzz.py FOLDER --seconds 600

runs the C++ fuzzers in FOLDER on every instruction set of this machine,
tests/fuzz_ops.py and tests/stress.py, as many at once as there are processors. `nox
-s fuzz` builds the former and runs this. Seeds follow from the day, unless `--seed`
says otherwise. `--page docs/reliability.md` writes the tables there: those of a long
run. The second one says which ways the cases took through the kernels; a way that no
case took on more than one thread is a failure.
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
    """(status, standard output), which is shown, too."""
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


def row(what, judge, seed, status, text):
    """The cells of a program's run, from the last line that it prints."""
    cases, failed = (re.findall(rf"(\d+) {x}", text) for x in ("cases", "failed"))
    if not cases or not failed:
        raise SystemExit(f"{what}: no totals, status {status}")
    failures = max(int(failed[-1]), int(status != 0 or cases[-1] == "0"))
    return what, judge, f"{int(cases[-1]):,}", str(failures), seed


# Shares of the time. A call from Python is slow, and what it calls is everything.
OPS, KERNELS, STRESS = 3, 1, 1


def runs(folder, seconds, seed, most):
    """(what, judge, first seed, command, environment) of each program.

    `seconds` are those of all of them, one after the other.
    """
    program = folder.absolute() / "attention_fuzz"
    names = [name for name in INSTRUCTION_SETS if can_run(program, name)] or [""]
    share = seconds / (OPS + KERNELS * len(names) + STRESS)

    def options(part):
        return ("--seconds", max(1, int(part * share)))

    # The longest first.
    command = [sys.executable, "tests/fuzz_ops.py", *options(OPS), "--cases", most]
    judge = "`hw3tf.reference`, or a message"
    yield "ops and module", judge, str(seed), [*command, "--seed", seed], {}
    for i, name in enumerate(names):
        first = str(seed + i * PER_DAY // 10)
        command = [program, *options(KERNELS), "--cases", most, "--seed", first]
        environment = {"HW3TF_ISA": name} if name else {}
        yield f"kernels, {name}", "the formula in float64", first, command, environment
    command = [sys.executable, "tests/stress.py", *options(STRESS)]
    judge = "the same call alone, bit for bit; memory"
    yield "64 threads at once, then one", judge, "", command, {}


def run_row(program):
    what, judge, first, command, environment = program
    return row(what, judge, first, *run(command, **environment))


def table(cells, seconds, jobs, day):
    lines = ["| what | judged by | cases | failed | first seed |"]
    lines.append("| --- " * 5 + "|")
    lines += [f"| {' | '.join(x)} |" for x in cells]
    at_once = f", {jobs} programs at once" if jobs > 1 else ""
    return "\n".join(lines) + f"\n\n{day}, {seconds} seconds in all{at_once}.\n"


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
    time, seed = args.seconds * args.jobs, max(1, args.seed)
    programs = runs(args.folder, time, seed, args.cases)
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        cells = list(pool.map(run_row, programs))
    text = table(cells, args.seconds, args.jobs, today)
    print(text)
    if args.page:
        write_between(args.page, "fuzz.py", text)
    if any(failed != "0" for *_, failed, _ in cells):
        raise SystemExit("cases failed: run each program with --case SEED")


if __name__ == "__main__":
    main()
