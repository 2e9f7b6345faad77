"""Tests of hw3tf.course.lesson: settings, claims, pictures, progress, the end."""

import json
import sys

import keras
import lessons
import numpy as np
import processes
import pytest

from hw3tf.course import lesson as module
from hw3tf.course import plots
from hw3tf.course.lesson import Lesson
from hw3tf.course.tutorial import UserError

NUMBERS = {"size": (10, 1000), "weight": -1, "rate": 0.5, "seed": 0}


@pytest.fixture
def begin(monkeypatch, tmp_path):
    """Begins a lesson as a program with arguments; its folder is `tmp_path`."""

    def begin(*arguments, claims=2, **settings):
        argv = ["06_squares.py", *arguments, "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", argv)
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        lesson = Lesson("06_squares", claims=claims)
        lesson.settings(**(settings or NUMBERS))
        return lesson

    return begin


@pytest.fixture
def notebook(monkeypatch):
    """Begins a lesson as a notebook; what it shows is in `notebook.pictures`."""

    def begin(full=False, arguments=None):
        if arguments is not None:
            monkeypatch.setenv("HW3TF_TUTORIAL_ARGUMENTS", arguments)
        lesson = Lesson("06_squares", claims=2)
        begin.settings = lesson.settings(full=full, **NUMBERS)
        return lesson

    begin.pictures = []
    for name, stand_in in lessons.stand_ins(begin.pictures).items():
        monkeypatch.setitem(sys.modules, name, stand_in)
    return begin


def finish(lesson, **results):
    """The exit status of the program."""
    try:
        lesson.finish(**results)
    except SystemExit as end:
        return end.code
    return 0


def test_program_makes_a_full_run_and_quick_a_short_one(begin, capsys):
    lesson = begin()
    assert lesson.full
    assert lesson._settings == {"size": 1000, "weight": -1, "rate": 0.5, "seed": 0}
    line = "Full run of 06_squares: size 1,000, weight -1, rate 0.5, seed 0\n"
    assert capsys.readouterr().out == line
    lesson = begin("--quick")
    assert (lesson.full, lesson._settings["size"], lesson.changed) == (False, 10, "")
    lesson = begin("--quick", "--weight", "1", "--size", "10", "--rate", "0.25")
    assert lesson._settings == {"size": 10, "weight": 1, "rate": 0.25, "seed": 0}
    assert lesson.changed == "--weight 1 --rate 0.25"
    assert begin("--seed", "3").changed == "--seed 3"


def test_settings_that_are_choices_change_no_claim(begin, capsys):
    settings = {"data": "auto", "size": 3, "choices": {"data": ("auto", "digits")}}
    lesson = begin(**settings)
    assert lesson._settings == {"data": "auto", "size": 3}
    lesson = begin("--data", "digits", **settings)
    assert (lesson._settings["data"], lesson.changed) == ("digits", "")
    assert begin("--data", "digits", "--size", "4", **settings).changed == "--size 4"
    with pytest.raises(SystemExit) as end:
        begin("--data", "imdb", **settings)
    assert end.value.code == 2
    assert "argument --data: invalid choice: 'imdb'" in capsys.readouterr().err


