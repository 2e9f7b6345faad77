"""Runs the cells of a lesson one by one, as a notebook or as a program does.

Everything happens in this process: there is no kernel, and `ipykernel` and IPython's
`display` are stand-ins.
"""

import contextlib
import dataclasses
import io
import pathlib
import sys
import types
from unittest import mock

import jupytext

FOLDER = pathlib.Path(__file__).parents[2] / "tutorials"
START = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}


@dataclasses.dataclass
class Cell:
    source: str
    printed: str
    pictures: list


@dataclasses.dataclass
class Run:
    names: dict  # of the lesson, when it has ended
    cells: list
    status: int  # that of the program; a notebook has none, and 0 here

    @property
    def printed(self):
        return "".join(cell.printed for cell in self.cells)


def code_cells(program):
    notebook = jupytext.read(program, fmt="py:percent")
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def stand_ins(pictures):
    """Modules that a notebook has."""
    display = types.ModuleType("IPython.display")
    display.Image = lambda data, format, metadata: (metadata["name"], data)
    display.display = pictures.append
    package = types.ModuleType("IPython")
    package.version_info = (9, 0)  # which matplotlib asks for
    package.display = display
    modules = {"IPython": package, "IPython.display": display}
    return modules | {"ipykernel": types.ModuleType("ipykernel")}


@contextlib.contextmanager
def installed(modules):
    """`modules` can be imported meanwhile. Others that are imported stay."""
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def run_lesson(name, *arguments, notebook=False, edits=None):
    """Runs all cells of tutorials/NAME.py.

    `arguments`: of the command line; in a notebook, of HW3TF_TUTORIAL_ARGUMENTS, which
    is not set if there are none. `edits`: texts of the lesson -> what a reader writes
    in their place.
    """
    pictures, run = [], Run({"__name__": "__main__"}, [], 0)
    environment = dict(START)
    if notebook and arguments:
        environment["HW3TF_TUTORIAL_ARGUMENTS"] = " ".join(arguments)
    modules = stand_ins(pictures) if notebook else {}
    with (
        mock.patch.dict("os.environ", environment),
        installed(modules),
        mock.patch.object(sys, "argv", [f"{name}.py", *arguments]),
        mock.patch.object(sys, "excepthook", sys.excepthook),
    ):
        for source in code_cells(FOLDER / f"{name}.py"):
            for old, new in (edits or {}).items():
                source = source.replace(old, new)
            printed, before, ended = io.StringIO(), len(pictures), False
            try:
                with contextlib.redirect_stdout(printed):
                    exec(compile(source, name, "exec"), run.names)
            except SystemExit as end:
                run.status, ended = end.code or 0, True
            shown = pictures[before:]
            run.cells.append(Cell(source, printed.getvalue(), shown))
            if ended:
                break
    return run


def rerun(run, text, **names):
    """Runs the one cell again that has `text` in it, with other values of `names`.

    The lesson's own names are as before afterwards, but for its claims. Returns the
    numbers of the claims of this cell that hold, and of those that do not.
    """
    (source,) = [cell.source for cell in run.cells if text in cell.source]
    lesson = run.names["lesson"]
    changed = {**run.names, **names}
    lesson._claims.clear()
    with contextlib.redirect_stdout(io.StringIO()), installed(stand_ins([])):
        exec(compile(source, "cell", "exec"), changed)
    claims = lesson._claims.values()
    return tuple({c.number for c in claims if c.held is held} for held in (True, False))


def require_judged(run, contradictions, claims):
    """Every claim of a lesson fails where its result is wrong, and no other one.

    `contradictions`: (text of a cell, other values of its names, numbers of the claims
    that do not hold then). `claims`: how many the lesson has.
    """
    seen = set()
    for text, names, wanted in contradictions:
        holds, fails = rerun(run, text, **names)
        assert fails == wanted, (text, list(names), holds)
        seen |= fails
    assert seen == set(range(1, claims + 1))
