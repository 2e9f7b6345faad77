"""Arrays of no bytes and of any size, in a process of their own: empty_calls.py."""

import ast
import pathlib
import sys

import processes
import pytest

PROGRAM = pathlib.Path(__file__).parents[1] / "helpers/empty_calls.py"


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize(
    "more", [[], pytest.param(["every"], marks=pytest.mark.slow)], ids=["few", "every"]
)
@pytest.mark.parametrize("path", ["core", "op", "graph", "shapes", "ops"])
def test_a_zero_beside_a_power_of_two_computes_or_is_refused(path, more, tmp_path):
    note = tmp_path / "call"
    done = processes.run([PROGRAM, path, note, *more], timeout=900)
    last = note.read_text().strip()
    assert done.returncode == 0, f"{last}: {done.returncode}\n{done.stderr[-3000:]}"
    counts = ast.literal_eval(done.stdout.removeprefix(path))
    assert counts["computed"] > 150
    assert sum(counts.values()) > (4000 if more else 900)
