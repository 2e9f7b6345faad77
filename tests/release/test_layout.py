"""The rules of docs/design.md that a machine can check: who may know whom, what
the objects of an instruction set may export, where text stands."""

import ast
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig

import pytest

ROOT = pathlib.Path(__file__).parents[2]

# room -> the rooms of hw3tf that it may import
PYTHON_ROOMS = {
    "__init__": {"acceleration", "data", "layers", "ops", "plots", "reference"},
    "__main__": {"ops"},
    "acceleration": {"acceleration", "layers", "ops"},
    "layers": {"layers", "ops", "reference"},
    "ops": {"ops", "reference", "_core"},
    "reference": {"reference"},
    "data": {"data", "tutorial"},
    "demo": {"tutorial"},
    "plots": {"tutorial"},
    "sentiment": {"acceleration", "data", "plots", "sentiment", "tutorial"},
    "training": {"tutorial"},
    "tutorial": set(),
}
# What these rooms may import beside the standard library: no TensorFlow, and no
# KerasHub, whose layers are told by their names.
ALLOWED_PACKAGES = {
    "acceleration": {"keras", "hw3tf"},
    "reference": {"keras", "hw3tf"},
    "layers": {"keras", "numpy", "hw3tf"},
}
ALLOWED_IN_FILES = {
    "reference/overflow.py": {"tensorflow"},  # an error while a graph runs
    "reference/attention.py": {"numpy"},  # limits of types, lengths of 64 bits
    "reference/integers.py": {"numpy", "tensorflow"},  # checks of weights
}
# folder of csrc -> the folders whose headers it may include
CSRC_ROOMS = {
    "kernels": {"kernels"},
    "operations": {"operations", "kernels"},
    "bindings": {"bindings", "operations", "kernels"},
    "tensorflow": {"tensorflow", "operations", "kernels"},
    "tests": {"tests", "kernels"},
}


def python_files():
    return [p for p in (ROOT / "hw3tf").rglob("*.py") if "__pycache__" not in p.parts]


def room_of(path):
    parts = path.relative_to(ROOT / "hw3tf").parts
    return parts[0] if len(parts) > 1 else path.stem


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module == "hw3tf":
                yield from (f"hw3tf.{alias.name}" for alias in node.names)
            else:
                yield node.module


def test_every_room_is_known():
    assert {room_of(p) for p in python_files()} == set(PYTHON_ROOMS)


@pytest.mark.parametrize("path", python_files(), ids=lambda p: str(p.name))
def test_python_imports_follow_the_arrows(path):
    room = room_of(path)
    for name in imports(path):
        package, _, rest = name.partition(".")
        if package == "hw3tf" and rest:
            assert rest.split(".")[0] in PYTHON_ROOMS[room], f"{path}: {name}"
        if room in ALLOWED_PACKAGES:
            file = path.relative_to(ROOT / "hw3tf").as_posix()
            allowed = ALLOWED_PACKAGES[room] | ALLOWED_IN_FILES.get(file, set())
            allowed = allowed | sys.stdlib_module_names
            assert package in allowed, f"{path}: {name}"


def test_csrc_includes_follow_the_arrows():
    for path in (ROOT / "csrc").rglob("*"):
        if path.suffix not in (".h", ".cc"):
            continue
        room = path.relative_to(ROOT / "csrc").parts[0]
        for name in re.findall(r'#include "([^"]+)"', path.read_text()):
            folder = name.split("/")[0]
            outside = folder == "tensorflow" and name.startswith("tensorflow/c/")
            if outside and path.name == "tf_c_api.h":
                continue
            assert folder in CSRC_ROOMS[room], f"{path}: {name}"
            assert (ROOT / "csrc" / name).exists(), f"{path}: {name}"


# What compiled vector code may include: C headers and the instruction set's own.
VECTOR_HEADERS = {"cstdint", "cstring", "immintrin.h", "sched.h"}


def vector_files():
    folder = ROOT / "csrc/kernels"
    return [
        *folder.rglob("*-inl.h"),
        folder / "vector/simd.h",
        *folder.rglob("*isa.cc"),
    ]


