"""Accelerated models under strategies, accumulation, mixed precision, changing lengths
and determinism: each trains a few steps and is compared with stock Keras."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

import keras
import numpy as np
import pytest
import scaled_training
from checks import run_python

IMPORT = f"""
import sys
sys.path.insert(0, r"{pathlib.Path(__file__).parents[1] / "helpers"}")
import tensorflow as tf
"""

MIRRORED = (
    IMPORT
    + """
(cpu,) = tf.config.list_physical_devices("CPU")
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
import scaled_training
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
scaled_training.assert_equal(scaled_training.train_under(strategy))
print("equal")
"""
)

MULTI_WORKER = (
    IMPORT
    + """
strategy = tf.distribute.MultiWorkerMirroredStrategy()
import numpy as np
import scaled_training
assert strategy.num_replicas_in_sync == 2
found = scaled_training.train_under(strategy, scaled_training.train_on_shards)
scaled_training.assert_equal(found)
# Both workers saw different halves of the batches, and hold the same weights.
print([float(np.sum(w)) for w in found["accelerated"][1]], "equal")
"""
)

DETERMINISTIC = (
    IMPORT
    + """
tf.config.experimental.enable_op_determinism()
import numpy as np
import scaled_training
found = scaled_training.train_under(tf.distribute.get_strategy())
scaled_training.assert_equal(found)
again = scaled_training.train_under(tf.distribute.get_strategy())
assert found["accelerated"][0] == again["accelerated"][0]
for x, y in zip(found["accelerated"][1], again["accelerated"][1], strict=True):
    np.testing.assert_array_equal(x, y)
print("equal")
"""
)


def test_mirrored_strategy_trains_as_stock():
    assert run_python(MIRRORED).endswith("equal\n")


def test_deterministic_mode_trains_as_stock_and_repeats_every_bit():
    assert run_python(DETERMINISTIC).endswith("equal\n")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_two_workers_train_as_stock():
    """Two processes on the loopback address, each with half of every batch."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    workers = []
    for index in range(2):
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        environment = os.environ | {
            "TF_CONFIG": json.dumps(task),
            "WORKER": str(index),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "",
        }
        workers.append(
            subprocess.Popen(
                [sys.executable, "-c", MULTI_WORKER],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
                cwd=tempfile.gettempdir(),
            )
        )
    try:
        answers = [worker.communicate(timeout=240) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, (_, errors) in zip(workers, answers, strict=True):
        assert worker.returncode == 0, errors[-4000:]
    first, second = (out.splitlines()[-1] for out, _ in answers)
    assert first.endswith("equal")
    assert first == second


def compare(make_optimizer=lambda: None):
    found = {}
    for kind in ("stock", "accelerated"):
        model = scaled_training.build(kind == "accelerated", make_optimizer())
        losses = scaled_training.train(model)
        found[kind] = losses, model.get_weights()
    return found


def test_batches_of_changing_length_train_as_stock(kernel_calls):
    lengths = {x.shape[1] for x, _ in scaled_training.batches()}
    assert len(lengths) > 1
    scaled_training.assert_equal(compare())
    assert kernel_calls


def test_gradient_accumulation_trains_as_stock(kernel_calls):
    def accumulating():
        return keras.optimizers.SGD(0.05, gradient_accumulation_steps=2)

    found = compare(accumulating)
    scaled_training.assert_equal(found)
    assert kernel_calls
    assert found["accelerated"][0] != compare()["accelerated"][0]


@pytest.fixture
def bfloat16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def test_mixed_bfloat16_is_as_near_to_float32_as_stock(bfloat16, kernel_calls):
    rounded = compare()
    assert kernel_calls
    keras.config.set_dtype_policy("float32")
    exact = np.array(scaled_training.train(scaled_training.build(False)))
    errors = {k: np.abs(np.array(v[0]) - exact).max() for k, v in rounded.items()}
    # One unit in the last of bfloat16's 8 bits, where stock is right by chance.
    assert errors["accelerated"] <= 2 * errors["stock"] + 2**-8 * exact.max()
