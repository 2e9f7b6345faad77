"""Training on IMDB with the fused kernel and with Keras's attention: time per epoch,
and peak memory against the length of the reviews.

    TFDS_DATA_DIR=... python benchmarks/imdb/training.py --json training.json

Every measurement runs in a process of its own, one at a time, the two kinds of
attention in turn. An epoch is one of tutorial 4 in its default configuration. For
the memory, ten training steps on batches of 32 reviews that are padded to the full
length.
"""

import pathlib
import resource
import sys
import time
from dataclasses import replace

if not __package__:  # run as a program: what it imports is in the folder above
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

import harness

PROGRAM = "imdb/training.py"
KINDS = ("fused", "keras")
PACKAGES = ("hw3tf", "keras", "tensorflow")


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Worker:
    """The process of one measurement."""

    def epoch(self, attention, data, quick):
        """One training epoch: seconds, memory and accuracy."""
        from hw3tf.course import data as course_data
        from hw3tf.course import sentiment
        from hw3tf.course.sentiment.model import QUICK

        settings = replace(sentiment.Settings(), attention=attention, epochs=1)
        if quick:
            settings = replace(settings, **QUICK)
        reviews = course_data.load_reviews(data)
        _, _, training, validation, _ = sentiment.load(reviews, settings)
        model = sentiment.build_classifier(settings)
        sentiment.compile_classifier(model, training, settings)
        history, seconds = sentiment.fit(model, training, settings, validation)
        accuracy = history["val_accuracy"][0]
        return {"seconds": seconds[0], "accuracy": accuracy, "peak_mib": peak_mib()}

    def steps(self, attention, length):
        """Ten training steps at full length: seconds per step, and memory."""
        import numpy as np

        from hw3tf.course import sentiment

        settings = sentiment.Settings(attention=attention, sequence_length=length)
        model = sentiment.build_classifier(settings)
        rng = np.random.default_rng(0)
        tokens = rng.integers(1, settings.vocab_size, (320, length))
        floats = rng.standard_normal((320, length, 6), "float32")
        labels = rng.integers(0, 2, 320).astype("float32")
        model.compile("adam", "binary_crossentropy")
        model.train_on_batch([tokens[:32], floats[:32]], labels[:32])
        start = time.perf_counter()
        model.fit([tokens, floats], labels, batch_size=32, verbose=0)
        return {
            "length": length,
            "seconds": (time.perf_counter() - start) / 10,
            "peak_mib": peak_mib(),
        }


def measure(options, command):
    def ask(do, **message):
        return harness.ask_once("imdb.training", do=do, **message)

    epochs = {kind: [] for kind in KINDS}
    for number in range(options.rounds):
        for kind in harness.in_turn(KINDS, number):
            what = {"data": options.data, "quick": options.quick}
            epochs[kind].append(ask("epoch", attention=kind, **what))
    steps = [
        {kind: ask("steps", attention=kind, length=length) for kind in KINDS}
        for length in options.lengths
    ]
    how = {"command": command, "data": options.data, "epochs": epochs, "steps": steps}
    return harness.heading(PACKAGES) | how


def report(results):
    rows = []
    for kind, epochs in results["epochs"].items():
        seconds = [epoch["seconds"] for epoch in epochs]
        peak = max(epoch["peak_mib"] for epoch in epochs)
        every = ", ".join(f"{s:.1f}" for s in seconds)
        rows.append([kind, f"{min(seconds):.1f}", every, f"{peak:,.0f}"])
    head = ["attention", "best epoch, s", "all epochs, s", "peak memory, MiB"]
    parts = [
        harness.heading_in_words(results, [results["command"]]),
        harness.table(head, rows),
        "A step on 32 reviews that are padded to the full length:",
    ]
    rows = []
    for step in results["steps"]:
        cells = [
            f"{1e3 * step[kind]['seconds']:.0f}, {step[kind]['peak_mib']:,.0f}"
            for kind in KINDS
        ]
        rows.append([f"{step[KINDS[0]]['length']:,}", *cells])
    head = ["length", *(f"{kind}: ms, peak MiB" for kind in KINDS)]
    return "\n\n".join([*parts, harness.table(head, rows)]) + "\n"


def main(argv=None):
    parser = harness.parser(__doc__)
    add = parser.add_argument
    add("--data", choices=["imdb", "sample"], default="imdb")
    add("--rounds", type=int, default=2, help="epochs of each kind")
    add("--lengths", type=int, nargs="*", default=[512, 1024, 2048])
    options = parser.parse_args(argv)
    if min([options.rounds, *options.lengths]) < 1:
        parser.error("--rounds and --lengths must be at least 1")
    if options.quick:
        options.data, options.rounds, options.lengths = "sample", 1, [16]
    command = harness.command(PROGRAM, argv)
    return harness.publish(PROGRAM, options, lambda: measure(options, command), report)


if __name__ == "__main__":
    main()
