"""Makes the notebooks of the lessons from their programs.

    python -m hw3tf.course.notebooks tutorials

writes `NAME.ipynb`, without outputs, beside each `NAME.py` of the folder that is a
lesson. Needs jupytext.
"""

import argparse
import pathlib

KERNEL = {
    "kernelspec": {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}


def lessons(folder: pathlib.Path) -> list[pathlib.Path]:
    """The programs of a folder that run as `hw3tf.course.lesson.Lesson` says."""
    return [p for p in sorted(folder.glob("*.py")) if "= Lesson(" in p.read_text()]


def notebook_of(program: pathlib.Path) -> str:
    """The text of the notebook of a program. Equal programs have equal notebooks."""
    import jupytext

    notebook = jupytext.read(program, fmt="py:percent")
    notebook.metadata = dict(KERNEL)
    for place, cell in enumerate(notebook.cells, 1):
        cell.id = f"cell-{place}"
    return jupytext.writes(notebook, fmt="ipynb").rstrip("\n") + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m hw3tf.course.notebooks",
        description="Make the notebooks of the lessons from their programs.",
    )
    parser.add_argument("folder", type=pathlib.Path, help="where the programs are")
    for program in lessons(parser.parse_args(argv).folder):
        program.with_suffix(".ipynb").write_text(notebook_of(program))
        print(program.with_suffix(".ipynb"))


if __name__ == "__main__":
    main()
