"""Tests of hw3tf.course.tutorial, the start and the end of tutorials."""

import argparse
import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import processes
import pytest

from hw3tf.course import tutorial
from hw3tf.course.tutorial import (
    ClaimError,
    UserError,
    argument_parser,
    check_start,
    claim,
    conclude,
    number,
    prepare_file,
    prepare_folder,
    print_summary,
    unicode_text,
)

# The module is imported by itself where Python starts anew: TensorFlow takes seconds,
# and with -O, when it is compiled first, ten.
PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
from {module} import *

def main(argv):
    assert argv is None
    {body}

run(main)
"""


@pytest.fixture
def program(tmp_path):
    """Runs a program whose `main` is `body`, outside the checkout."""

    def run(body, *options, **environment):
        module = "hw3tf.course.tutorial"
        if options or environment:  # which Python reads when it starts
            environment["modules"], module = (), "tutorial"
        folder = os.path.dirname(tutorial.__file__)
        code = PROGRAM.format(body=body, folder=folder, module=module)
        return processes.run([*options, "-c", code], cwd=tmp_path, **environment)

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


CONCLUDE = """
    parser = argument_parser("Do it.", "out", "quick")
    check = lambda: claim("accuracy", 0.25, ">=", 0.5)
    conclude("05", {{"accuracy": 0.25}}, check, parser.parse_args({arguments}))
