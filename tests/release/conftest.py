"""The programs of benchmarks/ as modules."""

import pathlib
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmarks():
    """Their folder, from which they import each other, is importable."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield FOLDER
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and FOLDER in pathlib.Path(file).parents:
            del sys.modules[name]
