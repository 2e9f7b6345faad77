"""The notebooks of the lessons are those of their programs."""

import json
import os
import pathlib

import processes
import pytest

import hw3tf
from hw3tf.course import notebooks

FOLDER = pathlib.Path(__file__).parents[2] / "tutorials"
LESSONS = notebooks.lessons(FOLDER)


def test_lessons_are_found():
    names = [path.stem for path in LESSONS]
    assert {"01_cnn_vs_rnn", "02_integer_recurrence"} <= set(names)
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(names)


@pytest.mark.parametrize("program", LESSONS, ids=lambda path: path.stem)
def test_notebooks_are_up_to_date(program):
    """`nox -s notebooks` makes them anew."""
    notebook = program.with_suffix(".ipynb").read_text()
    assert notebook == notebooks.notebook_of(program)
    cells = json.loads(notebook)["cells"]
    assert not any(cell.get("outputs") for cell in cells)
    assert len(notebook) < 100_000


def test_command_writes_a_notebook_for_each_lesson(tmp_path, capsys):
    (tmp_path / "a.py").write_text(
        '# %% [markdown]\n# # A\n\n# %%\nx = Lesson("a", 1)\n'
    )
    (tmp_path / "b.py").write_text("print('no lesson')\n")
    notebooks.main([str(tmp_path)])
    assert capsys.readouterr().out == f"{tmp_path / 'a.ipynb'}\n"
    made = json.loads((tmp_path / "a.ipynb").read_text())
    kinds = [(cell["cell_type"], "".join(cell["source"])) for cell in made["cells"]]
    assert kinds == [("markdown", "# A"), ("code", 'x = Lesson("a", 1)')]
    assert made["metadata"]["kernelspec"]["name"] == "python3"


START = """
import jupytext
cells = jupytext.read({program!r}, fmt="py:percent").cells
exec(next(cell.source for cell in cells if cell.cell_type == "code"))
import keras
print(keras.config.backend())
"""


def test_first_cell_chooses_tensorflow_which_starts_without_a_word(tmp_path):
    code = START.format(program=str(LESSONS[0]))
    environment = {"KERAS_BACKEND": "nonsense", "TF_CPP_MIN_LOG_LEVEL": None}
    done = processes.run(["-c", code], modules=(), cwd=tmp_path, **environment)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "Loading TensorFlow takes a few seconds.",
        "tensorflow",
    ]


@pytest.mark.parametrize("number", [2, 3])
def test_lesson_that_runs_on_any_backend_keeps_the_readers(number, tmp_path):
    pytest.importorskip("jax")
    code = START.format(program=str(LESSONS[number - 1]))
    environment = {"KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": None}
    done = processes.run(["-c", code], modules=(), cwd=tmp_path, **environment)
    assert done.stdout.splitlines() == [
        "Loading Keras on jax takes a few seconds.",
        "jax",
    ]


MESSAGES = r"""
import os, runpy, sys
start = runpy.run_path({path!r})["without_messages"]
with start():
    os.write(2, b"I0000 00:00:1796008727.513689   19877 port.cc:153] oneDNN\nours\n")
    os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called\n")
    os.write(2, b"To enable the following instructions: AVX2\nthe end")
    if len(sys.argv) > 1:
        raise RuntimeError("broken")
print("after", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("level", "kept"), [("3", ["ours", "the endafter"]), ("2", None)]
)
def test_only_messages_of_tensorflow_are_dropped(level, kept):
    """And only by who wants none of them."""
    path = pathlib.Path(hw3tf.__file__).with_name("_startup.py")
    code = MESSAGES.format(path=str(path))
    environment = {"modules": (), "TF_CPP_MIN_LOG_LEVEL": level}
    lines = processes.run(["-c", code], **environment).stderr.splitlines()
    assert lines == kept if kept else len(lines) == 5
    lines = processes.run(["-c", code, "fail"], **environment).stderr.splitlines()
    assert "ours" in lines
    assert lines[-1] == "RuntimeError: broken"


def test_first_cell_says_how_to_install(tmp_path):
    """In a program. A notebook installs what is missing."""
    (tmp_path / "hw3tf.py").write_text("raise ImportError('not built')")
    code = "import sys; sys.path.insert(0, '.')" + START.format(program=str(LESSONS[0]))
    done = processes.run(["-c", code], modules=("jupytext",), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "not built: pip install '.[tutorials]'\n"


def test_first_cell_of_a_notebook_installs_from_the_checkout(tmp_path):
    code = "import sys; sys.path.insert(0, '.')\n"
    code += "import subprocess, types; sys.modules['ipykernel'] = types\n"
    code += "def install(command, check):\n"
    code += "    print(command[1:], check)\n"
    code += "    open('hw3tf.py', 'w').write('print(1)')\n"
    code += "subprocess.run = install\n"
    code += START.format(program=str(LESSONS[0])).partition("import keras")[0]
    (tmp_path / "hw3tf.py").write_text("raise ImportError('not built')")
    os.utime(tmp_path / "hw3tf.py", (1, 1))
    done = processes.run(["-c", code], modules=("jupytext",), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == [
        "Installing hw3tf takes minutes and needs a C++17 compiler.",
        "['-m', 'pip', 'install', '--quiet', '..[tutorials]'] True",
        "1",
    ]
