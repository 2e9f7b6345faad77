"""Tutorial 4 in two processes, and the code that starts them."""

import json
import pathlib
import sys

import processes
import pytest
from workers import run_workers as run_workers_here

from hw3tf.course import sentiment
from hw3tf.course.data import WorkerError, run_workers, this_worker
from hw3tf.course.sentiment import program
from hw3tf.course.tutorial import UserError

PROGRAM = pathlib.Path(__file__).parents[2] / "tutorials" / "04_imdb_sentiment.py"


ARGUMENTS = ["--quick", "--data", "sample", "--workers", "2"]
# A network that learns what the examples say of 1,500 reviews.
SMALL = ["--attention", "none", "--epochs", "3", "--max-reviews", "1500"]


def assert_only_the_chief_wrote(folder):
    assert [p.name for p in folder.iterdir()] == ["out"]
    assert (folder / "out" / "sentiment.keras").exists()


def test_two_workers_train_and_the_chief_writes(tmp_path):
    """The program as each of its workers runs it."""
    arguments = [*ARGUMENTS, *SMALL, "--out", "out"]
    code = f"""
import runpy, sys
sys.argv = {["sentiment", *arguments]!r}
runpy.run_module("hw3tf.course.sentiment", run_name="__main__")
"""
    folder, printed = tmp_path / "work", tmp_path / "printed"
    folder.mkdir()
    printed.mkdir()
    chief, other = run_workers_here(code, printed, cwd=folder)
    assert chief.count("All claims that this run judges hold.") == 1
    assert "All claims that this run judges hold." not in other
    assert_only_the_chief_wrote(folder)


def test_program_starts_itself_as_often_as_it_has_workers(monkeypatch):
    started = []
    monkeypatch.setattr(program.options, "run_workers", lambda *x: started.append(x))
    monkeypatch.setattr(sys, "argv", ["04", *ARGUMENTS])
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert program.main() is None
    command = [sys.executable, "-m", "hw3tf.course.sentiment", *ARGUMENTS]
    assert started == [(2, command)]


@pytest.mark.slow
def test_a_whole_run_of_two_workers(tmp_path):
    command = [PROGRAM, *ARGUMENTS, "--out", tmp_path / "out"]
    done = processes.run(command, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("All claims that this run judges hold.") == 1
    assert_only_the_chief_wrote(tmp_path)


def test_every_worker_gets_its_index_and_the_same_cluster(tmp_path):
    code = (
        "import os, json; c = json.loads(os.environ['TF_CONFIG']); "
        f"open(rf'{tmp_path}/' + str(c['task']['index']), 'w').write(str(c['cluster']))"
    )
    run_workers(2, [sys.executable, "-c", code])
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text()
    assert "127.0.0.1:" in (tmp_path / "0").read_text()


def test_a_worker_that_fails_ends_the_others():
    code = (
        "import os, json, sys, time; i = json.loads(os.environ['TF_CONFIG'])['task']"
        "['index']; sys.exit(3) if i else time.sleep(600)"
    )
    with pytest.raises(WorkerError, match="worker 1 failed with exit status 3") as one:
        run_workers(2, [sys.executable, "-c", code])
    assert one.value.status == 3
    # It has said why; a signal has not.
    with pytest.raises(SystemExit) as end:
        sentiment.run_workers(2, [sys.executable, "-c", code])
    assert end.value.code == 3
    killed = "import os; os.kill(os.getpid(), 9)"
    with pytest.raises(UserError, match="failed with exit status -9"):
        sentiment.run_workers(1, [sys.executable, "-c", killed])
    with pytest.raises(ValueError, match="count"):
        run_workers(0, ["true"])


@pytest.mark.parametrize(
    "config",
    [
        "{",
        json.dumps({"cluster": {"worker": ["a:1"]}}),
        json.dumps(
            {"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}
        ),
    ],
)
def test_a_bad_tf_config_is_refused(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match="TF_CONFIG"):
        this_worker()
