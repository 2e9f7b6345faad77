"""The probe that protects users from changes in the private parts of XLA."""

import pathlib
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import tensorflow as tf
from checks import run_python

from hw3tf import layers, ops
from hw3tf.ops import library, operations
from hw3tf.ops.fronts import xla, xla_probe


def probe():
    """As in a fresh process."""
    return xla_probe.call_error.__wrapped__(library.op_library_path())


def test_probe_passes_here():
    assert probe() == ""


def test_wrong_numbers_are_found(monkeypatch):
    run = xla.attention

    def wrong(*args):
        output, logsumexp = run(*args)
        return output * 1.001, logsumexp

    monkeypatch.setattr(xla, "attention", wrong)
    with pytest.warns(RuntimeWarning, match="other numbers than the op"):
        assert "other numbers" in probe()


def test_lost_errors_are_found(monkeypatch):
    run = xla.attention

    def lenient(query, key, value, options):
        lengths = tf.minimum(options.key_lengths, 3)
        return run(query, key, value, xla_probe.options_of(lengths))

    monkeypatch.setattr(xla, "attention", lenient)
    with pytest.warns(RuntimeWarning, match="raises no error of ours"):
        probe()


def test_wrong_states_are_found(monkeypatch):
    run = xla.integer_rnn
    monkeypatch.setattr(xla, "integer_rnn", lambda *x: run(*x) + 1)
    with pytest.warns(RuntimeWarning, match="a small recurrence gives other numbers"):
        probe()


def test_lost_overflows_are_found(monkeypatch):
    run = xla.integer_rnn

    def lenient(tensors, options, state_dtype):
        return run(tensors, replace(options, overflow="wrap"), state_dtype)

    monkeypatch.setattr(xla, "integer_rnn", lenient)
    with pytest.warns(RuntimeWarning, match="an overflow raises no error of ours"):
        probe()


def test_where_xla_cannot_call_us_an_overflow_is_refused_not_lost(monkeypatch):
    monkeypatch.delenv("HW3TF_PATH", raising=False)
    monkeypatch.setattr(xla_probe, "call_error", lambda path: "a symbol is missing")
    x, one = tf.ones([1, 2, 1], "int32"), tf.ones([1, 1], "int32")
    run = tf.function(ops.integer_rnn, jit_compile=True, autograph=False)
    with pytest.raises(NotImplementedError, match=r"jit_compile=False.*'saturate'"):
        run(x, one, one)
    assert run(x, one, one, overflow="wrap") == [[2]]
    assert not layers.IntegerRNN(1).supports_jit


def test_unregistered_call_is_found(monkeypatch):
    """What a TensorFlow that ignores our registration would do."""
    monkeypatch.setattr(operations.ATTENTION, "target", "hw3tf_unheard_of")
    with pytest.warns(RuntimeWarning, match="cannot call hw3tf's kernel"):
        probe()


def test_failing_probe_takes_the_reference_and_warns_once():
    code = """
import warnings
import numpy as np, tensorflow as tf
from hw3tf import ops
from hw3tf.ops import library, operations
library.register_targets = lambda path: "a symbol is not in this TensorFlow"
x = tf.constant(np.random.default_rng(0).standard_normal((2, 9, 2, 8), "float32"))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")

    @tf.function(jit_compile=True)
    def run(x):
        print(ops.attention_path(x, x, x))
        return ops.dot_product_attention(ops.dot_product_attention(x, x, x), x, x)

    got = run(x)
    caught = [w for w in caught if "hw3tf" in str(w.message)]
    print(len(caught), caught[0].category.__name__, caught[0].message)
y = ops.dot_product_attention(x, x, x)
want = ops.dot_product_attention(y, x, x)
print(np.abs(got - want).max() < 1e-6)  # outputs of size 1, rounded twice
"""
    path, warning, same = run_python(code, HW3TF_PATH=None).splitlines()[-3:]
    assert path == (
        "reference (the call is compiled by XLA, which cannot call us: "
        "a symbol is not in this TensorFlow)"
    )
    assert warning.startswith("1 RuntimeWarning XLA in TensorFlow")
    assert "With jit_compile=False the kernel serves" in warning
    assert same == "True"


LAYOUT = "the status of a custom call is not what it was in TensorFlow 2.16 to 2.21"


@pytest.mark.skipif(sys.platform != "linux", reason="looks in a process of its own")
@pytest.mark.parametrize("mode", range(4), ids=["same", "crash", "larger", "other"])
def test_status_of_another_layout_is_found_and_never_written(mode, tmp_path):
    """Without it attention takes the reference (the tests above); an error of a call
    that is made all the same ends the process instead of writing anywhere."""
    root = pathlib.Path(__file__).parents[2]
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    program = tmp_path / "program"
    sources = [
        root / "tests/helpers/xla_status.cc",
        root / "csrc/tensorflow/xla_registry.cc",
    ]
    flags = ["-std=c++17", "-O1", "-rdynamic", f"-DMODE={mode}", "-I", root / "csrc"]
    subprocess.run([compiler, *flags, *sources, "-o", program, "-ldl"], check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    if mode == 0:
        assert (done.returncode, done.stdout) == (0, "\nwrong shape\n")
    else:
        assert (done.returncode, done.stdout) == (-signal.SIGABRT, LAYOUT + "\n")
        assert done.stderr == f"hw3tf: wrong shape, and {LAYOUT}\n"
