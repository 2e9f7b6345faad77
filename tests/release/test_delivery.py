"""Tests of a release: libraries, bill of materials, workflow. `nox -s wheels` builds
and installs it."""

import importlib.metadata
import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from hw3tf import _core

ROOT = pathlib.Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
LIBRARIES = sorted(
    p for p in pathlib.Path(_core.__file__).parent.glob("*.so") if p.is_file()
)
# TensorFlow's is the one that auditwheel is told to leave out.
TENSORFLOW = "libtensorflow_framework.so.2"
SYSTEM = r"(libstdc\+\+|libgcc_s|libc|libm|libpthread|libdl|ld-linux-[\w-]+)\.so\.\d"


@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("readelf") is None, reason="needs readelf"
)
@pytest.mark.parametrize("path", LIBRARIES, ids=lambda p: p.name.split(".")[0])
def test_libraries_need_the_system_each_other_and_tensorflow(path):
    command = ["readelf", "--dynamic", "--wide", path]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", lines)
    assert needed
    allowed = {f"libhw3tf_kernels-{_core.__version__}.so"} - {path.name}
    if path.name.startswith("libhw3tf_ops"):
        assert TENSORFLOW in needed
        allowed.add(TENSORFLOW)
    for name in needed:
        assert name in allowed or re.fullmatch(SYSTEM, name), f"{path.name}: {name}"
    assert set(re.findall(r"\(R(?:UN)?PATH\).*\[(.*)\]", lines)) <= {"$ORIGIN"}


# What each library is asked for from outside, beside the standard library's
# templates, which the compiler exports by itself. Of the kernels: the contract, and
# in the last two lines what the C++ tests call.
EXPORTED = {
    "libhw3tf_kernels": """
        AttentionForward AttentionBackward AttentionDropoutMask GetAttentionTiles
        IntegerRecurrence RnnForward RnnBackward RnnKeptElements
        ResolveNumThreads SetNumThreads SetOtherPool OtherPoolScope KernelsBuild
        ChosenInstructionSet CompiledInstructionSets EnvironmentError
        AttentionForwardPlain AttentionBackwardPlain AvailableProcessors
        ControlGroupProcessors ParallelFor ParallelPhases test_hooks""",
    "libhw3tf_ops": "Hw3tfLoadError Hw3tfRegisterXlaTargets Hw3tfXlaStatusError",
    "_core": "PyInit__core",
}


@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("nm") is None, reason="needs nm"
)
@pytest.mark.parametrize("path", LIBRARIES, ids=lambda p: p.name.split(".")[0])
def test_libraries_export_what_is_asked_of_them(path):
    command = ["nm", "--dynamic", "--defined-only", "--format=just-symbols", path]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = set()
    for line in lines.splitlines():
        ours = re.match(r"_ZN5hw3tf(\d+)(\w+)", line)
        if ours:
            names.add(ours[2][: int(ours[1])])
        elif not line.startswith("_Z") or re.match(r"_ZT[A-Z]N5hw3tf", line):
            names.add(line)
    library = re.split(r"[-.]", path.name)[0]
    assert names == set(EXPORTED[library].split())


def test_there_are_three_libraries():
    assert len(LIBRARIES) == 3


@pytest.mark.parametrize("file", ["pyproject.toml", "noxfile.py"])
def test_auditwheel_leaves_out_the_library_of_tensorflow_alone(file):
    text = (ROOT / file).read_text()
    assert re.findall(r"--exclude\W+([\w.]+)", text) == [TENSORFLOW]


