"""One command per need: `nox -s lint | tests | cpp | tutorials | bench | docs`."""

import os
import pathlib

import nox

nox.options.sessions = ["lint", "tests", "cpp"]
nox.needs_version = ">=2024.4.15"

CPP = sorted(str(p) for p in pathlib.Path("csrc").rglob("*.[ch]*"))
CPP = [p for p in CPP if p.endswith((".h", ".cc"))]
LINTERS = ("ruff==0.17.6", "clang-format==23.1.5", "mypy==2.4.1", "numpy")


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
@nox.parametrize("preset", ["kernels", "asan", "tsan"])
def cpp(session, preset):
    """The kernels' own tests; `nox -s "cpp(preset='asan')"` under sanitizers."""
    session.install("cmake>=3.25", "ninja")
    session.run("cmake", "--preset", preset, "-G", "Ninja")
    session.run("cmake", "--build", "--preset", preset)
    session.run("ctest", "--preset", preset)


@nox.session
def tutorials(session):
    """All tutorials, short: on the sample, and on real data where it is."""
    session.install(".[tutorials]")
    for path in sorted(pathlib.Path("tutorials").glob("[0-9]*.py")):
        run = ("python", str(path), "--quick")
        if "--data" not in path.read_text():  # it makes its own
            session.run(*run)
            continue
        session.run(*run, "--data", "sample")
        if os.environ.get("TFDS_DATA_DIR"):
            session.run(*run, "--data", "imdb")


BENCHMARKS = (
    "attention.py",
    "attention_memory.py",
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


@nox.session
def docs(session):
    """The site, into site/."""
    session.install(".[docs]")
    session.run("mkdocs", "build", "--strict")