@pytest.mark.parametrize(
    "path", vector_files(), ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_vector_code_includes_no_standard_library(path):
    assert set(re.findall(r"#include <([^>]+)>", path.read_text())) <= VECTOR_HEADERS


AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq"]


@pytest.mark.parametrize(
    "flags", [[], ["-mavx2", "-mfma"], AVX512, [*AVX512, "-mavx512vnni"]]
)
@pytest.mark.parametrize("kernels", ["attention", "recurrence"])
def test_objects_of_an_instruction_set_share_no_function(kernels, flags, tmp_path):
    """A weak symbol in one of them could replace the same function everywhere,
    and run AVX code on a machine that has none."""
    if flags and "x86_64" not in sysconfig.get_platform():
        flags = []  # aarch64 has one instruction set
    source, out = ROOT / f"csrc/kernels/{kernels}/isa.cc", tmp_path / "isa.o"
    compiler = shutil.which("c++") or shutil.which("g++")
    table = f"-DHW3TF_{kernels.upper()}_KERNELS=kTest"
    subprocess.run(
        [compiler, "-std=c++17", "-O2", "-fPIC", f"-I{ROOT / 'csrc'}", table, *flags]
        + ["-c", source, "-o", out],
        check=True,
    )
    lines = subprocess.run(
        ["nm", "-C", out], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    symbols = [line.split(maxsplit=2)[-2:] for line in lines]
    exported = [name for kind, name in symbols if kind in "TDBRVW" or kind == "u"]
    assert exported == ["hw3tf::kTest"]


def test_c_api_declarations_agree_with_tensorflows_headers(tmp_path):
    """The op sources compiled against the installed headers, instead of against
    the declarations in tf_c_api.h that the build uses: a wrong prototype does not
    fit the calls, a wrong constant does not fit the check here."""
    import tensorflow as tf

    include = tf.sysconfig.get_include()
    compiler = shutil.which("c++") or shutil.which("g++")
    flags = ["-std=c++17", "-fsyntax-only", f"-I{ROOT / 'csrc'}"]
    for source in (ROOT / "csrc/tensorflow").glob("*.cc"):
        subprocess.run(
            [compiler, *flags, "-DHW3TF_TF_HEADERS", "-isystem", include, source],
            check=True,
        )
    # Each declaration of ours beside theirs in one file: extern "C" functions of
    # one name and different types do not compile.
    text = (ROOT / "csrc/tensorflow/tf_c_api.h").read_text()
    ours = text[text.index('extern "C" {') : text.index('}  // extern "C"')]
    functions = re.findall(r"^[A-Z_a-z0-9* ]+TF_\w+\([^;]*;", ours, re.M)
    assert len(functions) > 30
    values = re.findall(r"(?:TF|TSL)_[A-Z_]+ = \d+", ours)
    both = tmp_path / "both.cc"
    both.write_text(
        '#define HW3TF_TF_HEADERS\n#include "tensorflow/tf_c_api.h"\n'
        + 'extern "C" {\n'
        + "\n".join(f for f in functions if "typedef" not in f)
        + "\n}\n"
        + "\n".join(f"static_assert({v.replace(' = ', ' == ')});" for v in values)
    )
    subprocess.run([compiler, *flags, "-isystem", include, both], check=True)


def code_of(tutorial):
    """The lines of code of a tutorial: without its opening and the cells of text."""
    text = tutorial.read_text().split('"""', 2)[-1]
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_tutorials_and_readme_stay_readable():
    for path in (ROOT / "tutorials").glob("*.py"):
        assert len(code_of(path)) <= 450, path
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_readme_has_the_two_commands_and_its_example_runs():
    readme = (ROOT / "README.md").read_text()
    for command in (
        "pip install '.[tutorials]' && python tutorials/04_imdb_sentiment.py",
        "pip install '.[test]' && pytest",
    ):
        assert readme.count(command) == 1
    examples = re.findall(r"```python\n(.*?)```", readme, re.S)
    assert examples
    for example in examples:
        exec(compile(example, "README.md", "exec"), {})
