"""Test of one wheel with every TensorFlow, JAX or PyTorch, and a table of the results.

    python .ci/matrix.py WHEEL.whl
    python .ci/matrix.py WHEEL.whl --framework jax

makes an environment for each version, runs a share of the tests there, and writes what
passed. `nox -s matrix` runs it. The table says which versions this Python cannot
install. `--page docs/reliability.md` writes the table there. The environments for JAX
and PyTorch have no TensorFlow.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

from pages import write_between

ROOT = pathlib.Path(__file__).parents[1]
VERSIONS = ("2.16", "2.17", "2.18", "2.19", "2.20", "2.21")
# Every option and dtype with gradients, graphs and export, XLA, layers, the recurrence,
# saved models: everything that depends on TensorFlow, unlike the kernels.
FILES = (
    "release/test_compatibility.py",
    "layers/test_integer_rnn.py",
    "layers/test_multi_head_attention.py",
    "ops/test_attention_graph.py",
    "ops/test_attention_options.py",
    "ops/test_attention_xla.py",
    "ops/test_integer_rnn_graph.py",
    "ops/test_paths.py",
    "ops/test_xla_probe.py",
)
# One or two of each.
QUICK = (
    "release/test_compatibility.py",
    "layers/test_integer_rnn.py::test_states_are_those_of_the_formula",
    "layers/test_multi_head_attention.py"
    "::test_saved_and_exported_models_run_in_a_fresh_process",
    "layers/test_multi_head_attention.py::test_weights_files_interchange",
    "ops/test_attention_graph.py::test_graph_with_unknown_sizes_gives_the_bits_of_eager",
    "ops/test_attention_graph.py::test_tape_in_a_loop_and_a_vectorized_map_work",
    "ops/test_attention_options.py::test_dtype_is_as_exact_as_keras",
    "ops/test_attention_xla.py::test_all_options_give_the_bits_of_the_op",
    "ops/test_attention_xla.py::test_fit_with_jit_compile_is_fit",
    "ops/test_attention_xla.py::test_compiled_saved_model_runs_in_a_fresh_process",
    "ops/test_xla_probe.py::test_probe_passes_here",
)
JAX_VERSIONS = ("0.4.35", "0.4.38", "0.5.3", "0.6.2", "0.7.2", "0.8.3", "0.9.2", "0.10")
TORCH_VERSIONS = ("2.7", "2.8", "2.9", "2.10", "2.11", "2.12", "2.13", "2.14")
# Each with its versions and the tests, all and a few.
FRAMEWORKS = {
    "tensorflow": (VERSIONS, FILES, QUICK),
    "jax": (JAX_VERSIONS, ("backends",), ("backends/test_jax_attention.py",)),
    "torch": (TORCH_VERSIONS, ("backends",), ("backends/test_torch_attention.py",)),
}
ABOUT = """
import json, sys
import keras, numpy, {framework}, hw3tf
info = {{m.__name__: m.__version__ for m in (keras, numpy, {framework})}}
json.dump(info | {{"python": sys.version.split()[0]}}, sys.stdout)
"""


def run(*command, cwd=ROOT, **options):
    return subprocess.run([*map(str, command)], text=True, cwd=cwd, **options)


def install(python, wheel, framework, version):
    """Whether wheel and framework could be installed together."""
    options = ("--quiet", "--no-compile")  # most of it is never imported
    pip = (python, "-m", "pip", "install", *options)
    if framework == "tensorflow":
        return run(*pip, wheel, f"tensorflow=={version}.*", "pytest").returncode == 0
    # The wheel requires TensorFlow.
    needed = (f"{framework}=={version}.*", "keras", "pytest", "ml_dtypes")
    done = run(*pip, *needed), run(*pip, "--no-deps", wheel)
    return not any(one.returncode for one in done)


def test(python, folder, framework, chosen):
    """Counts of a pytest run of the tests `chosen`: passed, failed, skipped."""
    report = folder / "report.xml"
    options = ("-q", "-p", "no:cacheprovider", f"--junitxml={report}")
    # Warnings of old versions about themselves are not errors here.
    options += ("-o", "filterwarnings=default")
    files = [f"tests/{name}" for name in chosen]
    # Not `python -m pytest`: with it, the source hides the installed package.
    variables = os.environ | {"KERAS_BACKEND": framework}
    run(python.with_name("pytest"), *options, *files, env=variables)
    (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    total, failed, skipped = (
        int(suite.get(name)) for name in ("tests", "failures", "skipped")
    )
    failed += int(suite.get("errors"))
    return {"passed": total - failed - skipped, "failed": failed, "skipped": skipped}


def row(framework, version, wheel, folder, chosen):
    """The cells of a version; makes its environment, and removes it."""
    shutil.rmtree(folder, ignore_errors=True)
    run(sys.executable, "-m", "venv", folder, check=True)
    python = folder / "bin/python"
    try:
        if not install(python, wheel, framework, version):
            return {framework: version, "failed": None}
        # Outside the checkout, where the source hides the installed package.
        about = {"check": True, "stdout": subprocess.PIPE, "cwd": folder}
        about["env"] = os.environ | {"KERAS_BACKEND": framework}
        done = run(python, "-c", ABOUT.format(framework=framework), **about)
        return json.loads(done.stdout) | test(python, folder, framework, chosen)
    finally:
        shutil.rmtree(folder)


def table(framework, rows, wheel, quick):
    names = (framework, "keras", "numpy", "python", "passed", "failed", "skipped")
    lines = [f"| {' | '.join(names)} |", "| --- " * len(names) + "|"]
    for cells in rows:
        if cells["failed"] is None:
            line = "cannot be installed on this Python"
            lines.append(f"| {cells[framework]} | {line} {'| ' * 5}|")
        else:
            lines.append(f"| {' | '.join(str(cells[name]) for name in names)} |")
    which = "a few of these tests, `--quick`" if quick else "these tests"
    return "\n".join(lines) + f"\n\nThe wheel: `{wheel.name}`; {which}.\n"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=pathlib.Path)
    parser.add_argument("--framework", choices=FRAMEWORKS, default="tensorflow")
    parser.add_argument("--versions", nargs="+", help="from the oldest to the newest")
    parser.add_argument("--page", type=pathlib.Path, help="to write the table into")
    parser.add_argument("--quick", action="store_true", help="a few tests only")
    args = parser.parse_args(argv)
    framework = args.framework
    versions, files, quick = FRAMEWORKS[framework]
    chosen = quick if args.quick else files
    mark = "matrix.py" if framework == "tensorflow" else f"matrix.py {framework}"
    wheel = args.wheel.absolute()
    folder = ROOT / f"build/matrix-{framework}"
    rows = []
    for version in args.versions or versions:
        rows.append(row(framework, version, wheel, folder, chosen))
        text = table(framework, rows, wheel, args.quick)
        if args.page:
            write_between(args.page, mark, text)
    print(text)
    bad = [cells[framework] for cells in rows if cells["failed"]]
    untested = [cells[framework] for cells in rows if cells["failed"] is None]
    if bad or len(untested) == len(rows):
        raise SystemExit(f"failed: {bad}, not installed: {untested}")


if __name__ == "__main__":
    main()