def test_notebook_makes_a_short_run_unless_it_is_told_otherwise(notebook):
    assert not notebook().full
    assert notebook.settings.size == 10
    assert notebook(full=True).full
    assert notebook.settings.size == 1000
    assert notebook(arguments="").full
    assert not notebook(full=True, arguments="--quick --weight 2").full
    assert (notebook.settings.size, notebook.settings.weight) == (10, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "0"], "--size: must be an integer from 1 to 2147483647, not '0'"),
        (["--weight", "x"], "--weight: must be an integer from -2147483647 to"),
        (["--rate", "x"], "--rate: must be a number from"),
        (["--seed", "-1"], "--seed: must be an integer from 0 to 2147483647"),
        (["--colour", "2"], "unrecognized arguments: --colour 2"),
    ],
)
def test_bad_arguments_are_refused(begin, arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        begin(*arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_ends_before_the_work(begin, tmp_path):
    lesson = begin()
    (tmp_path / "file").write_text("")
    sys.argv[-1] = str(tmp_path / "file")
    with pytest.raises(UserError, match=r"--out .*file cannot be written"):
        lesson.settings()


HOLDS = [
    (0.97, ">=", 0.95, 0, "0.95 wanted, 0.97 found"),
    (7, "==", 7, 0, "7 wanted, 7 found"),
    ([1.0, 0.5], "==", [1.0, 0.5], 0, "[1, 0.5] wanted, [1, 0.5] found"),
    (3, "<", 4, 0, "less than 4 wanted, 3 found"),
    (np.float32(4), "<=", 4, 0, "at most 4 wanted, 4 found"),
    (12_345, ">", 12_344, 0, "more than 12,344 wanted, 12,345 found"),
    (3.14, "~", 3.1416, 0.01, "3.142 within 0.01 wanted, 3.14 found"),
    (np.ones(2), "~", np.ones(2), 0.1, "less than 0.1 wanted, 0 found"),
]
FAILS = [
    (0.51, ">=", 0.95, 0, "0.95 wanted, 0.51 found"),
    (8, "==", 7, 0, "7 wanted, 8 found"),
    (4, "<", 4, 0, "less than 4 wanted, 4 found"),
    (5, "<=", 4, 0, "at most 4 wanted, 5 found"),
    (1, ">", 1, 0, "more than 1 wanted, 1 found"),
    (float("nan"), ">=", 0.5, 0, "0.5 wanted, nan found"),
    (float("nan"), "~", 0.5, 0.1, "0.5 within 0.1 wanted, nan found"),
    (3.2, "~", 3.1416, 0.01, "3.142 within 0.01 wanted, 3.2 found"),
    (np.zeros(2), "~", np.ones(2), 0.1, "less than 0.1 wanted, 1 found"),
    # What a reader's change may lead to: other types and shapes.
    (np.zeros(3), "~", np.ones(2), 0.1, "less than 0.1 wanted, [0, 0, 0] found"),
    (None, ">=", 0.5, 0, "0.5 wanted, None found"),
    (np.zeros(3), "==", 7, 0, "7 wanted, [0, 0, 0] found"),
]


@pytest.mark.parametrize(
    ("case", "held"),
    [(case, True) for case in HOLDS] + [(case, False) for case in FAILS],
    ids=lambda x: x[-1] if isinstance(x, tuple) else "",
)
def test_claims_say_what_was_wanted_and_what_was_found(begin, case, held, capsys):
    found, relation, wanted, within, words = case
    lesson = begin(claims=1)
    lesson.claim(1, "it", found, relation, wanted, within)
    line = capsys.readouterr().out.splitlines()[-1]
    verdict = "holds" if held else "does not hold"
    assert line.startswith(f"claim 1: {words}: {verdict} [it")
    assert finish(lesson) == (0 if held else 1)


def test_wrong_claims_of_the_author_are_refused(begin):
    lesson = begin()
    with pytest.raises(ValueError, match=r"1\.\.2, not 3"):
        lesson.claim(3, "it", 1, "<", 2)
    with pytest.raises(ValueError, match="must be one of < <= == >= > ~, not !="):
        lesson.claim(1, "it", 1, "!=", 2)


def test_all_claims_hold_is_said_only_if_all_were_judged_and_hold(begin, capsys):
    lesson = begin()
    lesson.claim(1, "a", 0.847, ">=", 0.8, full=True)
    assert lesson.verdict() == (
        "Claims that hold: 1. Claims whose cells were not run: 2."
    )
    lesson.claim(2, "b", 3, "==", 3)
    assert lesson.verdict() == "All claims hold."
    assert finish(lesson) == 0
    lesson.claim(2, "c", 4, "==", 3)
    assert lesson.verdict() == "Claims that hold: 1. Claims that do not hold: 2."
    assert finish(lesson) == 1
    assert (
        "All claims hold." not in capsys.readouterr().out.split("claim 2: 3 wanted,")[2]
    )


def test_a_cell_that_is_run_again_is_judged_anew(begin):
    lesson = begin(claims=1)
    lesson.claim(1, "a", 2, "==", 3)
    assert lesson.status() == 1
    lesson.claim(1, "a", 3, "==", 3)
    assert (lesson.status(), lesson.verdict()) == (0, "All claims hold.")


def test_quick_runs_say_what_they_do_not_judge(begin, capsys):
    lesson = begin("--quick")
    capsys.readouterr()
    lesson.claim(1, "accuracy", 0.847, ">=", 0.92, full=True)
    assert capsys.readouterr().out == (
        "claim 1: 0.92 wanted in a full run; quick runs do not judge it (0.847 here) "
        "[accuracy]\n"
    )
    lesson.claim(2, "b", 3, "==", 3)
    assert finish(lesson, accuracy=0.847) == 0
    out = capsys.readouterr().out
    assert "not judged" in out
    assert "Claims that hold: 2. Claims that only a full run judges: 1." in out
    assert "All claims hold" not in out


def test_a_full_run_on_other_data_says_what_it_does_not_judge(begin, capsys):
    lesson = begin(claims=1)
    capsys.readouterr()
    lesson.claim(1, "accuracy", 0.99, ">=", 0.92, full=True, needs="IMDB")
    assert capsys.readouterr().out == (
        "claim 1: 0.92 wanted in a full run on IMDB; this run does not judge it "
        "(0.99 here) [accuracy]\n"
    )
    assert finish(lesson) == 0
    out = capsys.readouterr().out
    assert "Claims that only a full run on IMDB judges: 1." in out
    assert "All claims hold" not in out


def test_options_of_another_program_start_it(monkeypatch, capsys):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    started = []
    lesson = Lesson("09_x", claims=1, program=lambda: started.append(sys.argv[1:]))
    monkeypatch.setattr(sys, "argv", ["09_x.py", "--quick", "--model", "lstm"])
    with pytest.raises(SystemExit) as end:
        lesson.settings(weight=1)
    assert (end.value.code, started) == (None, [["--quick", "--model", "lstm"]])
    with pytest.raises(SystemExit) as end:  # without a program, they are wrong
        Lesson("09_x", claims=1).settings(weight=1)
    assert end.value.code == 2
    assert "unrecognized arguments: --model lstm" in capsys.readouterr().err


def test_predictions_report_their_progress(begin, capsys, monkeypatch):
    monkeypatch.setattr("hw3tf.course.lesson._SECONDS_BETWEEN_REPORTS", 0.0)
    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    report = begin().training("net")
    capsys.readouterr()
    net.predict(np.zeros((6, 2), "float32"), 2, verbose=0, callbacks=[report])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" after")[0] for line in lines[:3]] == [
        "net, test: 33%",
        "net, test: 67%",
        "net, test: 100%",
    ]
    assert lines[3].startswith("net, test: done in ")


