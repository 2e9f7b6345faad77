"""The programs of benchmarks/ as modules."""

import sys

import pytest
from library_benchmarks import FOLDER, forget


@pytest.fixture(scope="module")
def benchmarks():
    """Their folder, from which they import each other, is importable."""
    sys.path.insert(0, str(FOLDER))
    yield FOLDER
    sys.path.remove(str(FOLDER))
    forget()
