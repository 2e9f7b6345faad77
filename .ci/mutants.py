"""Small faults put into the code one at a time, each of which a test must catch.

    python .ci/mutants.py build/mutants

copies the repository to the folder, builds the libraries there for the base
instruction set alone, and runs the tests that .ci/mutants.toml names: once on the
code as it is, where they must pass, then once per mutant, where one must fail. A
mutant that no test catches ends the run with status 1. `nox -s mutants` runs this.
Each job has a copy and a build of its own.
"""

import argparse
import concurrent.futures
import pathlib
import queue
import shutil
import subprocess
import sys
import time

import tomllib

ROOT = pathlib.Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests/helpers"))

import processes  # noqa: E402 - from that folder

CODE = ("csrc", "hw3tf", "tests", "benchmarks", "tutorials", "docs", ".ci")
FILES = ("CMakeLists.txt", "pyproject.toml", "README.md", "noxfile.py")


class BuildError(Exception):
    """A mutant that does not compile proves nothing."""


class Tree:
    """A copy of the repository, and the package built from it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.source, self.build = folder / "source", folder / "build"
        self.site = folder / "site"
        shutil.rmtree(self.source, ignore_errors=True)
        for name in CODE:
            # With times of now: an object that an earlier run has left, of a mutant
            # maybe, is older.
            shutil.copytree(ROOT / name, self.source / name, copy_function=shutil.copy)
        for name in FILES:
            shutil.copy(ROOT / name, self.source / name)
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
            "-DCMAKE_BUILD_TYPE=Release", f"-Dpybind11_DIR={pybind11}",
            f"-DSKBUILD_PROJECT_VERSION={version}", "-DHW3TF_BASE_KERNELS_ONLY=ON",
            f"-DPython_EXECUTABLE={sys.executable}", "-DPYBIND11_FINDPYTHON=ON",
            # pybind11's would take longer than a test.
            "-DCMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF",
        )  # fmt: skip

    def run(self, *command: object) -> None:
        done = subprocess.run(
            [*map(str, command)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BuildError(f"{command} failed:\n{done.stdout}\n{done.stderr}")

    def install(self) -> None:
        """The package, as it is now, in a folder of its own."""
        # For a mutant in Python, too: the libraries may be those of the one before.
        self.run("cmake", "--build", self.build)
        self.run("cmake", "--install", self.build, "--component", "python",
                 "--prefix", self.site)  # fmt: skip
        shutil.copytree(self.source / "hw3tf", self.site / "hw3tf", dirs_exist_ok=True)

    def failing_test(self, tests: list[str]) -> str:
        """The first of `tests` that fails, or '' if all pass."""
        # -p no:cacheprovider: other code of the same second must not count as cached.
        arguments = ["-x", "-q", "-n0", "-p", "no:cacheprovider"]
        arguments += ["-c", str(self.source / "pyproject.toml")]
        arguments += [str(self.source / test) for test in tests]
        # Forked from a process that has imported TensorFlow, which takes as long as
        # the tests; not in the copy, whose source would hide the package.
        done = processes.run(
            ["-c", f"import sys, pytest; sys.exit(pytest.main({arguments}))"],
            modules=processes.OTHERS,
            cwd=self.folder,
            timeout=1800,
            PYTHONPATH=self.site,
            PYTHONDONTWRITEBYTECODE=1,
            PYTEST_ADDOPTS="",
        )
        if done.returncode == 0:
            return ""
        failed = [x for x in done.stdout.splitlines() if x.startswith("FAILED ")]
        if failed:
            return failed[0].split()[1].removeprefix("source/")
        if done.returncode < 0:
            return f"signal {-done.returncode}"
        raise SystemExit(f"pytest did not run:\n{done.stdout}\n{done.stderr}")

    def killer(self, mutant: dict) -> str:
        """The first test that fails with `mutant` in the code, or ''."""
        path = self.source / mutant["file"]
        text = path.read_text()
        path.write_text(text.replace(mutant["old"], mutant["new"]))
        try:
            self.install()
            return self.failing_test(mutant["tests"])
        except BuildError as error:
            print(error)
            return ""
        finally:
            path.write_text(text)


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
    parser.add_argument("--jobs", type=int, default=2, help="mutants at once")
    options = parser.parse_args()
    mutants = read(options.only)
    trees: queue.SimpleQueue[Tree] = queue.SimpleQueue()
    for job in range(options.jobs):
        tree = Tree(options.folder.absolute() / str(job))
        tree.install()
        trees.put(tree)
    if options.unmutated:
        tests = sorted({test for mutant in mutants for test in mutant["tests"]})
        if failing := tree.failing_test(tests):
            raise SystemExit(f"{failing} fails without a mutant")

    def run(mutant: dict) -> tuple[str, str, float]:
        tree, start = trees.get(), time.monotonic()
        try:
            return mutant["name"], tree.killer(mutant), time.monotonic() - start
        finally:
            trees.put(tree)

    survivors = []
    pool = concurrent.futures.ThreadPoolExecutor(options.jobs)
    try:
        waiting = [pool.submit(run, mutant) for mutant in mutants]
        for number, done in enumerate(concurrent.futures.as_completed(waiting), 1):
            name, caught, seconds = done.result()
            if not caught:
                survivors.append(name)
            print(
                f"{number:3}/{len(mutants)} {name}: "
                f"{'caught by ' + caught if caught else 'SURVIVED'} ({seconds:.0f} s)",
                flush=True,
            )
    finally:
        pool.shutdown(cancel_futures=True)
    print(f"{len(mutants)} mutants, {len(survivors)} survived: {survivors}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