@pytest.mark.parametrize("found", [0.95, 0.51])
def test_changed_settings_are_named(begin, found, capsys):
    lesson = begin("--weight", "1", claims=1)
    lesson.claim(1, "accuracy", found, ">=", 0.9)
    if found > 0.9:
        assert finish(lesson) == 0
        words = "Claims that hold: 1. This run has changed settings: --weight 1.\n"
    else:
        assert finish(lesson) == 3
        words = "Claims that do not hold: 1 (--weight 1 may be why).\n"
    assert words in capsys.readouterr().out


def test_claim_that_no_cell_judges_is_status_1(begin):
    lesson = begin()
    lesson.claim(1, "a", 1, "==", 1)
    assert finish(lesson) == 1


def test_the_end_is_a_table_and_one_line_of_json(begin, capsys):
    lesson = begin("--quick")
    lesson.claim(1, "a", 1.5, "<", 2)
    lesson.claim(2, "b", 1, "==", 2)
    capsys.readouterr()
    assert finish(lesson, best_guess=np.float32(0.25), by={"x y": 1000}) == 1
    *table, last = capsys.readouterr().out.splitlines()
    assert table == [
        "",
        "Results",
        "  best guess  0.25",
        "  by, x y     1,000",
        "",
        "Claims",
        "  1  less than 2 wanted  1.5 found  holds          a",
        "  2  2 wanted            1 found    does not hold  b",
        "Claims that hold: 1. Claims that do not hold: 2.",
    ]
    summary = json.loads(last)
    assert (summary["tutorial"], summary["full"]) == ("06_squares", False)
    assert (summary["best_guess"], summary["by"]) == (0.25, {"x y": 1000})
    assert summary["settings"]["size"] == 10
    assert [c["held"] for c in summary["claims"]] == [True, False]