"""


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (["--quick", "--out", "other"], 1, ""),
        (["--seed", "7"], 3, "; --seed 7 may be why"),
    ],
)
def test_claims_are_checked_without_asserts_and_the_summary_comes(
    arguments, status, why, program
):
    """`python -O` takes asserts for comments."""
    done = program(CONCLUDE.format(arguments=arguments).strip(), "-O")
    assert done.returncode == status
    assert last_line(done.stderr) == (
        f"-c: a claim does not hold: accuracy: wanted at least 0.5, found 0.25{why}"
    )
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout) == {"tutorial": "05", "accuracy": 0.25}


def test_characters_that_cannot_be_printed_end_nothing(program):
    for environment in ({"PYTHONIOENCODING": "ascii"}, {"PYTHONUTF8": "0"}):
        done = program(r"print('caf\u00e9 \udce9', sys.stdout.errors)", **environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("? replace\n")


def test_claims_say_what_was_wanted_and_what_was_found():
    good = {"<": (1, 2), "<=": (2, 2), "==": ([1], [1]), ">=": (2.0, 2), ">": (2, 1)}
    for relation, (found, wanted) in good.items():
        claim("it", found, relation, wanted)
    bad = {"<": (2, 2), "<=": (3, 2), "==": (1, 2), ">=": (np.nan, 2), ">": (1, 1)}
    words = ("less than 2", "at most 2", "2", "at least 2", "more than 1")
    for (relation, (found, wanted)), text in zip(bad.items(), words, strict=True):
        with pytest.raises(ClaimError) as caught:
            claim("it", found, relation, wanted)
        assert str(caught.value) == f"it: wanted {text}, found {found}"
    claim("it", [1.0, 2.0], "~", np.array([1.0, 2.01]), 0.02)
    message = "it, largest error: wanted less than 0.02, found 0.03"
    with pytest.raises(ClaimError, match=f"^{message}$"):
        claim("it", [1.0, 2.0], "~", np.array([1.0, 2.03]), 0.02)
    with pytest.raises(ClaimError, match="found nan"):
        claim("it", np.nan, "~", 1, 1)
    with pytest.raises(ClaimError, match=r"found 0\.333333$"):
        claim("it", np.float32(1 / 3), ">", 1)


def test_claims_that_hold_are_followed_by_the_summary(capsys):
    args = argument_parser("Do it.", "out", "quick").parse_args(["--seed", "1"])
    conclude("05", {"x": 1}, lambda: print("All claims hold."), args)
    assert capsys.readouterr().out == 'All claims hold.\n{"tutorial": "05", "x": 1}\n'


@pytest.mark.parametrize(
    ("parse", "good", "bad", "wanted"),
    [
        (
            number(1),
            {"3": 3},
            ["0", "-1", "abc", "1.5", ""],
            "an integer of at least 1",
        ),
        (number(0, 9), {"0": 0, "9": 9}, ["10", "nine"], "an integer from 0 to 9"),
        (
            number(0.5, 9, float),
            {"0.5": 0.5},
            ["nan", "inf", "0.4", "x"],
            "a number from 0.5 to 9",
        ),
    ],
)
def test_numbers_say_what_was_expected_and_what_came(parse, good, bad, wanted):
    for text, value in good.items():
        assert parse(text) == value
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError) as caught:
            parse(text)
        assert str(caught.value) == f"must be {wanted}, not {text!r}"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_text_is_read_as_utf8_in_every_locale(encoding, monkeypatch):
    monkeypatch.setattr(os, "fsencode", lambda x: x.encode(encoding, "surrogateescape"))
    argument = "café".encode().decode(encoding, "surrogateescape")
    assert unicode_text(argument) == "café"


def test_text_that_is_not_utf8_is_refused():
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        unicode_text(os.fsdecode(b"caf\xe9"))
    assert str(caught.value) == r"must be UTF-8, not the bytes b'caf\xe9'"


@pytest.mark.parametrize("seed", ["-1", "2147483648", "x", "1e3"])
def test_seeds_that_random_generators_refuse_are_refused(seed, capsys):
    with pytest.raises(SystemExit) as caught:
        argument_parser("Do it.", "out", "quick").parse_args(["--seed", seed])
    assert caught.value.code == 2
    assert f"--seed: must be an integer from 0 to 2147483647, not '{seed}'" in (
        capsys.readouterr().err
    )


def start(tmp_path, *packages):
    parser = argument_parser("Do it.", "out", "quick")
    check_start(parser.parse_args(["--out", str(tmp_path / "out")]), *packages)


def test_a_start_makes_the_folder(tmp_path):
    start(tmp_path, "sklearn")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["matplotlib", "sklearn"])
def test_missing_packages_are_told_at_the_start(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError) as caught:
        start(tmp_path, "sklearn")
    assert str(caught.value).startswith(f"{name} cannot be imported (")
    assert str(caught.value).endswith(": pip install 'hw3tf[tutorials]'")
    assert not list(tmp_path.iterdir())


def test_other_backends_are_told_where_tensorflow_is_needed(tmp_path, monkeypatch):
    import keras

    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(UserError, match="needs TensorFlow, and Keras runs on jax"):
        tutorial.require_tensorflow()
    start(tmp_path)  # a lesson chooses in its first cell


def test_a_full_disk_is_told_at_the_start(tmp_path, monkeypatch):
    free = SimpleNamespace(free=19 * 2**20)
    monkeypatch.setattr(tutorial.shutil, "disk_usage", lambda path: free)
    with pytest.raises(UserError, match="about 20 MiB are needed, 19 are free"):
        start(tmp_path)


def test_a_folder_in_the_place_of_a_picture_is_told_at_the_start(tmp_path):
    (tmp_path / "out" / "beta.png").mkdir(parents=True)
    with pytest.raises(UserError, match=r"--out .*beta\.png is a folder, and a file"):
        start(tmp_path)


def test_a_folder_without_rights_is_refused(tmp_path, monkeypatch):
    """Root may write everywhere, so the error of the system is simulated."""

    def forbid(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tutorial.tempfile, "TemporaryFile", forbid)
    with pytest.raises(UserError, match=r"--out .* cannot be written: Permission"):
        prepare_folder(tmp_path)


def test_files_that_cannot_be_written_are_refused(tmp_path):
    good = tmp_path / "model.keras"
    good.write_text("kept")
    prepare_file(good, ".keras", "--save")
    assert good.read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]
    (tmp_path / "folder.keras").mkdir()
    for path, reason in (
        (tmp_path / "model.h5", "must be a file whose name ends in .keras"),
        (tmp_path / "model", "must be a file whose name ends in .keras"),
        (tmp_path / "none" / "model.keras", "cannot be written: No such file"),
        (good / "model.keras", "cannot be written: Not a directory"),
        (tmp_path / "folder.keras", "is a folder, and a file has to go there"),
        (tmp_path / f"{'x' * 248}.keras", "cannot be written: File name too long"),
    ):
        with pytest.raises(UserError) as caught:
            prepare_file(path, ".keras", "--save")
        assert str(caught.value).startswith(f"--save {path} ")
        assert reason in str(caught.value)


def test_in_a_notebook_there_are_no_arguments(monkeypatch):
    seen = []
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.setenv("HW3TF_TUTORIAL_ARGUMENTS", "--quick --seed 1")
    tutorial.run(seen.append)
    monkeypatch.delenv("HW3TF_TUTORIAL_ARGUMENTS")
    tutorial.run(seen.append)
    assert seen == [["--quick", "--seed", "1"], []]
