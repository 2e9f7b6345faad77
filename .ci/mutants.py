"""Small faults put into the code one at a time, each of which a test must catch.

    python .ci/mutants.py build/mutants

copies the repository to the folder, builds the libraries there for the base
instruction set alone, and runs the tests that .ci/mutants.toml names: once on the
code as it is, where they must pass, then once per mutant, where one must fail. A
mutant that no test catches ends the run with status 1. `nox -s mutants` runs this.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import time

import tomllib

ROOT = pathlib.Path(__file__).parents[1]
CODE = ("csrc", "hw3tf", "tests", "benchmarks", "tutorials", "docs", ".ci")
FILES = ("CMakeLists.txt", "pyproject.toml", "README.md", "noxfile.py")


class BuildError(Exception):
    """A mutant that does not compile proves nothing."""


class Tree:
    """A copy of the repository, and the package built from it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.source, self.build = folder / "source", folder / "build"
        self.site = folder / "site"
        shutil.rmtree(self.source, ignore_errors=True)
        for name in CODE:
            shutil.copytree(ROOT / name, self.source / name)
        for name in FILES:
            shutil.copy2(ROOT / name, self.source / name)
        pybind11 = subprocess.run(
            [sys.executable, "-m", "pybind11", "--cmakedir"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        version = subprocess.run(
            [
                sys.executable,
                "-c",
                "import importlib.metadata as m;print(m.version('hw3tf'))",
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        self.run(
            "cmake", "-S", self.source, "-B", self.build, "-G", "Ninja",
            "-DCMAKE_BUILD_TYPE=RelWithDebInfo", f"-Dpybind11_DIR={pybind11}",
            f"-DSKBUILD_PROJECT_VERSION={version}", "-DHW3TF_BASE_KERNELS_ONLY=ON",
            f"-DPython_EXECUTABLE={sys.executable}", "-DPYBIND11_FINDPYTHON=ON",
        )  # fmt: skip

    def run(self, *command: object) -> None:
        done = subprocess.run(
            [*map(str, command)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BuildError(f"{command} failed:\n{done.stdout}\n{done.stderr}")

    def install(self, compiled: bool) -> None:
        """The package, as it is now, in a folder of its own."""
        if compiled:
            self.run("cmake", "--build", self.build)
            self.run("cmake", "--install", self.build, "--component", "python",
                     "--prefix", self.site)  # fmt: skip
        shutil.copytree(self.source / "hw3tf", self.site / "hw3tf", dirs_exist_ok=True)

    def failing_test(self, tests: list[str]) -> str:
        """The first of `tests` that fails, or '' if all pass."""
        environment = dict(
            os.environ,
            PYTHONPATH=str(self.site),
            PYTHONDONTWRITEBYTECODE="1",
            PYTEST_ADDOPTS="",
            TF_CPP_MIN_LOG_LEVEL="3",
        )
        done = subprocess.run(
            [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-n0",
             "-p", "no:cacheprovider", "--rootdir", str(self.source), *tests],
            cwd=self.source,
            env=environment,
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return ""
        failed = [x for x in done.stdout.splitlines() if x.startswith("FAILED ")]
        if failed:
            return failed[0].split()[1]
        if done.returncode < 0:
            return f"signal {-done.returncode}"
        raise SystemExit(f"pytest did not run:\n{done.stdout}\n{done.stderr}")


def read(only: str) -> list[dict]:
    mutants = tomllib.loads((ROOT / ".ci/mutants.toml").read_text())["mutant"]
    for mutant in mutants:
        text = (ROOT / mutant["file"]).read_text()
        if text.count(mutant["old"]) != 1:
            raise SystemExit(
                f"{mutant['name']}: the text to replace must stand in "
                f"{mutant['file']} once. Found: {text.count(mutant['old'])} times"
            )
    return [m for m in mutants if only in m["name"]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path, help="where to build")
    parser.add_argument("--only", default="", help="mutants with this in their names")
    parser.add_argument(
        "--unmutated",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether to run the tests as they are first",
    )
    options = parser.parse_args()
    mutants = read(options.only)
    tree = Tree(options.folder.absolute())
    tree.install(compiled=True)
    if options.unmutated:
        tests = sorted({test for mutant in mutants for test in mutant["tests"]})
        if failing := tree.failing_test(tests):
            raise SystemExit(f"{failing} fails without a mutant")
    survivors = []
    for number, mutant in enumerate(mutants, 1):
        start = time.monotonic()
        path = tree.source / mutant["file"]
        text = path.read_text()
        path.write_text(text.replace(mutant["old"], mutant["new"]))
        try:
            tree.install(compiled=mutant["file"].startswith("csrc"))
            caught = tree.failing_test(mutant["tests"])
        except BuildError as error:
            print(error)
            caught = ""
        finally:
            path.write_text(text)
            if not mutant["file"].startswith("csrc"):
                tree.install(compiled=False)
        if not caught:
            survivors.append(mutant["name"])
        seconds = time.monotonic() - start
        print(
            f"{number:3}/{len(mutants)} {mutant['name']}: "
            f"{'caught by ' + caught if caught else 'SURVIVED'} ({seconds:.0f} s)",
            flush=True,
        )
    tree.install(compiled=True)
    print(f"{len(mutants)} mutants, {len(survivors)} survived: {survivors}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