def test_notebook_ends_without_json_and_goes_on(notebook, capsys):
    lesson = notebook()
    lesson.claim(1, "a", 2, "==", 1)
    lesson.finish()
    out = capsys.readouterr().out
    assert out.endswith(
        "Claims that do not hold: 1. Claims whose cells were not run: 2.\n"
    )
    assert "{" not in out


def figure():
    figure, axes = plots.new_figure(1, 1, (4, 3))
    axes[0, 0].plot([0, 1])
    return figure


def test_pictures_are_files_of_a_program_and_shown_by_a_notebook(
    begin, notebook, tmp_path, capsys, monkeypatch
):
    shown = notebook()
    shown.show("line", figure())
    ((name, data),) = notebook.pictures
    assert (name, data[:4]) == ("line", b"\x89PNG")
    assert not list(tmp_path.iterdir())
    monkeypatch.delitem(sys.modules, "ipykernel")
    lesson = begin()
    lesson.show("line", figure())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["line.png", "line.svg"]
    assert capsys.readouterr().out.endswith(f"picture: {tmp_path}/line.png\n")


@pytest.fixture
def clock(monkeypatch):
    """A clock that shows one second more at every look."""
    times = iter(range(1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(times))


def test_loops_of_more_than_two_seconds_report(begin, clock, capsys):
    lesson = begin()
    capsys.readouterr()
    assert list(lesson.progress("abcd", "letters")) == list("abcd")
    assert capsys.readouterr().out == (
        "letters: 25% after 2 s, about 6 s left\n"
        "letters: 75% after 4 s, about 1 s left\n"
        "letters: done in 5.0 s\n"
    )


def test_short_loops_report_nothing(begin, capsys):
    lesson = begin()
    capsys.readouterr()
    assert list(lesson.progress([1, 2], "numbers")) == [1, 2]
    assert list(lesson.progress([], "nothing")) == []
    assert capsys.readouterr().out == ""


def test_reports_of_a_notebook_share_a_line(notebook, clock, capsys):
    lesson = notebook()
    capsys.readouterr()
    list(lesson.progress("abcd", "letters"))
    states = capsys.readouterr().out.split("\r")
    assert [state.strip() for state in states] == [
        "",
        "letters: 25% after 2 s, about 6 s left",
        "letters: 75% after 4 s, about 1 s left",
        "letters: done in 5.0 s",
    ]
    assert len(states[-1]) > len(states[-2])  # and covers what stood there


def test_training_reports(begin, clock, capsys):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    watch = begin().training("a line")
    capsys.readouterr()
    x = np.ones((4, 1))
    model.fit(x, x, batch_size=2, epochs=2, verbose=0, callbacks=[watch])
    first, second, *_, last = capsys.readouterr().out.splitlines()
    assert first == "a line: the first step takes longest"
    assert second.startswith("a line: 50% after 2 s, about 2 s left, loss ")
    assert last.startswith("a line: done in 5.0 s, loss ")


PROGRAM = """
import sys
sys.argv = ["06_squares.py", "--out", "."]
from hw3tf.course.lesson import Lesson
from hw3tf.course.tutorial import UserError
lesson = Lesson("06_squares", claims=1)
lesson.settings()
{body}
"""


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ("raise UserError('no data')", 2, "06_squares.py: error: no data"),
        ("raise KeyboardInterrupt", 130, "Interrupted."),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("lesson.claim(1, 'a', 1, '==', 2); lesson.finish()", 1, None),
        ("lesson.claim(1, 'a', 1, '==', 1); lesson.finish()", 0, None),
    ],
)
def test_programs_end_with_a_status_and_one_line(body, status, error, tmp_path):
    done = processes.run(["-c", PROGRAM.format(body=body)], cwd=tmp_path)
    assert done.returncode == status
    lines = done.stderr.splitlines()
    assert (lines[-1] if lines else None) == error
    assert ("Traceback" in done.stderr) == (error is not None and "Zero" in error)
