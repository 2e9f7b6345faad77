"""Tutorial 2: its cells one by one, what they claim, what a reader's change gives."""

import json
import pathlib
import types

import keras
import numpy as np
import processes
import pytest
from integer_formula import integer_rnn, limits
from lessons import require_judged, rerun, run_lesson

NAME = "02_integer_recurrence"
PROGRAM = pathlib.Path(__file__).parents[2] / "tutorials" / f"{NAME}.py"


@pytest.fixture(scope="module")
def run():
    """The notebook, from its first cell to its last, as it opens."""
    return run_lesson(NAME, notebook=True)


@pytest.fixture
def tutorial(run):
    return types.SimpleNamespace(**run.names)


def formula(x, dtype, **options):
    one = np.ones((1, 1), dtype)
    x = x[:, :, None]
    return integer_rnn(x, one, -one, return_sequences=True, **options)[0, :, 0]


def test_cells_show_pictures_and_numbers_as_they_run(run):
    assert [len(c.pictures) for c in run.cells if c.pictures] == [1] * 4
    assert sum(bool(c.printed or c.pictures) for c in run.cells) >= 15
    assert "x = [5, 3, 4, 1]: state h = -5, output y = 0\n" in run.printed
    assert "[3, 5, 4, 2]: E = 7, O = 7, state 0, output 0.5\n" in run.printed
    assert "the first wrong state is number 16,761\n" in run.printed
    last = run.cells[-1].printed
    assert last.endswith("All claims hold.\n")
    assert "  sequences                237,256\n" in last
    assert "Traceback" not in run.printed


def test_states_are_those_of_python_integers(tutorial):
    x = tutorial.alternating(10**8, 40)
    np.testing.assert_array_equal(tutorial.exact_states(x), formula(x, "int64"))
    assert limits("int32")[1] in tutorial.by_policy["saturate"]
    for overflow in ("wrap", "saturate"):
        wanted = formula(x, "int32", overflow=overflow)
        np.testing.assert_array_equal(tutorial.by_policy[overflow], wanted)
    words = "the recurrence overflows int32 in batch entry 0 at timestep 21"
    assert tutorial.message == words
    assert tutorial.closed_form([5, 3, 4, 1], 1, -1) == -5
    assert tutorial.closed_form([5, 3, 4], 2, 3) == 2 * (9 * 5 + 3 * 3 + 4)


def test_floats_are_exact_within_their_digits(tutorial):
    x = tutorial.alternating(1001, 200)
    np.testing.assert_array_equal(tutorial.float_states(x), formula(x, "int64"))
    assert set(tutorial.errors) == {1001, 1000, 1024, 999}
    # Not wrong everywhere beyond 2**24, as it would be for 1001.
    assert 0 in tutorial.errors[999][np.abs(999 * np.arange(1, 20_001)) > 2**24]


def test_a_wrong_answer_is_counted(run, tutorial, monkeypatch):
    four = tutorial.all_sequences(4)
    assert len(four) == len({tuple(x) for x in four.tolist()}) == 7**4
    assert tutorial.count_wrong(four).tolist() == [0, 0]
    # Of odd length, without the turn: right only where the difference is 0.
    assert tutorial.count_wrong(tutorial.all_sequences(1)).tolist() == [6, 6]
    monkeypatch.setitem(run.names, "even_minus_odd", lambda x: x.sum(axis=1))
    two = tutorial.count_wrong(tutorial.all_sequences(2))
    assert two[0] == 42  # right where the first number is 0
    assert 0 < two[1] < 42
    monkeypatch.setitem(run.names, "layer", tutorial.net(1, -1, dtype="int32"))
    overflows = np.array([[-(2**31), 2**31 - 1], [0, 0]], "int32")
    assert tutorial.count_wrong(overflows).tolist() == [2, 2]


def settings(tutorial, **changes):
    return types.SimpleNamespace(**{**vars(tutorial.settings), **changes})


