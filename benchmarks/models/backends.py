"""Layers and models on each backend, as they are and after `hw3tf.accelerate(model)`.

    python benchmarks/models/backends.py --json backends.json --markdown backends.md

A process per backend and case holds both kinds of a model of one layer of Keras, or of
a model of KerasHub; they take turns. What is timed is a step of `train_on_batch`, or a
call of `predict_on_batch`: Keras's own, compiled as it compiles on that backend.
"""

import pathlib
import statistics
import sys
import time

if not __package__:  # run as a program: what it imports is in the folder above
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

import harness
from models import cases as hub

PROGRAM = "models/backends.py"
BACKENDS = ("tensorflow", "jax", "torch")
PACKAGES = ("hw3tf", "keras", *BACKENDS)
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
# Models of KerasHub, as in models/cases.py, for inference.
MODELS = ("bert-base-512", "gpt2-small-1024", "llama-like-2048")


class Worker:
    """Both kinds of a model, on the backend of the process.

    Args:
        name: Of `CASES` or `MODELS`.
        quick: "quick" for tiny sizes.
    """

    def __init__(self, name, quick):
        import keras
        import numpy as np

        import hw3tf

        rng = np.random.default_rng(0)
        make = of_hub if name in MODELS else of_one_layer
        build, self.x, shape = make(name, quick == "quick", rng)
        self.models = {kind: build(keras) for kind in KINDS}
        stock, accelerated = self.models.values()
        accelerated.set_weights(stock.get_weights())
        report = hw3tf.accelerate(accelerated)
        self.fused, self.path = report.num_fused, report.path.path
        self.y = rng.standard_normal(shape, "float32") if shape else None

    def compare(self):
        """The largest difference of outputs, and what computes."""
        import keras
        import numpy as np

        stock, accelerated = (
            keras.tree.flatten(model.predict_on_batch(self.x))
            for model in self.models.values()
        )
        error = max(
            np.abs(x - y).max() / np.abs(x).max()
            for x, y in zip(stock, accelerated, strict=True)
        )
        return {"difference": float(error), "fused": self.fused, "path": self.path}

    def time(self, kind, training):
        """Seconds of a call."""
        model = self.models[kind]

        def call():
            if training:
                return model.train_on_batch(self.x, self.y)
            return model.predict_on_batch(self.x)

        start = time.perf_counter()
        call()
        first = time.perf_counter() - start
        repeats = max(1, round(0.3 / first))
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return {"seconds": (time.perf_counter() - start) / repeats}


def of_one_layer(name, quick, rng):
    """What makes the model, its inputs, the shape of its outputs."""
    layer, batch, timesteps, features, sizes = CASES[name]
    if quick:
        batch, timesteps, features = QUICK
        sizes = (2, 2)[: len(sizes)]
    attention = layer == "MultiHeadAttention"

    def build(keras):
        inputs = keras.Input((timesteps, features))
        options = {} if attention else {"return_sequences": True}
        made = getattr(keras.layers, layer)(*sizes, **options)
        model = keras.Model(inputs, made(*[inputs] * (1 + attention)))
        model.compile(keras.optimizers.SGD(1e-3), "mse")
        return model

    x = rng.standard_normal((batch, timesteps, features), "float32")
    return build, x, (batch, timesteps, features if attention else sizes[0])


def of_hub(name, quick, rng):
    """The same for a model that is not trained: without the shape."""
    case = hub.CASES[name]
    case = hub.shrunk(case) if quick else case
    return lambda keras: hub.build(case), hub.inputs(case, rng), None


def measure_case(backend, name, quick):
    environment = {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    arguments = "models.backends", name, "quick" if quick else "whole"
    with harness.Process(*arguments, environment=environment) as process:
        compared = process.ask("compare")
        if "error" in compared:
            return {"backend": backend, "case": name, "error": compared["error"]}
        results = []
        for training in (False,) if name in MODELS else (False, True):
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
            if name in MODELS and backend not in options.models.split(","):
                continue
            harness.say(f"{backend}: {name}")
            cases.append(measure_case(backend, name, options.quick))
    return {**harness.heading(PACKAGES), "command": command, "cases": cases}


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
    head = [
        "backend",
        "layer or model",
        "stock, ms",
        "accelerated, ms",
        "ratio",
        "difference",
    ]
    sizes = "; ".join(f"{name}: {case[1:]}" for name, case in CASES.items())
    parts = [
        harness.heading_in_words(results, [results["command"]]),
        harness.table(head, rows(results)),
        f"Best of {ROUNDS} rounds (median). Batch, timesteps, features, units: "
        f"{sizes} (heads). Models: KerasHub's, as in models/cases.py. The largest "
        "difference of outputs, relative to the largest number.",
    ]
    return "\n\n".join(parts) + "\n"


def main(argv=None):
    parser = harness.parser(__doc__)
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--cases", default=",".join((*CASES, *MODELS)))
    parser.add_argument(
        "--models", default="jax,torch", help="backends on which models are measured"
    )
    options = parser.parse_args(argv)
    command = harness.command(PROGRAM, argv)
    return harness.publish(PROGRAM, options, lambda: measure(options, command), report)


if __name__ == "__main__":
    main()
