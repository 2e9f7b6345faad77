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
        session.run("python", str(path), "--quick", "--data", "sample")
        if os.environ.get("TFDS_DATA_DIR"):
            session.run("python", str(path), "--quick", "--data", "imdb")


@nox.session
def bench(session):
    """The tables of benchmarks/README.md. Leave the machine alone meanwhile."""
    session.install(".[bench]")
    for path in sorted(pathlib.Path("benchmarks").glob("*.py")):
        session.run("python", str(path), *session.posargs)


@nox.session
def docs(session):
    """The site, into site/."""
    session.install(".[docs]")
    session.run("mkdocs", "build", "--strict")
