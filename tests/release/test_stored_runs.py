"""The stored full runs of the tutorials, which the site and the PDF show."""

import importlib.util
import pathlib
import platform
import re

import nbformat
import pytest

from hw3tf.course import notebooks

ROOT = pathlib.Path(__file__).parents[2]
LESSONS = notebooks.lessons(ROOT / "tutorials")
MOST_BYTES = 6_000_000


@pytest.fixture(scope="module")
def stored_runs():
    path = ROOT / "docs/stored_runs.py"
    spec = importlib.util.spec_from_file_location("stored_runs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=LESSONS, ids=lambda path: path.stem)
def program(request):
    return request.param


def test_run_is_full_up_to_date_and_holds_every_claim(stored_runs, program):
    """If this fails after a change of tutorial N: `nox -s runs -- N`."""
    assert stored_runs.faults(program) == []


def test_run_says_when_where_and_with_what_it_was_made(stored_runs, program):
    run = stored_runs.run_of(program)
    about = nbformat.read(run, as_version=4).metadata["run"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", about["date"])
    assert "processors" in about["machine"]
    assert set(about["versions"]) == {"hw3tf", "keras", "tensorflow"}
    text = run.read_text()
    assert platform.node() not in about["machine"]
    assert not re.search(r"(?<![\w.:/])/(?:home|root|tmp|work|Users)\b", text)
    assert '"stderr"' not in text


def test_runs_are_small(stored_runs):
    assert sum(p.stat().st_size for p in stored_runs.RUNS.iterdir()) < MOST_BYTES


def test_pictures_of_the_pages_are_those_of_the_runs(stored_runs, program):
    run = nbformat.read(stored_runs.run_of(program), as_version=4)
    pictures = dict(stored_runs.pictures_of(run))
    shown = list(stored_runs.IMAGES.glob(f"{program.stem[:2]}_*.png"))
    assert shown
    for path in shown:
        assert path.read_bytes() == pictures[path.stem[3:]], path.name


# A lesson of one cell, its printed lines, and what is wrong with them.
CODE = 'lesson = Lesson("09_x", claims=2)'
FULL, HELD = "Full run of 09_x: seed 0", "claim 1: 1 wanted, 1 found: holds [x]"
SECOND, END = "claim 2: more than 3 wanted, 4 found: holds [y]", "All claims hold."
SHORT = "claim 2: 3 wanted in a full run; quick runs do not judge it (1 here) [y]"
FAILED = "claim 2: 3 wanted, 1 found: does not hold [y]"


def make_run(*printed, code=CODE):
    outputs = [nbformat.v4.new_output("stream", name="stdout", text="\n".join(printed))]
    cells = [nbformat.v4.new_code_cell(code, outputs=outputs)]
    return nbformat.v4.new_notebook(cells=cells)


@pytest.mark.parametrize(
    ("printed", "found"),
    [
        ((FULL, HELD, SECOND, END), []),
        (("Short run of 09_x", HELD, SECOND, END), ["it is not a full run"]),
        ((FULL, HELD, SHORT, END), [SHORT]),
        ((FULL, HELD, FAILED, HELD, END), [FAILED]),
        ((FULL, HELD, HELD, END), ["claim 2 was not reached"]),
        ((FULL, HELD, SECOND), ["it does not end with all claims held"]),
    ],
)
def test_runs_that_may_not_be_shown(stored_runs, printed, found):
    assert stored_runs.faults_of_results("09_x", make_run(*printed)) == found


@pytest.fixture
def copied(stored_runs, tmp_path, monkeypatch):
    """A lesson in a folder of its own, with a stored run that may be shown."""
    monkeypatch.setattr(stored_runs, "ROOT", tmp_path)
    monkeypatch.setattr(stored_runs, "RUNS", tmp_path)
    (tmp_path / "tutorials").mkdir()
    program = tmp_path / "tutorials/09_x.py"
    program.write_text(f"# %% [markdown]\n# # X\n\n# %%\n{CODE}\n")
    run = nbformat.reads(notebooks.notebook_of(program), as_version=4)
    run.cells[1].outputs = make_run(FULL, HELD, SECOND, END).cells[0].outputs
    about = {"date": "2026-01-01", "machine": "a processor", "seconds": 3}
    run.metadata["run"] = {**about, "versions": {"keras": "3"}}
    nbformat.write(run, stored_runs.run_of(program))
    assert stored_runs.faults(program) == []
    return program


def test_stale_runs_name_the_command(stored_runs, copied):
    text = copied.read_text()
    copied.write_text(text.replace("# # X", "# # Y"))
    (fault,) = stored_runs.faults(copied)
    assert fault.endswith("nox -s runs -- --text")
    stored_runs.main(["--text"])
    assert stored_runs.faults(copied) == []
    copied.write_text(text + "changed = True\n")
    (fault,) = stored_runs.faults(copied)
    assert fault.endswith("nox -s runs -- 9")
    stored_runs.main(["--text"])
    assert stored_runs.faults(copied) == [fault]
    with pytest.raises(ValueError, match=r"stale: nox -s runs -- 9$"):
        stored_runs.read_page(copied.read_text())
    stored_runs.run_of(copied).unlink()
    (fault,) = stored_runs.faults(copied)
    assert fault.endswith("nox -s runs -- 9")


def test_page_has_the_outputs_and_says_where_they_come_from(stored_runs, copied):
    title, about, code = stored_runs.read_page(copied.read_text()).cells
    assert title.source == "# X"
    assert "a full run: 2026-01-01, 3 s, a processor, keras 3." in about.source
    assert code.outputs[0].text.endswith(END)
    stored_runs.run_of(copied).unlink()
    _, about, code = stored_runs.read_page(copied.read_text()).cells
    assert "have not been run" in about.source
    assert code.outputs == []


def test_a_run_with_a_failed_claim_is_not_stored(stored_runs, copied, monkeypatch):
    before = stored_runs.run_of(copied).read_text()
    monkeypatch.setattr(stored_runs, "execute", lambda _: make_run(FULL, HELD, FAILED))
    with pytest.raises(SystemExit, match=r"09_x\.py is not stored:\nclaim 2"):
        stored_runs.main(["9"])
    assert stored_runs.run_of(copied).read_text() == before
    with pytest.raises(SystemExit):
        stored_runs.main(["8"])


def test_printed_text_is_kept_as_it_ends(stored_runs, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "/somewhere/tfds")
    printed = "a\n\rnet: 20%\rnet: done  \nin /somewhere/tfds/imdb\n"
    found = stored_runs.as_it_ends(printed)
    assert found == "a\nnet: done  \nin $TFDS_DATA_DIR/imdb\n"
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert stored_runs.as_it_ends("in /somewhere\r\n") == "in /somewhere\r\n"