def test_random_sequences_depend_on_the_seed(run, tutorial):
    seen = []

    def count(x):
        seen.append(x.copy())
        return np.zeros(2, int)

    for seed in (0, 0, 1):
        changed = settings(tutorial, seed=seed, longest=50, num_sequences=3000)
        rerun(run, "rng.bytes", count_wrong=count, settings=changed)
    assert all(x.shape[0] == 1000 and x.shape[1] % 2 == 0 for x in seen)
    assert [x.shape[1] for x in seen[2::3]] == [50] * 3
    assert [x.tolist() for x in seen[:3]] == [x.tolist() for x in seen[3:6]]
    assert seen[2].tolist() != seen[8].tolist()


def one_wrong(state, output):
    return lambda x, sign=1: np.array([state, output])


def contradictions(t):
    """(a text of the cell that judges, other values, the claims that must fail)."""
    changed = settings(t, longest=9_998, num_sequences=2000)
    yield "of 500", {"closed_form": lambda x, w, u: 0}, {1}
    yield "of the three", {"output": keras.ops.ones_like}, {3}
    yield "of the three", {"layer": lambda x: keras.ops.convert_to_tensor(x[:, 0])}, {3}
    for text in ("num_short =", "rng.bytes"):
        yield text, {"count_wrong": one_wrong(1, 0)}, {2}
        yield text, {"count_wrong": one_wrong(0, 1)}, {3}
    for wrong in ((1, 0), (0, 1)):
        yield "num_odd =", {"count_wrong": one_wrong(*wrong)}, {4}
    yield "rng.bytes", {"settings": changed, "count_wrong": one_wrong(0, 0)}, {2}
    for step in (1001, 1000, 1024):
        for error in (0 * t.errors[1001], t.errors[step] + 1):
            if step == 1001 or error.any():
                errors = {**t.errors, step: error}
                yield "right states beyond", {"errors": errors}, {5}
    yield "exact_four", {"float_states": lambda x: np.ones(4)}, {5}
    yield "exact_four", {"exact_states": lambda x: keras.ops.zeros(4)}, {5}
    yield "message =", {"int32_states": lambda x, overflow: x}, {6}
    for name in ("wrap", "saturate"):
        yield (
            "wrapped =",
            {"by_policy": {**t.by_policy, name: t.by_policy["exact"]}},
            {6},
        )


def test_claims_are_judged(run, tutorial):
    require_judged(run, contradictions(tutorial), claims=6)


def test_a_reader_who_changes_a_weight_reads_what_was_wanted_and_found(tmp_path):
    """In a program, with pictures as files."""
    small = ["--quick", "--num-sequences", "2000", "--longest", "100"]
    command = [PROGRAM, *small, "--recurrent-weight", "1", "--out", tmp_path]
    done = processes.run(command, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (3, "")
    assert "claim 1: 0 wanted, 0 found: holds [" in done.stdout
    assert "claim 2: 0 wanted, 107,058 found: does not hold [" in done.stdout
    assert "claim 3: [1, 0.5, 0] wanted, [1, 1, 1] found: does not h" in done.stdout
    assert "hold: 2, 3, 4 (--recurrent-weight 1 --num-sequences" in done.stdout
    assert "All claims hold" not in done.stdout
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["tutorial"] == NAME
    assert summary["settings"]["recurrent_weight"] == 1
    names = ("floats", "overflow", "plane", "unrolled")
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [f"{name}.{kind}" for name in names for kind in ("png", "svg")]


def test_a_reader_may_edit_the_sequence_and_the_weights():
    """Of a notebook: an odd length; a weight whose states need more than 64 bits."""
    edits = {
        "x = [5, 3, 4, 1]": "x = [7, 2, 1]",
        "recurrent_weight=-1": "recurrent_weight=3",
        "num_sequences=(100_000, ": "num_sequences=(2000, ",
    }
    run = run_lesson(NAME, notebook=True, edits=edits)
    assert "x = [7, 2, 1]: state h = 70, output y = 1\n" in run.printed
    verdict = "Claims that hold: 1, 5, 6. Claims that do not hold: 2, 3, 4.\n"
    assert run.cells[-1].printed.endswith(verdict)
    assert "claim 2: 0 wanted, 2,000 found: does not hold" in run.printed


def test_bad_arguments_are_refused(capsys):
    assert run_lesson(NAME, "--seed", "x").status == 2
    assert "--seed" in capsys.readouterr().err
