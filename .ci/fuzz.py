"""Random cases for some time: the table of totals in docs/reliability.md.

    python .ci/fuzz.py FOLDER --seconds 600

runs the C++ fuzzer in FOLDER on every instruction set of this machine,
tests/fuzz_ops.py and tests/stress.py, each for an equal share of the time. `nox -s
fuzz` builds the one and runs this. Seeds follow from the day, unless `--seed` says
otherwise.
"""

import argparse
import datetime
import os
import pathlib
import re
import subprocess
import sys

from pages import write_between

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs/reliability.md"
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


def rows(folder, seconds, seed, most):
    program = folder.absolute() / "attention_fuzz"
    names = [name for name in INSTRUCTION_SETS if can_run(program, name)] or [""]
    time = ("--seconds", max(1, seconds // (len(names) + 2)))
    share = (*time, "--cases", most)
    for i, name in enumerate(names):
        first = str(seed + i * PER_DAY // 10)
        environment = {"HW3TF_ISA": name} if name else {}
        done = run([program, *share, "--seed", first], **environment)
        yield row(f"kernels, {name}", "the formula in float64", first, *done)
    done = run([sys.executable, "tests/fuzz_ops.py", *share, "--seed", seed])
    yield row("ops and module", "`hw3tf.reference`, or a message", str(seed), *done)
    done = run([sys.executable, "tests/stress.py", *time])
    judge = "the same call alone, bit for bit; memory"
    yield row("64 threads at once, then one", judge, "", *done)


def table(cells, seconds, day):
    lines = ["| what | judged by | cases | failed | first seed |"]
    lines.append("| --- " * 5 + "|")
    lines += [f"| {' | '.join(x)} |" for x in cells]
    return "\n".join(lines) + f"\n\n{day}, {seconds} seconds in all.\n"


def main(argv=None):
    today = datetime.date.today()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=today.toordinal() % 200 * PER_DAY)
    parser.add_argument("--cases", type=int, default=10**12, help="at most, of each")
    parser.add_argument("--page", type=pathlib.Path, default=PAGE)
    args = parser.parse_args(argv)
    cells = list(rows(args.folder, args.seconds, max(1, args.seed), args.cases))
    write_between(args.page, "fuzz.py", table(cells, args.seconds, today))
    if any(failed != "0" for *_, failed, _ in cells):
        raise SystemExit("cases failed: run each program with --case SEED")


if __name__ == "__main__":
    main()
