"""What all tests share."""

import importlib
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf

from hw3tf import ops
from hw3tf.layers.call_context import call_context
from hw3tf.ops import fronts

PATHS = ("op", "pybind", "reference")


@pytest.fixture
def rng():
    """A NumPy generator, the same in every run."""
    return np.random.default_rng(0)


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """No prepared data sets, and servers that never answer."""
    import tensorflow_datasets  # noqa: F401 - takes seconds, which tests do not count

    from hw3tf.data import network

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(
        network.urllib.request, "urlopen", lambda *_, **__: time.sleep(30)
    )


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """Each path in turn, forced through HW3TF_PATH."""
    monkeypatch.setenv("HW3TF_PATH", request.param)
    return request.param


@pytest.fixture(params=("op", "pybind"))
def kernel_path(request, monkeypatch):
    """The two ways to the kernel in turn."""
    monkeypatch.setenv("HW3TF_PATH", request.param)
    return request.param


@pytest.fixture
def kernel_calls(monkeypatch):
    """A list that grows by one with every real call of the kernel."""
    calls = []
    for path in ("op", "xla", "pybind"):
        front = fronts.front_of(path)
        monkeypatch.setattr(front, "attention", _counted(path, front.attention, calls))
    return calls


def _counted(path, run, calls):
    def counted(query, key, value, options):
        calls.append((path, tuple(query.shape), tuple(key.shape), options))
        return run(query, key, value, options)

    return counted


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


def process_state():
    """What a test may leave behind in its process for those after it."""
    return {
        "layer call under way": call_context(),
        "threads": ops.num_threads(),
        "floatx": keras.config.floatx(),
        "dtype policy": keras.config.dtype_policy().name,
        "eager functions": tf.config.functions_run_eagerly(),
        "enabled": hasattr(
            importlib.import_module("keras.src.backend").nn.dot_product_attention,
            "__wrapped__",
        ),
        "environment": dict(os.environ, PYTEST_CURRENT_TEST=""),
        "working directory": os.getcwd(),
    }


@pytest.fixture(autouse=True)
def _nothing_left_behind():
    """Files of tests run in any order, in several processes."""
    before = process_state()
    yield
    after = process_state()
    assert after == before
