"""The stored full runs of the tutorials, which the site and the PDF show.

    python docs/stored_runs.py 2 3

runs the notebooks of tutorials 2 and 3 in full, with the code that is installed, and
stores them in docs/runs, outputs and pictures included. Without numbers it runs all.
`nox -s runs -- 2 3` does the same. With `--text` it runs nothing: it takes over changed
text into the runs whose code cells are still those of the tutorials.

A picture docs/images/0N_NAME.png is renewed, too: the last one that tutorial N shows by
`lesson.show("NAME", ...)`.
"""

import argparse
import base64
import copy
import io
import os
import pathlib
import re
import sys
import tempfile
import time

import jupytext
import nbformat
from PIL import Image

from hw3tf.course import notebooks

ROOT = pathlib.Path(__file__).resolve().parents[1]
RUNS, IMAGES = ROOT / "docs/runs", ROOT / "docs/images"
PACKAGES = ("hw3tf", "keras", "tensorflow")


def run_of(program):
    """The file of the stored run of tutorials/NAME.py."""
    return RUNS / f"{program.stem}.ipynb"


def command_of(program):
    """What makes the run anew."""
    return f"nox -s runs -- {int(program.stem[:2])}"


def cells_of(notebook, kind=("code", "markdown")):
    return [(c.cell_type, c.source) for c in notebook.cells if c.cell_type in kind]


def printed_by(notebook):
    """Everything that the cells have printed."""
    outputs = (x for cell in notebook.cells for x in cell.get("outputs", ()))
    return "".join(x.text for x in outputs if x.output_type == "stream")


