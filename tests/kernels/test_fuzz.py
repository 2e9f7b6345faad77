"""The short form of fuzz_ops.py, and the totals of .ci/fuzz.py; `nox -s fuzz` runs the
long form of both."""

import pathlib
import re
import subprocess
import sys

import processes
import pytest

TESTS = pathlib.Path(__file__).parents[1]
FUZZ = TESTS.parent / ".ci/fuzz.py"


@pytest.mark.parametrize(
    "cases", [500, pytest.param(5000, marks=pytest.mark.slow)], ids=str
)
def test_hostile_calls_compute_or_are_refused(cases):
    command = [TESTS / "helpers/fuzz_ops.py", "--cases", str(cases)]
    done = processes.run(command, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert ", 0 failed, " in done.stdout


# A substitute for a program: it prints what the real one would.
PROGRAM = """#!/bin/sh
echo "path {name}: 20 cases, {on_threads} on threads, 7 cut, 40 tasks"
echo "{name}: 20 cases from seed 1 on, {failed} failed, on base"
"""


@pytest.fixture
def totals(tmp_path):
    """A function that runs .ci/fuzz.py with programs that print what they are told."""

    def run(on_threads=9, failed=0):
        for name in ("attention", "recurrence", "rnn"):
            program = tmp_path / f"build/{name}_fuzz"
            program.parent.mkdir(exist_ok=True)
            threads = on_threads if name == "recurrence" else 9
            program.write_text(
                PROGRAM.format(name=name, on_threads=threads, failed=failed)
            )
            program.chmod(0o755)
        # Python's programs are those of the folder above the script.
        for folder in (".ci", "tests/helpers"):
            (tmp_path / folder).mkdir(parents=True)
        for file in ("fuzz.py", "pages.py"):
            (tmp_path / ".ci" / file).write_text(FUZZ.with_name(file).read_text())
        for file in ("fuzz_ops.py", "fuzz_models.py", "stress.py"):
            text = f"print('{file}: 10 cases, 0 failed, all well')"
            (tmp_path / "tests/helpers" / file).write_text(text)
        page = tmp_path / "page.md"
        page.write_text("before\n<!-- fuzz.py writes from here -->\n<!-- to here -->\n")
        command = [sys.executable, tmp_path / ".ci/fuzz.py", tmp_path / "build"]
        command += ["--page", page, "--jobs", "1", "--seconds", "1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        return done, page.read_text()

    return run


def test_totals_count_the_paths_through_the_kernels(totals):
    done, page = totals()
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (attention|recurrence|rnn) \| (.*) \|$", page, re.M)
    runs = len(re.findall(r"^\| attention, ", page, re.M))
    assert runs > 0
    counts = " | ".join(str(runs * x) for x in (20, 9, 7, 40))
    assert rows == [(x, counts) for x in ("attention", "recurrence", "rnn")]


def test_a_path_that_never_ran_on_threads_fails_the_run(totals):
    done, page = totals(on_threads=0)
    assert done.returncode != 0
    assert "no case ran on more than one thread: recurrence" in done.stderr
    assert "| recurrence |" in page


def test_a_failed_case_fails_the_run(totals):
    done, _ = totals(failed=1)
    assert done.returncode != 0
    assert "cases failed" in done.stderr
