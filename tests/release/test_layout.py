"""Tests of the rules of docs/design.md: imports and includes, the symbols that objects
of an instruction set export, the sizes of files, the README."""

import ast
import importlib
import importlib.util
import inspect
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig

import pytest

import hw3tf

ROOT = pathlib.Path(__file__).parents[2]

# Package or module of hw3tf -> those that it may import. Of the course, which nothing
# else imports, each part stands for itself.
PACKAGES = {
    "__init__": {"_moved", "_saved_names", "_startup", "acceleration", "layers"}
    | {"ops", "reference"},
    "__main__": {"ops"},
    "_moved": set(),
    "_saved_names": set(),
    "_startup": set(),
    "_types": set(),
    "acceleration": {"acceleration", "layers", "ops"},
    "jax": {"ops"},
    "layers": {"layers", "ops", "reference"},
    "ops": {"ops", "reference", "_core"},
    "reference": {"reference"},
    "torch": {"ops"},
    "course": set(),
    "course.data": {"course.data", "course.tutorial"},
    "course.demo": {"course.tutorial"},
    "course.lesson": {"course.plots", "course.tutorial"},
    "course.notebooks": set(),
    "course.own_op": {"course.tutorial"},
    "course.plots": {"course.plots", "course.tutorial"},
    "course.sentiment": {"acceleration", "course.data", "course.plots"}
    | {"course.sentiment", "course.tutorial"},
    "course.tutorial": set(),
}
FOR_ALL = {"_types"}
# What these packages may import beside the standard library: no TensorFlow, and no
# KerasHub, whose layers are told by their names.
ALLOWED_PACKAGES = {
    "acceleration": {"keras", "hw3tf"},
    "reference": {"keras", "hw3tf"},
    "layers": {"keras", "numpy", "hw3tf"},
}
ALLOWED_IN_FILES = {
    "reference/overflow.py": {"tensorflow"},  # an error while a graph runs
    "reference/attention.py": {"numpy"},  # limits of types, lengths of 64 bits
    "reference/exact.py": {"numpy"},  # integers of 64 bits
    "reference/integers.py": {"numpy", "tensorflow"},  # checks of weights
}
# folder of csrc -> the folders whose headers it may include
CSRC_FOLDERS = {
    "kernels": {"kernels"},
    "operations": {"operations", "kernels"},
    "bindings": {"bindings", "jax", "operations", "kernels"},
    "jax": {"jax", "operations", "kernels"},
    "tensorflow": {"tensorflow", "operations", "kernels"},
    "tests": {"tests", "kernels"},
}


def python_files():
    return [p for p in (ROOT / "hw3tf").rglob("*.py") if "__pycache__" not in p.parts]


def package_of(parts):
    """The key of `PACKAGES`, for the parts of a module's name behind `hw3tf`."""
    return ".".join(parts[: 2 if parts[0] == "course" else 1])


