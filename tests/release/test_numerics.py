"""Tests of docs/numerics.md: the tests that it names exist, its bounds hold."""

import ast
import importlib
import pathlib
import re
import shutil
import subprocess

import keras
import numpy as np
import pytest

from hw3tf import _core, ops

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs/numerics.md").read_text()
NAMED = re.findall(r"`(\w+/test_\w+\.py)::(test_\w+)`", PAGE)


@pytest.fixture(scope="module")
def program(benchmarks):
    return importlib.import_module("attention.errors")


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_test_named_on_the_page_exists(file, name):
    tree = ast.parse((ROOT / "tests" / file).read_text())
    functions = {x.name for x in tree.body if isinstance(x, ast.FunctionDef)}
    assert name in functions, f"docs/numerics.md names {file}::{name}"


def test_every_guarantee_names_a_test():
    guarantees = re.findall(r"^- .*(?:\n  .*)*", PAGE, re.M)
    assert len(guarantees) > 20
    for text in guarantees:
        assert re.search(r"\((`\w+/test_\w+\.py::test_\w+`,?\s*)+\)$", text), text


@pytest.mark.parametrize("length", [16, 1024])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_errors_are_within_the_bounds_of_the_table(dtype, length, program, rng):
    output, grads, *_ = program.errors(dtype, length, rng)
    assert 0 < max(output, grads) <= program.BOUNDS[dtype]


def test_table_is_that_of_the_program(program):
    """A row for each dtype and length, whose figures are within its bound."""
    rows = re.findall(
        r"^\| (\w+\d+) +\| +([\d,]+) \| (\S+) \| (\S+) .*\| +(\S+) \|", PAGE, re.M
    )
    assert [(dtype, int(length.replace(",", ""))) for dtype, length, *_ in rows] == [
        (dtype, length) for dtype in program.BOUNDS for length in program.LENGTHS
    ]
    for dtype, _, bound, output, *_ in rows:
        assert float(output) <= float(bound) == program.BOUNDS[dtype]


def test_denormals_count_as_zero(kernel_path):
    """1e-40 is a denormal of float32. As one it would be 8e-4 in the scores of the
    second call, where keys and values rise with their position."""
    denormal = np.full((1, 30, 2, 8), 1e-40, "float32")
    ones, position = np.ones_like(denormal), np.arange(30, dtype="float32")
    output = ops.dot_product_attention(ones, ones, denormal)
    assert not keras.ops.convert_to_numpy(output).any()
    rising = ones * position[:, None, None]
    output = ops.dot_product_attention(denormal, rising * 1e30, rising, scale=1e6)
    np.testing.assert_allclose(output, ones * position.mean(), rtol=1e-6)


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
def test_no_instruction_leaves_its_result_to_the_processor():
    """Approximate reciprocals and roots differ between makers of processors."""
    (library,) = pathlib.Path(_core.__file__).parent.glob("libhw3tf_kernels-*.so")
    command = ["objdump", "-d", "--no-show-raw-insn", library]
    code = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert len(code) > 1_000_000
    assert not re.findall(r"\bv?(?:rcp|rsqrt|frecpe|frsqrte|exp2)\w*", code)
