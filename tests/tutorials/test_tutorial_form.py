"""The form that the tutorials share: a program that is a notebook, too, with the same
parts in the same order, short cells, and pictures with text below."""

import ast
import pathlib
import re

import jupytext
import nbformat
import pytest

from hw3tf.course import notebooks

FOLDER = pathlib.Path(__file__).parents[2] / "tutorials"
LESSONS = notebooks.lessons(FOLDER)
MOST_LINES = 15  # of code, in a cell
WORDS_BELOW_A_PICTURE = 20


def numbers(text):
    """Of the items of a numbered list."""
    return [int(number) for number in re.findall(r"^(\d+)\. \S", text, re.M)]


def check_opening(text, name, claims):
    """Heading, one line of description, run time and download, claims, command."""
    title, description, facts = (line.strip() for line in text.splitlines()[:5:2])
    assert re.fullmatch(r"# \S.*", title), title
    assert re.fullmatch(r"\*\S.*\S\*", description), description
    pattern = r"Run time: .+ on 2 CPU cores, `--quick` .+\. Download: .+\."
    assert re.fullmatch(pattern, facts), facts
    before, claims = text.split(claims)
    assert len(before.split()) > 30, "what is asked, in sentences"
    assert numbers(claims) == list(range(1, 1 + len(numbers(claims)))) != []
    assert re.search(rf"^ *python tutorials/{name}", claims, re.M)
    return numbers(claims)


def check_end(text):
    """Conclusion, three exercises, references with their links."""
    names = ("Conclusion", "Exercises", "References")
    parts = re.split(rf"^## (?:{'|'.join(names)})$", text, flags=re.M)
    assert re.findall(r"^## (.+)$", text, re.M)[-3:] == list(names)
    _, conclusion, exercises, references = parts
    assert len(conclusion.split()) > 30
    assert numbers(exercises) == [1, 2, 3]
    items = re.split(r"^- ", references.strip(), flags=re.M)[1:]
    assert items
    assert all(re.search(r"\]\(https?://\S+\)", item) for item in items), items


def check_text(notebook):
    """The text of all cells: one title, whole formulas, the end."""
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    text = "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    assert len(re.findall(r"^# ", text, re.M)) == 1
    assert text.count("$$") % 2 == 0
    check_end(text)
    return text


def calls(code, name):
    """The calls of `lesson.NAME` or `NAME` in code."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(name):
            yield node


def lines_of(code):
    return [line for line in code.splitlines() if line.strip()]


def check_cells(cells):
    """Short cells; below each with a picture, sentences on what is seen."""
    for place, cell in enumerate(cells):
        if cell.cell_type != "code":
            continue
        assert 1 <= len(lines_of(cell.source)) <= MOST_LINES, cell.source
        pictures = len(list(calls(cell.source, "lesson.show")))
        assert pictures <= 1, cell.source
        if pictures:
            below = cells[place + 1]
            first = below.source.split("\n\n")[0]
            assert below.cell_type == "markdown", cell.source
            assert not first.startswith("#"), first
            assert len(first.split()) >= WORDS_BELOW_A_PICTURE, first


def check_claims_of(code, stem, claims):
    """Every claim of the opening is judged, and no other."""
    (lesson,) = calls(code, "Lesson")
    assert ast.literal_eval(lesson.args[0]) == stem
    (number,) = (
        ast.literal_eval(k.value) for k in lesson.keywords if k.arg == "claims"
    )
    judged = {ast.literal_eval(c.args[0]) for c in calls(code, "lesson.claim")}
    assert judged == set(claims) == set(range(1, number + 1))
    assert len(list(calls(code, "lesson.settings"))) == 1


def check_claims_on_time(code):
    """Only full runs judge them: a short run has small inputs and little time to
    measure them. Returns how many there are."""
    found = 0
    for cell in code:
        words = dict(re.findall(r'^(\w+) = (f?".*")$', cell, re.M))
        for claim in calls(cell, "lesson.claim"):
            what = ast.unparse(claim.args[1])
            if re.search(r"\btime\b|\bstep of\b", words.get(what, what)):
                assert "full=True" in map(ast.unparse, claim.keywords), what
                found += 1
    return found


def check_functions(code):
    """Each is used soon after the cell that introduces it."""
    for place, cell in enumerate(code):
        for node in ast.parse(cell).body:
            if isinstance(node, ast.FunctionDef):
                used = re.compile(rf"(?<!def ){node.name}\b")
                soon = code[place : place + 4]
                assert any(used.search(text) for text in soon), node.name


# Claims on time.
TIMED = {"01_cnn_vs_rnn": 1, "04_imdb_sentiment": 1, "05_your_own_op": 1}
# The rest is for the package.
IMPORTS = {"hw3tf", "keras", "numpy", "itertools", "math", "os", "re", "statistics"}
IMPORTS |= {"subprocess", "sys"}
IMPORTS |= {"dataclasses"}  # of tutorial 4
IMPORTS |= {"concurrent", "own_op", "tensorflow"}  # of tutorial 5


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_form_of_lessons(path):
    notebook = jupytext.read(path, fmt="py:percent")
    opening = notebook.cells[0].source
    claims = check_opening(opening, path.name, "These are the claims.")
    text = check_text(notebook)
    assert text.count("**Predict, then run:**") + text.count("**Predict, then\n") >= 5
    check_cells(notebook.cells)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    check_claims_of("\n".join(code), path.stem, claims)
    assert check_claims_on_time(code) == TIMED.get(path.stem, 0)
    check_functions(code)
    assert "lesson.finish(" in code[-1]
    nodes = list(ast.walk(ast.parse("\n".join(code))))
    found = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    found |= {n.module.split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom)}
    assert found <= IMPORTS
    assert not re.search(r"plt\.|savefig|json|argparse|open\(", "\n".join(code))


PACKAGE = FOLDER.parent / "hw3tf"


@pytest.mark.parametrize(
    "path", sorted([*FOLDER.glob("*.py"), *PACKAGE.rglob("*.py")]), ids=str
)
def test_nothing_is_judged_by_asserts(path):
    """`python -O` leaves them out."""
    nodes = ast.walk(ast.parse(path.read_text()))
    assert not [node.lineno for node in nodes if isinstance(node, ast.Assert)]


# `argparse` knows what these expect, or they say it themselves: `words` takes all.
TYPES = {"int", "float", "pathlib.Path", "file_path", "number", "numbers"}
TYPES |= {"unicode_text", "words"}


def test_types_of_options_say_what_they_expect():
    """For a ValueError `argparse` prints the name of the function: "invalid _positive
    value"."""
    found = set()
    for folder in ("hw3tf", "tutorials", "benchmarks", "tests", "tests_browser", ".ci"):
        for path in (FOLDER.parent / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and "add" in ast.unparse(node.func):
                    types = [k.value for k in node.keywords if k.arg == "type"]
                    found |= {ast.unparse(x).partition("(")[0] for x in types}
    assert found == TYPES
