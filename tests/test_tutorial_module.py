"""hw3tf.tutorial: how the tutorials begin and end."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from hw3tf.tutorial import (
    UserError,
    argument_parser,
    prepare_folder,
    print_summary,
)

PROGRAM = """
import sys
from hw3tf.tutorial import UserError, run

def main(argv):
    assert argv is None
    {body}

run(main)
"""


@pytest.fixture
def program(tmp_path):
    """Runs a program whose `main` is `body`, outside the checkout."""

    def run(body):
        return subprocess.run(
            [sys.executable, "-c", PROGRAM.format(body=body)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )

    return run


def last_line(text):
    """TensorFlow writes some of its own before."""
    return text.splitlines()[-1]


def test_every_tutorial_takes_seed_quick_and_out(capsys):
    parser = argument_parser("Do it.", out="runs/x", quick="a minute")
    args = parser.parse_args(["--seed", "3", "--quick", "--out", "y"])
    assert (args.seed, args.quick, str(args.out)) == (3, True, "y")
    assert not parser.parse_args([]).quick
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = capsys.readouterr().out
    assert "Do it." in text
    assert "a minute" in text
    assert "runs/x" in text


def test_a_folder_is_made_and_nothing_left_in_it(tmp_path):
    prepare_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(UserError, match=r"--out .*file.* cannot be written"):
        prepare_folder(tmp_path / "file")


def test_the_summary_is_one_line_of_json(capsys):
    results = {"accuracy": np.float32(1 / 3), "list": np.arange(2), "by": {1: [0.5]}}
    print_summary("05", results)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "tutorial": "05",
        "accuracy": 0.333333,
        "list": [0, 1],
        "by": {"1": [0.5]},
    }


def test_errors_of_the_user_are_one_line_and_status_2(program):
    done = program("raise UserError('no such data')")
    assert done.returncode == 2
    assert last_line(done.stderr) == "-c: error: no such data"
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_ctrl_c_is_status_130_and_other_errors_are_shown_whole(program):
    done = program("raise KeyboardInterrupt")
    assert (done.returncode, last_line(done.stderr)) == (130, "Interrupted.")
    done = program("raise ValueError('a bug')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_in_a_notebook_there_are_no_arguments(monkeypatch):
    from hw3tf import tutorial

    seen = []
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.setenv("HW3TF_TUTORIAL_ARGUMENTS", "--quick --seed 1")
    tutorial.run(seen.append)
    monkeypatch.delenv("HW3TF_TUTORIAL_ARGUMENTS")
    tutorial.run(seen.append)
    assert seen == [["--quick", "--seed", "1"], []]
