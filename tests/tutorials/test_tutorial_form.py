"""The form that the tutorials share: a program that is a notebook, too, with the same
parts in the same order."""

import ast
import pathlib
import re

import jupytext
import nbformat
import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "tutorials"


def numbers(text):
    """Of the items of a numbered list."""
    return [int(number) for number in re.findall(r"^(\d+)\. \S", text, re.M)]


def check_opening(text, name):
    """Heading, one line of description, run time and download, claims, command."""
    title, description, facts = (line.strip() for line in text.splitlines()[:5:2])
    assert re.fullmatch(r"# \S.*", title), title
    assert re.fullmatch(r"\*\S.*\S\*", description), description
    pattern = r"Run time: .+ on 2 CPU cores, `--quick` .+\. Download: .+\."
    assert re.fullmatch(pattern, facts), facts
    before, claims = text.split("Claims, checked by `check_claims()`")
    assert len(before.split()) > 30, "what is asked, in sentences"
    assert numbers(claims) == list(range(1, 1 + len(numbers(claims)))) != []
    assert re.search(rf"^ *python tutorials/{name}", claims, re.M)


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


@pytest.mark.parametrize(
    "path", sorted(FOLDER.glob("[0-9]*.py")), ids=lambda path: path.stem
)
def test_form(path):
    notebook = jupytext.read(path, fmt="py:percent")
    nbformat.validate(notebook)
    first, last = notebook.cells[0], notebook.cells[-1]
    assert first.cell_type == "markdown"
    check_opening(first.source, path.name)
    text = "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    assert len(re.findall(r"^# ", text, re.M)) == 1
    assert text.count("$$") % 2 == 0
    check_end(text)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert all(code), "an empty cell"
    assert sum("def check_claims(" in cell for cell in code) == 1
    assert last.cell_type == "code"
    assert last.source.endswith('if __name__ == "__main__":\n    run(main)')


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
