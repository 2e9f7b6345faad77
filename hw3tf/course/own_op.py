"""The parts of tutorial 5 that are not part of its lesson: the build of the folder with
the C++ sources, excerpts of them, and times."""

import atexit
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from hw3tf.course.tutorial import UserError

# What `pip install` needs for the folder, beside a compiler. The extra `tutorials`
# brings all of them; pip can also fetch them for one build.
_BUILD_PACKAGES = ("scikit_build_core", "pybind11")


def tutorial_folder(name: str) -> pathlib.Path:
    """Finds a folder beside the tutorials: a notebook does not know where it lies.

    Args:
        name: Name of the folder.

    Returns:
        Its path. It is looked for beside the program, in the folder that the variable
        `HW3TF_TUTORIALS` names, and in the working directory, the folders around it
        and their folders `tutorials`.

    Raises:
        UserError: If it is in none of them.
    """
    program = getattr(sys.modules["__main__"], "__file__", None)
    places = [pathlib.Path(program).parent] if program else []
    if given := os.environ.get("HW3TF_TUTORIALS"):
        places.append(pathlib.Path(given))
    here = pathlib.Path.cwd()
    for place in (here, *here.parents):
        places += [place, place / "tutorials"]
    for place in places:
        if (place / name / "pyproject.toml").exists():
            return (place / name).resolve()
    raise UserError(
        f"the folder {name} is not found: start in the folder `tutorials` of hw3tf's "
        "repository, or set HW3TF_TUTORIALS to its path"
    )


def compiler() -> str | None:
    """The C++ compiler that CMake will find; None without one."""
    names = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    return next(filter(None, map(shutil.which, filter(None, names))), None)


def build_command(source: pathlib.Path, target: pathlib.Path) -> list[str]:
    """The command that builds a package and installs it into a folder of its own.

    With the packages of the build at hand it needs no network.

    Args:
        source: The folder with `pyproject.toml`.
        target: The folder to install into.
    """
    options = ["--quiet", "--disable-pip-version-check", "--no-deps"]
    there = all(map(importlib.util.find_spec, _BUILD_PACKAGES))
    if there and (importlib.util.find_spec("cmake") or shutil.which("cmake")):
        options.append("--no-build-isolation")
    command = [sys.executable, "-m", "pip", "install", *options]
    return [*command, "--target", str(target), str(source)]


def build(source: pathlib.Path) -> pathlib.Path:
    """Builds the package in `source`, and makes it importable in this process.

    Args:
        source: The folder with `pyproject.toml`.

    Returns:
        The folder that it is installed in, which goes when the process ends.

    Raises:
        UserError: If there is no compiler or no pip, or if the build fails.
    """
    if compiler() is None:
        raise UserError(
            "no C++ compiler is found. Debian and Ubuntu: apt-get install g++. "
            "Fedora: dnf install gcc-c++. macOS: xcode-select --install"
        )
    if importlib.util.find_spec("pip") is None:
        raise UserError("pip is not installed: python -m ensurepip")
    folder = tempfile.mkdtemp(prefix="own_op.")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    target = pathlib.Path(folder, "site")
    command = build_command(source, target)
    print(f"Building {source.name} ...", flush=True)
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        advice = ""
        if "--no-build-isolation" not in command:
            advice = (
                "\nWithout a network, install what the build needs beforehand: "
                "pip install 'hw3tf[tutorials]'"
            )
        output = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise UserError(f"the build has failed:\n{output}{advice}")
    print(f"Built and installed in {time.perf_counter() - began:.0f} s.")
    sys.path.insert(0, str(target))
    return target


def excerpt(path: pathlib.Path, start: str) -> str:
    """One definition of a source file.

    Args:
        path: A file in C++ or Python.
        start: Text in the first line of the definition.

    Returns:
        The lines from there to one that starts with a closing brace, or to two blank
        lines.

    Raises:
        ValueError: If no line has the text.
    """
    lines = path.read_text().splitlines()
    begin = next((i for i, line in enumerate(lines) if start in line), None)
    if begin is None:
        raise ValueError(f"{path} has no line with {start!r}")
    text = "\n".join(lines[begin:])
    end = re.search(r"^\}.*|\n\n\n|\Z", text, re.M)
    return text[: end.end() if end else None].rstrip()


def best_time(function: Callable[[], object], seconds: float) -> float:
    """The shortest time of a call, in seconds. Other programs can only make a call
    slower, so the shortest is closest to what the machine can do.

    Args:
        function: Function without arguments.
        seconds: How long it is called again and again, at least three times.
    """
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)
