"""Accelerated models under strategies, accumulation, mixed precision, changing lengths
and determinism: each trains a few steps and is compared with stock Keras."""

import pathlib

import keras
import numpy as np
import pytest
import scaled_training
from checks import run_python
from workers import run_workers

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


def test_two_workers_train_as_stock(tmp_path):
    """Two processes on the loopback address, each with half of every batch."""
    outputs = run_workers(MULTI_WORKER, tmp_path)
    first, second = (output.splitlines()[-1] for output in outputs)
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
