"""The path that a call takes, and its report."""

import logging

import keras
import numpy as np
import processes
import pytest
import tensorflow as tf
from checks import run_python

from hw3tf import _core, ops
from hw3tf.__main__ import main
from hw3tf.ops import paths

X = np.ones((1, 4, 2, 8), "float32")


def test_default_path_is_the_op(monkeypatch):
    monkeypatch.delenv("HW3TF_PATH", raising=False)
    assert ops.attention_path(X, X, X) == ops.AttentionPath(
        "op", "the kernel covers the call"
    )


def test_environment_forces_a_path(path):
    assert ops.attention_path(X, X, X).path == path


def test_unknown_path_is_refused(monkeypatch):
    monkeypatch.setenv("HW3TF_PATH", "gpu")
    with pytest.raises(ValueError, match="HW3TF_PATH must be one of"):
        ops.dot_product_attention(X, X, X)


def test_tensor_as_scale_takes_the_reference(kernel_path):
    """It may need a gradient, which the kernel does not have."""
    scale = tf.constant(0.5)
    path = ops.attention_path(X, X, X, scale=scale)
    assert str(path) == "reference (the kernel does not cover a tensor as `scale`)"
    with tf.GradientTape() as tape:
        tape.watch(scale)
        output = ops.dot_product_attention(X, X * X[..., :1], X, scale=scale)
    assert tape.gradient(output, scale) is not None


OPTIONS = {
    "bias": np.zeros((4, 4), "float32"),
    "mask": np.tri(4, dtype=bool),
    "is_causal": True,
    "attn_logits_soft_cap": 5.0,
    "query_mask": np.ones((1, 4), bool),
    "key_mask": np.ones((1, 4), bool),
    "query_lengths": [3],
    "key_lengths": [2],
    "sliding_window": 2,
    "dropout_rate": 0.5,
    "dropout_seed": 1,
    "flash_attention": True,
    "return_logsumexp": True,
    "return_attention_scores": True,
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_kernel_takes_all_options_and_dtypes(dtype, kernel_path):
    x = tf.cast(X, dtype)
    assert ops.attention_path(x, x, x, **OPTIONS).path == kernel_path


def test_path_of_a_ragged_call(path):
    x = tf.RaggedTensor.from_row_lengths(X[0], [1, 3])
    assert ops.attention_path(x, x, x, is_causal=True).path == path
    with pytest.raises(TypeError, match="key_mask"):
        ops.attention_path(x, x, x, key_mask=np.ones((2, 3), bool))


def test_path_is_logged(kernel_path, caplog):
    with caplog.at_level(logging.DEBUG, "hw3tf"):
        ops.dot_product_attention(X, X, X)
    assert f"takes the path {kernel_path} (" in caplog.text


def test_op_library_that_fails_gives_way_to_pybind():
    code = """
from hw3tf.ops import paths
import numpy as np
paths.op_library_error = lambda: "NotFoundError: gone"
from hw3tf import ops
x = np.ones((1, 4, 2, 8), "float32")
print(ops.attention_path(x, x, x))
ops.dot_product_attention(x, x, x)
import os
os.environ["HW3TF_PATH"] = "op"
try:
    ops.dot_product_attention(x, x, x)
except RuntimeError as error:
    print(error)
"""
    out = run_python(code, HW3TF_PATH=None).splitlines()
    assert out[-2] == "pybind (the op library fails: NotFoundError: gone)"
    assert "HW3TF_PATH=op, but the op library fails" in out[-1]


def test_other_backends_take_the_reference(monkeypatch):
    """Only the choice: JAX and torch are not among the test requirements."""
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    assert str(ops.attention_path(X, X, X)) == "reference (the backend is numpy)"


def test_visible_gpu_takes_the_reference(monkeypatch):
    monkeypatch.setattr(paths, "_gpu_visible", lambda: True)
    assert str(ops.attention_path(X, X, X)) == "reference (TensorFlow sees a GPU)"


def test_main_prints_what_a_bug_report_needs(capsys, monkeypatch):
    monkeypatch.delenv("HW3TF_PATH", raising=False)
    main([])
    out = capsys.readouterr().out
    for name in ("hw3tf", "tensorflow", "keras", "threads", "compiled", "platform"):
        assert f"{name}:" in out
    assert "op library:      loaded" in out
    assert f"instruction set: {_core.instruction_set()}" in out
    assert "attention:       op (the kernel covers the call)" in out


@pytest.mark.parametrize(
    ("name", "value"), [("HW3TF_ISA", "sse9"), ("HW3TF_NUM_THREADS", "many")]
)
def test_bad_environment_stops_the_import(name, value):
    code = """
try:
    import hw3tf
except ImportError as error:
    print(error)
"""
    out = run_python(code, modules=processes.OTHERS, **{name: value})
    assert name in out
    assert value in out


def test_number_of_threads_can_be_set():
    default = ops.num_threads()
    ops.set_num_threads(3)
    assert ops.num_threads() == 3
    ops.set_num_threads(0)
    assert ops.num_threads() == default
    with pytest.raises(ValueError, match="threads=-1"):
        ops.set_num_threads(-1)