def package_of_file(path):
    parts = path.relative_to(ROOT / "hw3tf").with_suffix("").parts
    return package_of(
        parts[:-1] if len(parts) > 1 and path.stem == "__init__" else parts
    )


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module in ("hw3tf", "hw3tf.course"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def test_every_package_is_known():
    assert {package_of_file(path) for path in python_files()} == set(PACKAGES)


@pytest.mark.parametrize("path", python_files(), ids=lambda p: str(p.name))
def test_python_imports_follow_the_arrows(path):
    importing = package_of_file(path)
    for name in imports(path):
        package, *inside = name.split(".")
        if package == "hw3tf" and inside:
            known = PACKAGES[importing] | FOR_ALL
            assert package_of(inside) in known, f"{path}: {name}"
        if importing in ALLOWED_PACKAGES:
            file = path.relative_to(ROOT / "hw3tf").as_posix()
            allowed = ALLOWED_PACKAGES[importing] | ALLOWED_IN_FILES.get(file, set())
            allowed = allowed | sys.stdlib_module_names
            assert package in allowed, f"{path}: {name}"


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_imported(path, modules):
    """The modules of hw3tf that a file imports, also inside functions. A package whose
    submodule is imported counts only if something of its own is."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name != "hw3tf._core":
                    yield name if name in modules else node.module


def cycle_in(graph):
    """The nodes of a cycle, in order; empty without a cycle."""
    done, under_way = set(), []

    def visit(node):
        if node in under_way:
            return under_way[under_way.index(node) :]
        if node not in done:
            under_way.append(node)
            for other in sorted(graph[node]):
                if cycle := visit(other):
                    return cycle
            done.add(under_way.pop())
        return []

    return next(filter(None, map(visit, sorted(graph))), [])


def import_graph():
    paths = {module_of(path): path for path in python_files()}
    return {name: set(modules_imported(path, paths)) for name, path in paths.items()}


def test_modules_do_not_import_each_other_in_a_circle():
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert cycle_in(import_graph()) == []


# module or package of hw3tf.ops -> what it may import of hw3tf.ops
OPS_ARROWS = {
    "library": set(),
    "operations": set(),
    "shapes": set(),
    "branches": set(),
    "exporting": set(),
    "tapes": set(),
    "arguments": {"shapes"},
    "attention.options": {"operations"},
    "recurrence.options": set(),
    "rnn.options": {"operations"},
    "rnn.kept": {"rnn.options"},
    "fronts": {
        "attention.options",
        "exporting",
        "fronts",
        "library",
        "operations",
        "recurrence.options",
        "rnn.kept",
        "rnn.options",
        "shapes",
        "tapes",
    },
    "paths": {"exporting", "fronts", "library"},
    "runtime": {"fronts", "paths"},
    "attention": {"arguments", "attention", "fronts", "operations", "paths", "shapes"},
    "recurrence": {
        "exporting",
        "fronts",
        "operations",
        "paths",
        "recurrence",
        "tapes",
    },
    "rnn": {"arguments", "fronts", "operations", "paths", "rnn", "shapes"},
}


def ops_arrow_of(module):
    """The longest name in `OPS_ARROWS` that `module` is or is inside of."""
    name = module.removeprefix("hw3tf.ops.")
    while name not in OPS_ARROWS and "." in name:
        name = name.rpartition(".")[0]
    return name


def test_ops_know_fronts_and_fronts_know_options():
    ours = "hw3tf.ops."
    graph = {k: v for k, v in import_graph().items() if k.startswith(ours)}
    assert {ops_arrow_of(name) for name in graph} == set(OPS_ARROWS)
    for name, others in graph.items():
        allowed = OPS_ARROWS[ops_arrow_of(name)]
        for other in (x for x in others if x.startswith(ours)):
            to = ops_arrow_of(other)
            assert {to, to.partition(".")[0]} & allowed, f"{name}: {other}"


def test_every_module_can_be_imported_and_hides_no_function():
    """A module that had the name of a function would take its place."""
    public = {name: getattr(hw3tf.ops, name) for name in hw3tf.ops.__all__}
    for name in import_graph():
        if not name.startswith(("hw3tf.ops", "hw3tf.layers", "hw3tf.acceleration")):
            continue
        if "torch" in name and importlib.util.find_spec("torch") is None:
            continue  # an extra
        importlib.import_module(name)
    assert {name: getattr(hw3tf.ops, name) for name in hw3tf.ops.__all__} == public
    assert inspect.isfunction(hw3tf.ops.integer_rnn)
    from hw3tf.ops import integer_rnn

    assert integer_rnn([[[2], [3]]], [[1]], [[1]]).numpy().tolist() == [[5]]


def test_csrc_includes_follow_the_arrows():
    for path in (ROOT / "csrc").rglob("*"):
        if path.suffix not in (".h", ".cc"):
            continue
        including = path.relative_to(ROOT / "csrc").parts[0]
        for name in re.findall(r'#include "([^"]+)"', path.read_text()):
            folder = name.split("/")[0]
            outside = name.startswith(("tensorflow/c/", "xla/ffi/"))
            if outside and path.name in ("tf_c_api.h", "ffi_api.h"):
                continue
            assert folder in CSRC_FOLDERS[including], f"{path}: {name}"
            assert (ROOT / "csrc" / name).exists(), f"{path}: {name}"


# The headers that compiled vector code may include: C's and the instruction set's.
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


AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
# The objects of csrc/kernels/CMakeLists.txt.
OBJECTS = {
    "attention": ("attention/isa.cc", []),
    "attention avx2": ("attention/isa.cc", ["-mavx2", "-mfma"]),
    "attention avx512": ("attention/isa.cc", AVX512),
    "attention bfloat16": (
        "attention/bfloat16_isa.cc",
        [*AVX512, "-mavx512bf16"],
    ),
    "recurrence": ("recurrence/isa.cc", []),
    "recurrence avx2": ("recurrence/isa.cc", ["-mavx2", "-mfma"]),
    "recurrence avx512": ("recurrence/isa.cc", AVX512),
    "recurrence avx512_vnni": ("recurrence/isa.cc", [*AVX512, "-mavx512vnni"]),
    "rnn": ("rnn/isa.cc", []),
    "rnn avx2": ("rnn/isa.cc", ["-mavx2", "-mfma"]),
    "rnn avx512": ("rnn/isa.cc", AVX512),
    "rnn bfloat16": ("rnn/bfloat16_isa.cc", [*AVX512, "-mavx512bf16"]),
}


def test_every_object_is_looked_at():
    text = (ROOT / "csrc/kernels/CMakeLists.txt").read_text()
    made = re.findall(r"hw3tf_add_kernels\((\w+?)(_bfloat16)? (\w+)", text)
    names = {
        f"{kernels} bfloat16" if bfloat16 else f"{kernels} {isa}".removesuffix(" base")
        for kernels, bfloat16, isa in made
    }
    assert names - {"kernels name"} == set(OBJECTS)


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_of_an_instruction_set_share_no_function(name, tmp_path):
    """A weak symbol in one of them could replace the same function everywhere,
    and run AVX code on a machine that has none. Without optimization nothing is
    inlined: a function shows that -O2 would hide where it inlines all its calls."""
    source, flags = OBJECTS[name]
    if flags and "x86_64" not in sysconfig.get_platform():
        pytest.skip("one instruction set")
    compiler = shutil.which("c++") or shutil.which("g++")
    kernels = name.removesuffix("bfloat16").split()[0].upper()
    kernels += "_BFLOAT16" if "bfloat16" in source else ""
    source, out = ROOT / "csrc/kernels" / source, tmp_path / "isa.o"
    subprocess.run(
        [compiler, "-std=c++17", "-O0", "-fPIC", f"-I{ROOT / 'csrc'}"]
        + [f"-DHW3TF_{kernels}_KERNELS=kTest", *flags, "-c", source, "-o", out],
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
    # In one file: reading the headers takes most of the time.
    sources = tmp_path / "sources.cc"
    files = sorted((ROOT / "csrc/tensorflow").glob("*.cc"))
    sources.write_text("".join(f'#include "{file}"\n' for file in files))
    subprocess.run(
        [compiler, *flags, "-DHW3TF_TF_HEADERS", "-isystem", include, sources],
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


def test_declarations_of_the_ffi_are_those_of_jaxlib(tmp_path):
    """As above: the handlers compiled with jaxlib's header, and each member of our
    structs where it is in theirs."""
    ffi = pytest.importorskip("jax.ffi")
    compiler = shutil.which("c++") or shutil.which("g++")
    flags = ["-std=c++17", "-fsyntax-only", f"-I{ROOT / 'csrc'}"]
    flags += ["-isystem", ffi.include_dir()]
    handlers = ROOT / "csrc/jax/ffi_handlers.cc"
    subprocess.run([compiler, *flags, "-DHW3TF_XLA_HEADERS", handlers], check=True)
    text = (ROOT / "csrc/jax/ffi_api.h").read_text()
    ours = text[text.index('extern "C" {') : text.index('}  // extern "C"')]
    structs = re.findall(r"typedef struct (\w+) {(.*?)}", ours, re.S)
    # The name of a member is the last word of its line, or a pointer to a function.
    member = r"(\w+)(?:\)\([^;]*\))?;"
    members = {name: re.findall(member, body) for name, body in structs}
    assert "XLA_FFI_Error_Create" in members["XLA_FFI_Api"]
    assert len(members) > 10
    values = re.findall(r"XLA_FFI_\w+ = \d+", ours)
    assert len(values) > 10
    both = tmp_path / "both.cc"
    both.write_text(
        '#include <cstddef>\n#include "xla/ffi/api/c_api.h"\n'
        "namespace ours {\n"
        + ours[len('extern "C" {') :]
        + "\n}\n"
        + "\n".join(
            f"static_assert(offsetof({name}, {member}) == "
            f"offsetof(ours::{name}, {member}));"
            for name, found in members.items()
            for member in found
        )
        + "\n".join(f"static_assert({v.replace(' = ', ' == ')});" for v in values)
    )
    subprocess.run([compiler, *flags, both], check=True)


def code_of(tutorial):
    """The lines of code of a tutorial, without its opening and the cells of text."""
    text = tutorial.read_text().split('"""', 2)[-1]
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_tutorials_and_readme_stay_readable():
    for path in (ROOT / "tutorials").glob("*.py"):
        assert len(code_of(path)) <= 450, path
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


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


def test_mutants_change_what_they_name():
    """`nox -s mutants` would end at the first that does not, after many minutes."""
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    mutants = tomllib.loads((ROOT / ".ci/mutants.toml").read_text())["mutant"]
    for mutant in mutants:
        text = (ROOT / mutant["file"]).read_text()
        assert text.count(mutant["old"]) == 1, mutant["name"]
        assert mutant["old"] != mutant["new"], mutant["name"]
        assert all((ROOT / test).exists() for test in mutant["tests"]), mutant["name"]
    assert len({mutant["name"] for mutant in mutants}) == len(mutants) >= 60
