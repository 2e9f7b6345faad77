"""Tutorial 5: its folder, copied and renamed, its helpers, and a quick run."""

import ast
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from lessons import rerun, run_lesson

from hw3tf.course import own_op
from hw3tf.course.tutorial import UserError

TUTORIALS = pathlib.Path(__file__).parents[2] / "tutorials"
PROGRAM, FOLDER = TUTORIALS / "05_your_own_op.py", TUTORIALS / "05_your_own_op"
SOURCES = sorted(FOLDER.glob("csrc/*"))


SLOW = {"alternating sum, int64": {"loop": 5.0, "C++": 1.0}}
WRONG = np.full((6, 3), 1e-4)


def number_of_threads(*_, threads):
    import tensorflow as tf

    return [tf.constant(threads)]


def commands(text):
    """The lines of shell that copy and rename the folder."""
    return re.search(r"cp -r .*?&& pytest", text, re.S)[0]


@pytest.fixture(scope="module")
def renamed(tmp_path_factory):
    """The folder after the commands of its README: (source, where it is installed)."""
    folder = tmp_path_factory.mktemp("renamed")
    shutil.copytree(FOLDER, folder / "tutorials" / FOLDER.name)
    *steps, install = commands((FOLDER / "README.md").read_text()).split("\n")
    assert install == "pip install '.[test]' && pytest"
    subprocess.run(["bash", "-euc", "\n".join(steps)], check=True, cwd=folder)
    source, site = folder / "fast_norm", folder / "site"
    subprocess.run(own_op.build_command(source, site), check=True)
    return source, site


def test_the_lesson_has_the_commands_of_the_readme():
    lesson = re.sub(r"^# ?", "", PROGRAM.read_text(), flags=re.M)
    assert commands(lesson) == commands((FOLDER / "README.md").read_text())


@pytest.mark.slow  # .ci/run runs it
def test_the_renamed_folder_passes_its_tests(renamed):
    source, site = renamed
    old = re.compile("own[-_]?op", re.IGNORECASE)
    files = [p for p in source.rglob("*") if p.is_file() and p.name != "README.md"]
    assert len(files) > 10
    for path in files:
        assert not old.search(path.read_text()), path
        assert not old.search(path.name)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        env=own_op.os.environ | {"PYTHONPATH": str(site)},
        cwd=source,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert re.search(r"^\d\d passed", done.stdout, re.M), done.stdout


