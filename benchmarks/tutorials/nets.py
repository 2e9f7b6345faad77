"""The recurrent net of tutorial 4 with Keras's GRU and with the fused one.

    python benchmarks/tutorials/nets.py --json nets.json

It is built twice, with the same weights. A training step (forward, gradients and the
optimizer) and a prediction of a batch are timed in turn, on random inputs of the
tutorial's sizes; the result says how far the predictions differ. Tutorial 1 times its
own nets.
"""

import contextlib
import dataclasses
import os
import pathlib
import statistics
import sys
import time

if not __package__:  # run as a program: what it imports is in the folder above
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

import harness
import numpy as np

PROGRAM = "tutorials/nets.py"
KINDS = ("keras.layers.GRU", "hw3tf.layers.GRU")
PACKAGES = ("hw3tf", "keras", "tensorflow")


def reviews(settings):
    """Inputs and labels of a batch of tutorial 4, of full length."""
    rng = np.random.default_rng(0)
    shape = (settings.batch_size, settings.sequence_length)
    x = rng.integers(1, settings.vocab_size, shape), rng.random((*shape, 3), "float32")
    return x, rng.integers(0, 2, (settings.batch_size, 1)).astype("float32")


def nets(quick):
    """Name -> (function that builds and compiles a model, inputs, labels)."""
    import keras

    fourth = harness.load_tutorial("04_imdb_sentiment")
    settings = dataclasses.replace(fourth.Settings(), model="gru")
    if quick:
        settings = dataclasses.replace(settings, sequence_length=9, batch_size=3)

    def compiled():
        model = fourth.build_model(settings)
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(), loss, jit_compile=False)
        return model

    return {"tutorial 4, bidirectional GRU": (compiled, *reviews(settings))}


@contextlib.contextmanager
def stock_layer(kind):
    """While it lasts, the tutorials' nets are built with this kind of GRU."""
    import keras

    import hw3tf

    fused = hw3tf.layers.GRU
    hw3tf.layers.GRU = keras.layers.GRU if kind == KINDS[0] else fused
    try:
        yield
    finally:
        hw3tf.layers.GRU = fused


def measure_net(build, x, y, seconds):
    """Seconds of a training step and of a prediction by kind, best and median, and the
    largest difference of the predictions."""
    import tensorflow as tf

    models = {}
    for kind in KINDS:
        with stock_layer(kind):
            models[kind] = build()
    models[KINDS[1]].set_weights(models[KINDS[0]].get_weights())
    x, y = tf.nest.map_structure(tf.constant, (x, y))
    found = {k: m(x, training=False).numpy() for k, m in models.items()}
    largest = np.abs(found[KINDS[0]]).max()
    difference = np.abs(found[KINDS[0]] - found[KINDS[1]]).max() / largest

    def calls(model):
        step = tf.function(lambda: model.train_step((x, y)))
        predict = tf.function(lambda: model(x, training=False))
        return {"training": step, "inference": predict}

    functions = {kind: calls(model) for kind, model in models.items()}
    result = {"difference": float(difference)}
    for what in ("training", "inference"):
        times = {kind: [] for kind in KINDS}
        for kind in KINDS:
            functions[kind][what]()  # traces
        end, number = time.perf_counter() + seconds, 0
        while number < 3 or time.perf_counter() < end:
            for kind in harness.in_turn(KINDS, number):
                start = time.perf_counter()
                functions[kind][what]()
                times[kind].append(time.perf_counter() - start)
            number += 1
        result[what] = {
            kind: {"best": min(t), "median": statistics.median(t)}
            for kind, t in times.items()
        }
    return result


def measure(options, command):
    found = {}
    chosen = nets(options.quick)
    progress = harness.Progress(len(chosen))
    for name, (build, x, y) in chosen.items():
        found[name] = measure_net(build, x, y, 0.1 if options.quick else 10)
        progress.step(name)
    heading = harness.heading(PACKAGES)
    return heading | {"command": command, "quick": options.quick, "nets": found}


def report(results):
    rows = []
    for name, net in results["nets"].items():
        for what in ("training", "inference"):
            stock, fused = (net[what][kind]["best"] for kind in KINDS)
            rows.append(
                [f"{name}, {'a training step' if what == 'training' else 'a batch'}"]
                + [f"{1e3 * stock:.1f} ms", f"{1e3 * fused:.1f} ms"]
                + [f"{stock / fused:.1f}x", f"{net['difference']:.0e}"]
            )
    head = ["net", *KINDS, "ratio", "difference"]
    parts = [harness.heading_in_words(results, [results["command"]])]
    if results["quick"]:
        parts.append("**Tiny sizes (`--quick`): the figures mean nothing.**")
    parts.append(
        "Best of all turns. The difference is that of the predictions with the same "
        "weights, relative to the largest."
    )
    return "\n\n".join([*parts, harness.table(head, rows)]) + "\n"


def main(argv=None):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    options = harness.parser(__doc__).parse_args(argv)
    harness.publish(
        PROGRAM,
        options,
        lambda: measure(options, harness.command(PROGRAM, argv)),
        report,
    )


if __name__ == "__main__":
    main()
