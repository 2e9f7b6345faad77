"""Fixtures and checks that all tests share."""

import gc
import importlib
import os
import pathlib
import re
import time

import numpy as np
import pytest

# Keras and hw3tf are imported by fixtures: the process that hands the tests to others
# has no need of them.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Variables that hw3tf reads.
OURS = re.compile("HW3TF_|KERAS_BACKEND|TFDS_|TF_CONFIG|.*_proxy", re.IGNORECASE)
PATHS = ("op", "pybind", "reference")
# The paths to the kernel, by the backend of Keras.
FRONTS = {"tensorflow": ("op", "xla", "pybind"), "jax": ("ffi",), "torch": ("torch",)}
MOST_PROCESSES = 4  # each takes up to 2.5 GB
# Begun first: at the end, one process would run them and the others wait.
LONGEST = (
    "release/test_backends.py::test_tests_of",
    "kernels/test_core.py::test_every_instruction_set",
    "kernels/test_empty.py",
    "tutorials/test_tutorial_workers.py",
    "tutorials/test_tutorial_cnn_vs_rnn.py",
    "tutorials/test_sentiment_bert.py",
    "tutorials/test_tutorials.py",
    "tutorials/test_tutorial_your_own_op.py",
    "release/test_benchmarks.py",
    "kernels/test_faults.py",
    "kernels/test_fuzz.py",
    "acceleration/test_models_property.py",
    "acceleration/test_training_at_scale.py",
    "release/",
)


def processors():
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Folders are tested by several processes, files by this one, unless `-n` says
    otherwise; by this one also where there is no pytest-xdist."""
    option = config.option
    if not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return
    if option.numprocesses is not None or option.dist != "no" or option.usepdb:
        return
    number = min(processors(), MOST_PROCESSES)
    if number > 1 and all(pathlib.Path(arg).is_dir() for arg in config.args):
        option.numprocesses, option.dist = number, "worksteal"


def pytest_configure(config):
    # Tracing makes objects by the million, and few cycles. With Python's thresholds,
    # 700, 10 and 10, the collector took a tenth of the time.
    gc.set_threshold(100_000, 50, 100)
    # More threads in each process than processors for it would only wait.
    if hasattr(config, "workerinput") and processors() > 2:
        os.environ.setdefault("HW3TF_NUM_THREADS", "2")


def pytest_collection_modifyitems(items):
    def place(item):
        name = item.nodeid.removeprefix("tests/")
        places = (i for i, start in enumerate(LONGEST) if name.startswith(start))
        return next(places, len(LONGEST))

    items.sort(key=place)


@pytest.fixture
def rng():
    """A NumPy generator, the same in every run."""
    return np.random.default_rng(0)


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """No prepared data sets, and servers that never answer."""
    import tensorflow_datasets  # noqa: F401 - takes seconds, which tests do not count

    from hw3tf.course.data import network

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
    """The two paths to the kernel in turn."""
    monkeypatch.setenv("HW3TF_PATH", request.param)
    return request.param


@pytest.fixture
def kernel_calls(monkeypatch):
    """A list that grows by one with every real call of the kernel."""
    import keras

    from hw3tf.ops import fronts, paths

    if keras.backend.backend() == "tensorflow":
        paths.kernel_path(compiled=True)  # tries the kernel once in a process
    calls = []
    for path in FRONTS[keras.backend.backend()]:
        front = fronts.front_of(path)
        monkeypatch.setattr(front, "attention", _counted(path, front.attention, calls))
    return calls


@pytest.fixture
def rnn_calls(monkeypatch):
    """A list that grows by one with every call of an LSTM, a GRU or a simple RNN: its
    path and its options. Layers that compute as in Keras make none."""
    from hw3tf.ops.rnn.call import RnnCall

    calls, run = [], RnnCall.run

    def counted(call):
        calls.append((call.path.path, call.options))
        return run(call)

    monkeypatch.setattr(RnnCall, "run", counted)
    return calls


def _counted(path, run, calls):
    def counted(query, key, value, options):
        calls.append((path, tuple(query.shape), tuple(key.shape), options))
        return run(query, key, value, options)

    return counted


@pytest.fixture(autouse=True, scope="module")
def _collected():
    """Python's collector need not visit what earlier files have left: graphs and
    modules of TensorFlow, millions of objects, which took a tenth of the time."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded():
    import keras

    keras.utils.set_random_seed(0)


def process_state():
    """The state of a process that a test could change for those after it."""
    import keras

    from hw3tf import ops
    from hw3tf.layers.call_context import call_context

    return _tensorflow_state() | {
        "layer call under way": call_context(),
        "threads": ops.num_threads(),
        "floatx": keras.config.floatx(),
        "dtype policy": keras.config.dtype_policy().name,
        "enabled": hasattr(
            importlib.import_module("keras.src.backend").nn.dot_product_attention,
            "__wrapped__",
        ),
        # Others' libraries set theirs when they are first imported.
        "environment": {k: v for k, v in os.environ.items() if OURS.match(k)},
        "working directory": os.getcwd(),
    }


def _tensorflow_state():
    import keras

    if keras.backend.backend() != "tensorflow":
        return {}
    import tensorflow as tf

    return {"eager functions": tf.config.functions_run_eagerly()}


@pytest.fixture(autouse=True)
def _nothing_left_behind():
    """Files of tests run in any order, in several processes."""
    before = process_state()
    yield
    after = process_state()
    assert after == before