@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("readelf") is None, reason="needs readelf"
)
def test_the_library_finds_tensorflow_by_the_name_of_its_library(run):
    site = run.names["site"]
    (library,) = site.rglob("libops.so")
    lines = subprocess.run(
        ["readelf", "--dynamic", "--wide", library],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "[libtensorflow_framework.so.2]" in lines
    assert "PATH)" not in lines  # RPATH, RUNPATH
    assert not list(site.rglob("libtensorflow*"))


def code_lines(path):
    """How many lines a file has, without comments, docstrings and blank lines."""
    lines = dict(enumerate(path.read_text().splitlines(), 1))
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                for i in range(node.lineno, node.end_lineno + 1):
                    del lines[i]
    comment = "#" if path.suffix == ".py" else "//"
    return sum(
        bool(x.strip()) and not x.strip().startswith(comment) for x in lines.values()
    )


def test_there_are_fewer_than_300_lines():
    files = [*SOURCES, *FOLDER.rglob("src/**/*.py")]
    assert len(files) == 7
    assert 200 < sum(map(code_lines, files)) < 300


def test_declarations_agree_with_tensorflows_headers(tmp_path):
    """Functions of one name and different types do not compile, nor do other numbers
    for the constants."""
    import tensorflow as tf

    ours = (FOLDER / "csrc/tensorflow.h").read_text()
    functions = re.findall(r"^[A-Z_a-z0-9* ]+TF_\w+\([^;]*;", ours, re.M)
    assert len(functions) == len(set(re.findall(r"\bTF_\w+(?=\()", ours))) > 20
    values = re.findall(r"TF_\w+ = \d+", ours)
    assert len(values) == 4
    both = tmp_path / "both.cc"
    both.write_text(
        '#include "tensorflow/c/kernels.h"\n#include "tensorflow/c/ops.h"\n'
        + 'extern "C" {\n'
        + "\n".join(functions)
        + "\n}\n"
        + "\n".join(f"static_assert({x.replace(' = ', ' == ')});" for x in values)
    )
    command = [own_op.compiler(), "-std=c++17", "-fsyntax-only"]
    command += ["-isystem", tf.sysconfig.get_include(), str(both)]
    subprocess.run(command, check=True)
    assert not [p for p in SOURCES if "include <tensorflow" in p.read_text()]


@pytest.fixture(scope="module")
def run():
    """The notebook, from its first cell to its last, as it opens."""
    return run_lesson(PROGRAM.stem, notebook=True)


def test_cells_show_pictures_and_numbers_as_they_run(run):
    assert [len(c.pictures) for c in run.cells if c.pictures] == [1] * 8
    assert "of the rows:" not in run.printed.partition("Built and installed")[0]
    assert (
        "wrong sums: {'rows': 0, 'columns': 0, 'reversed': 0, 'gaps': 0}" in run.printed
    )
    assert "`x` must be float32. Received: float64\n" in run.printed
    last = run.cells[-1].printed.splitlines()[-1]
    judged, rest = last.split(". ")
    assert judged == "Claims that hold: 1, 3, 4, 5, 6, 7"
    assert rest == "Claims that only a full run judges: 2."
    assert [len(group) for group in run.names["times"].values()] == [4, 4]


@pytest.mark.parametrize(
    ("text", "names", "broken"),
    [
        ("wanted =", {"loop_in_python": lambda row: 0}, {1}),
        ("_, last =", {"measure": lambda *_: None, "times": SLOW}, {2}),
        ("excess =", {"errors": {"op": WRONG, "formula in float32": 0 * WRONG}}, {3}),
        ("different = 0", {"with_gradients": number_of_threads}, {4}),
        ("unnamed = 0", {"bad": {"`y`": [lambda: None]}}, {5}),
        ("difference = np.max(", {"losses": {"a": [2.0, 1], "b": [2.0, 3]}}, {7}),
    ],
    ids=["claim 1", "claim 2", "claim 3", "claim 4", "claim 5", "claim 7"],
)
def test_a_broken_claim_is_told(run, monkeypatch, text, names, broken):
    monkeypatch.setattr(run.names["lesson"], "full", True)
    assert rerun(run, text, **names)[1] == broken


def test_a_library_with_cpp_names_is_told(run, tmp_path):
    (tmp_path / "own_op").mkdir()
    (tmp_path / "own_op/libops.so").write_bytes(b"\0_ZN10tensorflow8OpKernelE\0")
    assert rerun(run, "cpp_names =", site=tmp_path)[1] == {6}


def test_without_a_compiler_an_error_says_so(monkeypatch):
    monkeypatch.setattr(own_op.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"^no C\+\+ compiler is found\. Debian"):
        own_op.build(FOLDER)


def test_without_pip_an_error_says_so(monkeypatch):
    monkeypatch.setattr(own_op.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip is not installed"):
        own_op.build(FOLDER)


def test_a_build_that_fails_is_told(monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "ninja: it is broken\n", "")
    monkeypatch.setattr(own_op.subprocess, "run", lambda *_, **__: failed)
    monkeypatch.setattr(own_op.importlib.util, "find_spec", lambda name: name == "pip")
    path = list(sys.path)
    with pytest.raises(UserError, match="failed:\nninja: it is broken\nWithout a net"):
        own_op.build(FOLDER)
    assert sys.path == path


@pytest.mark.parametrize("missing", ["scikit_build_core", "pybind11", None])
def test_what_is_at_hand_is_not_fetched(monkeypatch, missing, tmp_path):
    monkeypatch.setattr(
        own_op.importlib.util, "find_spec", lambda name: name != missing
    )
    command = own_op.build_command(FOLDER, tmp_path)
    assert ("--no-build-isolation" in command) == (missing is None)
    assert command[-3:] == ["--target", str(tmp_path), str(FOLDER)]


def test_the_folder_is_found(monkeypatch, tmp_path):
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", str(tmp_path / "kernel.py"), raising=False)
    monkeypatch.delenv("HW3TF_TUTORIALS", raising=False)
    for place in (TUTORIALS, TUTORIALS.parent, FOLDER / "csrc"):
        monkeypatch.chdir(place)
        assert own_op.tutorial_folder(FOLDER.name) == FOLDER
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="the folder 05_your_own_op is not found"):
        own_op.tutorial_folder(FOLDER.name)
    monkeypatch.setenv("HW3TF_TUTORIALS", str(TUTORIALS))
    assert own_op.tutorial_folder(FOLDER.name) == FOLDER
    monkeypatch.delenv("HW3TF_TUTORIALS")
    monkeypatch.setattr(main, "__file__", str(PROGRAM))
    assert own_op.tutorial_folder(FOLDER.name) == FOLDER


def test_excerpts_are_whole_definitions(tmp_path):
    file = tmp_path / "a.cc"
    file.write_text("int f() {\n  if (x) {\n  }\n}\n\nint g() {\n}();\nint h;\n")
    assert own_op.excerpt(file, "int f") == "int f() {\n  if (x) {\n  }\n}"
    assert own_op.excerpt(file, "int g") == "int g() {\n}();"
    file = tmp_path / "a.py"
    file.write_text("import x\n\n\n@one\ndef f():\n    a\n\n    b\n\n\ndef g(): c\n")
    assert own_op.excerpt(file, "@one") == "@one\ndef f():\n    a\n\n    b"
    assert own_op.excerpt(file, "def g") == "def g(): c"
    with pytest.raises(ValueError, match="no line with 'def h'"):
        own_op.excerpt(file, "def h")


def test_the_best_time_is_the_shortest(monkeypatch):
    clock = iter([0.0, 10, 13, 20, 22, 30, 35, 40])
    monkeypatch.setattr(own_op.time, "perf_counter", lambda: float(next(clock)))
    calls = []
    assert own_op.best_time(lambda: calls.append(0), 5) == 2
    assert len(calls) == 3
