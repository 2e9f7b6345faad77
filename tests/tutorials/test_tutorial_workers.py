"""Tutorial 4 in two processes, and the code that starts them."""

import json
import pathlib
import subprocess
import sys

import pytest

from hw3tf.course import sentiment
from hw3tf.course.data import WorkerError, run_workers, this_worker
from hw3tf.course.tutorial import UserError

PROGRAM = pathlib.Path(__file__).parents[2] / "tutorials" / "04_imdb_sentiment.py"


@pytest.mark.parametrize(
    "more",
    [
        # A network that learns what the examples say of 1,500 reviews.
        pytest.param(
            ["--attention", "none", "--epochs", "3", "--max-reviews", "1500"],
            id="short",
        ),
        pytest.param([], id="whole", marks=pytest.mark.slow),
    ],
)
def test_two_workers_train_and_the_chief_writes(more, tmp_path):
    done = subprocess.run(
        [sys.executable, PROGRAM, "--quick", "--data", "sample", "--workers", "2"]
        + ["--out", tmp_path / "out", *more],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("All claims hold.") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "sentiment.keras").exists()


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