def pictures_of(notebook):
    """Yields (name in `lesson.show`, PNG) of all pictures, in their order."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if name := output.get("metadata", {}).get("image/png", {}).get("name"):
                yield name, base64.b64decode(output.data["image/png"])


def faults_of_results(name, run):
    """Reasons not to show a run: it is short, or a claim was not judged, or failed."""
    printed = printed_by(run)
    claims = re.findall(r"^claim (\d+): (.*)", printed, re.M)
    code = "\n".join(source for _, source in cells_of(run, "code"))
    number = int(re.search(r"Lesson\([^)]*claims=(\d+)", code)[1])
    faults = [f"claim {n}: {text}" for n, text in claims if ": holds [" not in text]
    missing = {*range(1, number + 1)} - {int(n) for n, _ in claims}
    faults += [f"claim {n} was not reached" for n in sorted(missing)]
    if not re.search(rf"^Full run of {name}:", printed, re.M):
        faults.append("it is not a full run")
    if not re.search(r"^All claims hold\.$", printed, re.M):
        faults.append("it does not end with all claims held")
    return faults


def faults(program):
    """The same of a stored run, and what has changed since. Each is a sentence."""
    if not run_of(program).exists():
        return [f"there is no stored run: {command_of(program)}"]
    run = nbformat.read(run_of(program), as_version=4)
    now = nbformat.reads(notebooks.notebook_of(program), as_version=4)
    found = faults_of_results(program.stem, run)
    if cells_of(run, "code") != cells_of(now, "code"):
        found.append(f"its code is not that of the tutorial: {command_of(program)}")
    elif cells_of(run) != cells_of(now):
        found.append("its text is not that of the tutorial: nox -s runs -- --text")
    return found


def smaller(png):
    """The same picture in 256 colors."""
    picture, out = Image.open(io.BytesIO(png)), io.BytesIO()
    in_colors = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    in_colors.save(out, "PNG", optimize=True, dpi=picture.info.get("dpi", (120, 120)))
    return min(png, out.getvalue(), key=len)


def as_it_ends(printed):
    """What is left of printed text when lines that are written over again are gone, and
    the folder of the data sets has its name in the place of its path."""
    printed = re.sub(r"[^\n]*\r(?!\n)", "", printed)
    folder = os.environ.get("TFDS_DATA_DIR")
    return printed.replace(folder, "$TFDS_DATA_DIR") if folder else printed


def execute(program):
    """The notebook of a program after a full run."""
    from nbclient import NotebookClient

    notebook = nbformat.reads(notebooks.notebook_of(program), as_version=4)
    # A notebook makes a short run unless it gets arguments; none make a full run.
    os.environ |= {"HW3TF_TUTORIAL_ARGUMENTS": "", "MPLBACKEND": "agg"}
    os.environ["HW3TF_TUTORIALS"] = str(program.parent)
    with tempfile.TemporaryDirectory() as folder:  # what it writes goes there
        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            coalesce_streams=True,
            record_timing=False,
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        outputs[:] = [x for x in outputs if x.get("name") != "stderr"]
        for output in outputs:
            if output.output_type == "stream":
                output.text = as_it_ends(output.text)
            if png := output.get("data", {}).get("image/png"):
                png = smaller(base64.b64decode(png))
                output.data["image/png"] = base64.b64encode(png).decode()
    notebook.metadata = dict(notebooks.KERNEL)
    return notebook


def store(program):
    """Runs a tutorial and stores the run, if it may be shown.

    Raises:
        SystemExit: If it may not. The last run stays.
    """
    print(f"{program.name}: a full run", flush=True)
    start = time.monotonic()
    run = execute(program)
    seconds = time.monotonic() - start
    if found := faults_of_results(program.stem, run):
        raise SystemExit("\n".join([f"{program.name} is not stored:", *found]))
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from harness import heading

    run.metadata["run"] = {**heading(PACKAGES), "seconds": round(seconds)}
    RUNS.mkdir(exist_ok=True)
    nbformat.write(run, run_of(program))
    for name, png in dict(pictures_of(run)).items():
        path = IMAGES / f"{program.stem[:2]}_{name}.png"
        if path.exists():
            path.write_bytes(png)
    size = run_of(program).stat().st_size / 1000
    print(f"{run_of(program).name}: {size:,.0f} kB, after {seconds:.0f} s", flush=True)


def take_over_text(program):
    """Renews the text of a stored run whose code is that of the tutorial."""
    run = nbformat.read(run_of(program), as_version=4)
    now = nbformat.reads(notebooks.notebook_of(program), as_version=4)
    if cells_of(run, "code") == cells_of(now, "code"):
        copy_outputs(run, now)
        now.metadata = run.metadata
        nbformat.write(now, run_of(program))


def copy_outputs(run, notebook):
    """Copies the outputs of a run into a notebook with the same code cells."""
    pairs = [[c for c in x.cells if c.cell_type == "code"] for x in (run, notebook)]
    for there, here in zip(*pairs, strict=True):
        here.outputs = copy.deepcopy(there.outputs)
        here.execution_count = there.execution_count


def read_page(text):
    """Reads a tutorial for the site: its text, with the outputs of its stored run.

    Raises:
        ValueError: If the code of the run is not that of the tutorial.
    """
    notebook = jupytext.reads(text, fmt="py:percent")
    language = {"name": "python", "pygments_lexer": "ipython3"}
    notebook.metadata["language_info"] = language
    name = re.search(r'= Lesson\("(\w+)"', text)
    note = "These cells have not been run: no full run is stored."
    if name and (path := run_of(ROOT / f"tutorials/{name[1]}.py")).exists():
        run = nbformat.read(path, as_version=4)
        if cells_of(run, "code") != cells_of(notebook, "code"):
            raise ValueError(f"{path.name} is stale: {command_of(path)}")
        copy_outputs(run, notebook)
        about = run.metadata["run"]
        versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
        note = (
            f"The results below are those of a full run: {about['date']}, "
            f"{about['seconds']} s, {about['machine']}, {versions}."
        )
    cell = nbformat.v4.new_markdown_cell(f"```{{note}}\n{note}\n```", id="about")
    notebook.cells.insert(1, cell)
    return notebook


def main(argv=None):
    parser = argparse.ArgumentParser(description="Store full runs of the tutorials.")
    parser.add_argument("numbers", type=int, nargs="*", help="default: all")
    text = "run nothing, take over changed text"
    parser.add_argument("--text", action="store_true", help=text)
    args = parser.parse_args(argv)
    lessons = notebooks.lessons(ROOT / "tutorials")
    by_number = {int(path.stem[:2]): path for path in lessons}
    for number in args.numbers or by_number:
        if number not in by_number:
            parser.error(f"there is no lesson {number}, only {list(by_number)}")
    for number in args.numbers or by_number:
        if not args.text:
            store(by_number[number])
        elif run_of(by_number[number]).exists():
            take_over_text(by_number[number])


if __name__ == "__main__":
    main()
