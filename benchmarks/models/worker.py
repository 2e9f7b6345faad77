"""The process of one case of models/run.py: `harness.py models.worker CASE`.

CASE is the case in JSON. It times both kinds in turn and says how far their results
differ, or measures the peak of memory of one call of a kind, beyond what was in use
before.
"""

import functools
import json
import time

import numpy as np
from harness import forget_peak, give_back, in_turn, resident
from models.cases import Case, beginning, build, inputs, labels

MIN_ROUNDS = 3
SECONDS_OF_A_TURN = 0.3


def tensors(given):
    import tensorflow as tf

    if isinstance(given, dict):
        return {name: tf.constant(x) for name, x in given.items()}
    return tf.constant(given)


def function(case, model):
    """One call, in a graph: it keeps the attention with which it is first called."""
    import tensorflow as tf

    if case.generated:
        return functools.partial(model.make_generate_function(), stop_token_ids=None)
    if not case.training:
        return tf.function(lambda x: model(x, training=False))
    wanted = tf.constant(labels(case))
    return tf.function(
        lambda x: model.train_step((x, wanted[: tf.nest.flatten(x)[0].shape[0]]))
    )


def results(case, model, given):
    """What both kinds must agree on: outputs, of training gradients without dropout."""
    import tensorflow as tf

    @tf.function
    def run(x):
        if not case.training:
            return tf.nest.flatten(model(x, training=False))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=False) ** 2)
        found = tape.gradient(loss, model.trainable_weights)
        return [tf.convert_to_tensor(g) for g in found if g is not None]

    return [x.numpy() for x in run(given)]


def difference(got, expected):
    """The largest, relative to the largest number."""
    largest = max(np.abs(y).max() for y in expected)
    errors = (np.abs(x - y).max() for x, y in zip(got, expected, strict=True))
    return float(max(errors) / largest)


def take_turns(calls, given, seconds):
    """Seconds per call, a number per round and kind; the order changes each round."""
    found = {name: [] for name in calls}
    start = time.perf_counter()
    calls["stock"](given)
    repeats = max(1, round(SECONDS_OF_A_TURN / (time.perf_counter() - start)))
    start, number = time.perf_counter(), 0
    while number < MIN_ROUNDS or time.perf_counter() - start < seconds:
        for name in in_turn(calls, number):
            turn = time.perf_counter()
            for _ in range(repeats):
                calls[name](given)
            found[name].append((time.perf_counter() - turn) / repeats)
        number += 1
    return found


class Worker:
    def __init__(self, case):
        self.case = Case(**json.loads(case))

    def times(self, seconds):
        """Seconds of every round, the layers that are fused, and the difference."""
        import hw3tf

        case, model = self.case, build(self.case)
        given = tensors(inputs(case, np.random.default_rng(0)))
        expected = results(case, model, given)
        weights = model.get_weights() if case.training else None
        calls = {"stock": function(case, model)}
        calls["stock"](given)  # a step, in training: it moves the weights
        report = hw3tf.accelerate(model)
        if case.training:
            model.set_weights(weights)
        answer = {
            "fused": [report.num_fused, len(report.layers)],
            "difference": difference(results(case, model, given), expected),
        }
        calls["accelerated"] = function(case, model)
        calls["accelerated"](given)
        return answer | {"times": take_turns(calls, given, seconds)}

    def peak(self, kind):
        """MiB; None where the system does not tell."""
        import hw3tf

        case, model = self.case, build(self.case)
        if kind == "accelerated":
            hw3tf.accelerate(model)
        given = inputs(case, np.random.default_rng(0))
        call = function(case, model)
        call(tensors(beginning(case, given)))
        given = tensors(given)
        give_back()
        if not forget_peak():
            return {"peak_mib": None}
        before = resident()
        call(given)
        return {"peak_mib": (resident("VmHWM") - before) / 2**20}
