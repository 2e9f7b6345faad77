"""Keras's layers on each backend, as they are and after `hw3tf.accelerate(model)`.

    python benchmarks/models/backends.py --json backends.json --markdown backends.md

A process per backend and case holds both kinds of a model of one layer; they take
turns. What is timed is a step of `train_on_batch`, or a call of `predict_on_batch`:
Keras's own, compiled as it compiles on that backend. The overhead of a small call of
attention is measured, too.
"""

import json
import os
import pathlib
import statistics
import sys
import time

if not __package__:  # run as a program: what it imports is in the folder above
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

import harness

PROGRAM = "models/backends.py"
BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}
PACKAGES = ("hw3tf", "keras", *BACKENDS.values())
KINDS = ("stock", "accelerated")
ROUNDS = 5
# Name: layer, batch, timesteps, features, units or heads and their size.
CASES = {
    "LSTM": ("LSTM", 64, 256, 128, (128,)),
    "GRU": ("GRU", 64, 256, 128, (128,)),
    "SimpleRNN": ("SimpleRNN", 64, 256, 128, (128,)),
    "attention": ("MultiHeadAttention", 2, 512, 768, (12, 64)),
}
QUICK = (2, 5, 4)


class Worker:
    """Both kinds of a model, on the backend of the process.

    Args:
        case: The case in JSON.
    """

    def __init__(self, case):
        import keras
        import numpy as np

        import hw3tf

        layer, batch, timesteps, features, sizes = json.loads(case)
        inputs = keras.Input((timesteps, features))

        def model():
            made = getattr(keras.layers, layer)
            if layer == "MultiHeadAttention":
                x = made(*sizes)(inputs, inputs)
            else:
                x = made(*sizes, return_sequences=True)(inputs)
            model = keras.Model(inputs, x)
            model.compile(keras.optimizers.SGD(1e-3), "mse")
            return model

        self.models = {kind: model() for kind in KINDS}
        stock, accelerated = self.models.values()
        accelerated.set_weights(stock.get_weights())
        report = hw3tf.accelerate(accelerated)
        self.fused, self.path = report.num_fused, report.path.path
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((batch, timesteps, features), "float32")
        self.y = rng.standard_normal(stock.output_shape[1:], "float32")
        self.y = np.broadcast_to(self.y, (batch, *self.y.shape)).copy()

    def compare(self):
        """The largest difference of outputs, and what computes."""
        import numpy as np

        stock, accelerated = (
            np.asarray(model.predict_on_batch(self.x)) for model in self.models.values()
        )
        error = np.abs(stock - accelerated).max() / np.abs(stock).max()
        return {"difference": float(error), "fused": self.fused, "path": self.path}

    def time(self, kind, training):
        """Seconds of a call."""
        model = self.models[kind]

        def call():
            if training:
                return model.train_on_batch(self.x, self.y)
            return model.predict_on_batch(self.x)

        call()
        start = time.perf_counter()
        call()
        repeats = max(1, round(0.3 / (time.perf_counter() - start)))
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return {"seconds": (time.perf_counter() - start) / repeats}


def measure_case(backend, name, quick):
    layer, *sizes, heads = CASES[name]
    case = (
        layer,
        *(QUICK if quick else sizes),
        [2, 2][: len(heads)] if quick else heads,
    )
    environment = {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    arguments = "models.backends", json.dumps(case)
    with harness.Process(*arguments, environment=environment) as process:
        compared = process.ask("compare")
        if "error" in compared:
            return {"backend": backend, "case": name, "error": compared["error"]}
        results = []
        for training in (False, True):
            rounds = {kind: [] for kind in KINDS}
            for number in range(1 if quick else ROUNDS):
                for kind in harness.in_turn(KINDS, number):
                    answer = process.demand("time", kind=kind, training=training)
                    rounds[kind].append(answer["seconds"])
            best = {kind: min(times) for kind, times in rounds.items()}
            median = {k: statistics.median(times) for k, times in rounds.items()}
            results.append(
                {
                    "training": training,
                    "best": best,
                    "median": median,
                    "ratio": best["stock"] / best["accelerated"],
                }
            )
        return {"backend": backend, "case": name, **compared, "results": results}


def measure(options, command):
    cases = []
    for backend in options.backends.split(","):
        for name in options.cases.split(","):
            harness.say(f"{backend}: {name}")
            cases.append(measure_case(backend, name, options.quick))
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    found = harness.heading(PACKAGES)
    return {**found, "command": command, "threads": threads, "cases": cases}


def rows(results):
    for case in results["cases"]:
        if "error" in case:
            yield [case["backend"], case["case"], case["error"], "", "", ""]
            continue
        for one in case["results"]:
            cells = [
                f"{1e3 * one['best'][k]:.4g} ({1e3 * one['median'][k]:.4g})"
                for k in KINDS
            ]
            what = "training" if one["training"] else "inference"
            name = f"{case['case']}, {what}"
            difference = f"{case['difference']:.0e}"
            ratio = f"{one['ratio']:.2f}x"
            yield [case["backend"], name, *cells, ratio, difference]


def report(results):
    head = ["backend", "layer", "stock, ms", "accelerated, ms", "ratio", "difference"]
    sizes = "; ".join(f"{name}: {case[1:]}" for name, case in CASES.items())
    parts = [
        harness.heading_in_words(results, [results["command"]]),
        harness.table(head, rows(results)),
        f"Best of {ROUNDS} rounds (median). Batch, timesteps, features, units: "
        f"{sizes} (heads). The largest difference of outputs, relative to the largest "
        "number.",
    ]
    return "\n\n".join(parts) + "\n"


def main(argv=None):
    parser = harness.parser(__doc__)
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--cases", default=",".join(CASES))
    options = parser.parse_args(argv)
    harness.publish(
        PROGRAM,
        options,
        lambda: measure(options, harness.command(PROGRAM, argv)),
        report,
    )


if __name__ == "__main__":
    main()
