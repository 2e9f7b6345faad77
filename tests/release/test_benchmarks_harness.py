"""The harness of the benchmarks: processes that answer in turn, and what they write."""

import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

WORKER = """
import time

class Worker:
    def __init__(self, start):
        self.count = int(start)
    def count_on(self, by):
        self.count += by
        print("what a library says")
        return {"count": self.count}
    def fail(self):
        raise ValueError("no such thing")
    def hang(self):
        time.sleep(100)
    def end(self):
        raise SystemExit("last words")
"""


@pytest.fixture
def harness(benchmarks):
    return importlib.import_module("harness")


@pytest.fixture
def process(harness, tmp_path):
    (tmp_path / "counting.py").write_text(WORKER)
    path = {"PYTHONPATH": str(tmp_path)}
    with harness.Process("counting", 40, environment=path) as process:
        yield process


def test_a_process_answers_and_sleeps_in_between(process):
    assert process.process is None
    assert process.ask("count_on", by=2) == {"count": 42}
    pid = process.process.pid
    end = time.monotonic() + 20
    while not (found := os.waitpid(pid, os.WUNTRACED | os.WNOHANG))[0]:
        assert time.monotonic() < end, "the process was not stopped"
    assert os.WSTOPSIG(found[1]) == signal.SIGSTOP
    assert process.ask("count_on", by=1) == {"count": 43}
    assert process.process.pid == pid


def test_an_exception_does_not_end_a_process_and_an_end_starts_it_anew(process):
    assert process.ask("fail") == {"error": "ValueError: no such thing"}
    assert process.ask("count_on", by=2) == {"count": 42}
    assert process.ask("end") == {"error": "died: last words"}
    assert process.process is None
    assert process.ask("count_on", by=3) == {"count": 43}


def test_what_cannot_start_says_why(harness, tmp_path, monkeypatch):
    with harness.Process("nowhere") as process:
        answer = process.ask("anything")
        assert answer == {"error": "not installed: No module named 'nowhere'"}
    (tmp_path / "counting.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"counting fail failed:\n(.*\n)*.*no such"):
        harness.ask_once("counting", 1, do="fail")


def test_a_process_that_hangs_is_ended(harness, process, monkeypatch):
    assert process.ask("count_on", by=1) == {"count": 41}
    monkeypatch.setattr(harness, "SECONDS_FOR_AN_ANSWER", 0.1)
    assert process.ask("hang") == {"error": "no answer"}
    assert process.process is None


def test_everyone_begins_a_round(harness):
    assert [harness.in_turn("abc", n) for n in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]
    assert harness.in_turn([], 3) == []


def test_a_stored_run_is_reported_again(benchmarks, tmp_path, capsys):
    program = importlib.import_module("attention.memory")
    file, page = tmp_path / "memory.json", tmp_path / "page.md"
    program.main(["--quick", "--threads", "1", "--json", str(file)])
    text = capsys.readouterr().out
    (length,) = json.loads(file.read_text())["lengths"]
    assert length["length"] == 256
    assert 0 <= length["forward"] <= length["both"]
    assert f"| 256   | {length['forward']:12.2f} |" in text
    begin = "<!-- attention/memory.py writes from here -->"
    page.write_text(f"before\n{begin}\nold\n<!-- to here -->\nafter\n")
    program.main(["--from-json", str(file), "--markdown", str(page)])
    assert capsys.readouterr().out == text
    text = text.removesuffix("\n")
    assert page.read_text() == f"before\n{begin}\n\n{text}\n<!-- to here -->\nafter\n"


@pytest.mark.parametrize(
    "name", ["attention/run.py", "recurrence/run.py", "recurrence/layers/run.py"]
)
def test_programs_know_the_files_beside_them_wherever_they_start(
    benchmarks, name, tmp_path
):
    command = [sys.executable, pathlib.Path(benchmarks, name), "--list"]
    done = subprocess.run(
        command, cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert len(done.stdout.splitlines()) > 10