def test_bill_of_materials_is_installed():
    """In the folder that PEP 770 names, with the versions that were built."""
    files = importlib.metadata.files("hw3tf")
    (path,) = (f for f in files if f.match("*.dist-info/sboms/hw3tf.cdx.json"))
    bill = json.loads(path.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["version"] == _core.__version__
    assert [c["name"] for c in bill["components"]] == ["pybind11"]
    assert "@" not in re.sub(r"pkg:pypi/\w+@[\d.]+", "", path.read_text())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_workflow_is_pinned_and_may_only_read(path):
    text = path.read_text()
    uses = re.findall(r"uses: *(.*)", text)
    assert uses
    for action in uses:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", action), action
    assert re.findall(r"^permissions:\n((?:  .*\n)*)", text, re.M) == [
        "  contents: read\n"
    ]
    assert text.count("permissions:") == 1
    assert "secrets." not in text
    assert "pull_request_target" not in text
    checkouts = len(re.findall(r"uses: actions/checkout@", text))
    assert text.count("persist-credentials: false") == checkouts


def test_workflows_have_the_jobs():
    jobs = {
        path.stem: re.findall(
            r"^  (\w+):$", path.read_text().split("\njobs:\n")[1], re.M
        )
        for path in WORKFLOWS
    }
    assert jobs == {"ci": ["test", "wheels", "sdist"], "nightly": ["long"]}


def table_of(program):
    """The text that `program` wrote into docs/reliability.md."""
    page = (ROOT / "docs/reliability.md").read_text()
    return page.split(f"<!-- {program} writes from here -->")[1].split("<!--")[0]


def versions_of_the_matrix(name):
    """The tuple NAME of .ci/matrix.py."""
    program = (ROOT / ".ci/matrix.py").read_text()
    text = program.split(f"\n{name} = (")[1].split(")")[0]
    return re.findall(r'"([\d.]+)"', text)


def test_the_table_of_the_matrix_has_every_version_and_no_failure():
    """`nox -s matrix` makes it, on a Python that has these versions."""
    versions = versions_of_the_matrix("VERSIONS")
    table = table_of("matrix.py")
    cells = r"^\| (2\.\d+)\.\d+ \|.*\| (\d+) \| (\d+) \| \d+ \|$"
    rows = re.findall(cells, table, re.M)
    assert [version for version, *_ in rows] == versions
    assert "--quick" not in table
    for version, passed, failed in rows:
        assert int(passed) > 400, version
        assert failed == "0", version


def test_the_table_of_jax_has_every_version_and_no_failure():
    """`nox -s matrix -- --framework jax` makes it."""
    versions = versions_of_the_matrix("JAX_VERSIONS")
    table = table_of("matrix.py jax")
    rows = re.findall(r"^\| (0\.[\d.]+) \|.*\| (\d+) \| (\d+) \| \d+ \|$", table, re.M)
    assert len(rows) == len(versions) >= 8
    assert "--quick" not in table
    for version, (tested, passed, failed) in zip(versions, rows, strict=True):
        assert tested.startswith(version)
        assert int(passed) > 120, tested
        assert failed == "0", tested


def test_the_table_of_torch_has_the_oldest_version_and_no_failure():
    """`nox -s matrix -- --framework torch` makes it."""
    versions = versions_of_the_matrix("TORCH_VERSIONS")
    table = table_of("matrix.py torch")
    cells = r"^\| (2\.\d+)\.\d+\S* \|.*\| (\d+) \| (\d+) \| \d+ \|$"
    rows = re.findall(cells, table, re.M)
    tested = [version for version, *_ in rows]
    assert [x for x in versions if x in tested] == tested
    assert {versions[0], versions[-1], "2.13"} <= set(tested)
    assert "--quick" not in table
    for version, passed, failed in rows:
        assert int(passed) > 270, version
        assert failed == "0", version


def test_the_table_of_random_cases_has_a_million_and_no_failure():
    """A long `nox -s fuzz` makes it."""
    cells = r"^\| (.*) \| .* \| ([\d,]+) \| (\d+) \| \d* \|$"
    programs, *paths = table_of("fuzz.py").split("\n\n")
    rows = re.findall(cells, programs, re.M)
    assert {"ops and module", "64 threads at once, then one"} <= {x for x, *_ in rows}
    assert sum(int(cases.replace(",", "")) for _, cases, _ in rows) >= 1_000_000
    assert {failed for *_, failed in rows} == {"0"}
    for path, on_threads in re.findall(
        r"^\| (.+?) \| [\d,]+ \| ([\d,]+) \|", "\n".join(paths), re.M
    ):
        assert on_threads != "0", path


def test_no_leak_of_ours_is_left_out():
    """AddressSanitizer leaves out what has one of these in the path of its library."""
    text = (ROOT / ".ci/leaks.txt").read_text()
    others = re.findall(r"^leak:(.+)$", text, re.M)
    assert len(others) > 3
    for path in LIBRARIES:
        assert not [name for name in others if name in str(path)]
