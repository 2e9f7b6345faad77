"""The threads of the kernels under PyTorch: PyTorch's own."""

import sys

import processes
import pytest

torch = pytest.importorskip("torch")
from hw3tf.ops.fronts.torch_kernels import follow_openmp  # noqa: E402

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the libraries of Linux"),
    pytest.mark.skipif(not torch.backends.openmp.is_available(), reason="no OpenMP"),
]

START = """
import os
import torch
import hw3tf.torch
from hw3tf import _core, ops

def tasks():
    return len(os.listdir("/proc/self/task"))

torch.set_num_threads(3)
x = torch.randn(2, 4, 600, 32)
warm = torch.randn(1000, 1000) @ torch.randn(1000, 1000)
attention = hw3tf.torch.scaled_dot_product_attention
"""


def run(code):
    variables = {"KERAS_BACKEND": "torch", "HW3TF_NUM_THREADS": None}
    done = processes.run(["-c", START + code], modules=(), **variables)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_pytorchs_are_found():
    assert follow_openmp()


def test_their_number_is_that_of_pytorch():
    code = """
numbers = [ops.num_threads()]
torch.set_num_threads(1)
numbers.append(ops.num_threads())
ops.set_num_threads(2)
numbers.append(ops.num_threads())
print(numbers)
"""
    assert run(code).splitlines()[-1] == "[3, 1, 2]"


def test_no_others_are_started():
    """And with them the bits are the same."""
    code = """
before = tasks()
theirs = attention(x, x, x)
started = tasks() - before
_core.use_openmp(0, 0)
ops.set_num_threads(3)
own = attention(x, x, x)
print(started, tasks() - before, torch.equal(theirs, own))
"""
    assert run(code).splitlines()[-1] == "0 2 True"


def test_forked_child_has_its_own():
    """Where OpenMP, which the parent has used, would wait for ever."""
    code = """
want = attention(x, x, x).numpy()
child = os.fork()
if child == 0:
    ops.set_num_threads(3)
    os._exit(0 if (attention(x, x, x).numpy() == want).all() else 1)
print("status", os.waitpid(child, 0)[1])
"""
    assert run(code).splitlines()[-1] == "status 0"
