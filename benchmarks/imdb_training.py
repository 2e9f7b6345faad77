"""Training on IMDB with the fused kernel and with Keras's attention: time per epoch,
and peak memory against the length of the reviews.

    TFDS_DATA_DIR=... python benchmarks/imdb_training.py

Every measurement runs in a process of its own, one at a time, the two kinds of
attention in turn. An epoch is one of tutorial 4 in its default configuration. For
the memory, ten training steps on batches of 32 reviews that are padded to the full
length.
"""

import argparse
import importlib.util
import json
import pathlib
import resource
import subprocess
import sys
import time
from dataclasses import replace

TUTORIAL = pathlib.Path(__file__).parents[1] / "tutorials/04_imdb_sentiment.py"
KINDS = ("fused", "keras")


def load_tutorial():
    spec = importlib.util.spec_from_file_location("tutorial", TUTORIAL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["tutorial"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def measure_epoch(attention, data):
    """One training epoch: {"seconds", "peak_mib", "accuracy"}."""
    from hw3tf.course import sentiment
    from hw3tf.course.data import load_reviews

    tutorial = load_tutorial()
    settings = replace(tutorial.Settings(), attention=attention, epochs=1)
    reviews = load_reviews(data)
    _, _, training, validation, _ = sentiment.load(reviews, settings)
    model = tutorial.build_model(settings)
    tutorial.compile_model(model, training, settings)
    history, seconds = sentiment.fit(model, training, settings, validation)
    return {"seconds": seconds[0], "accuracy": history["val_accuracy"][0]}


def measure_steps(attention, length):
    """Ten training steps at full length: {"seconds"} per step."""
    import numpy as np

    tutorial = load_tutorial()
    settings = replace(
        tutorial.Settings(), attention=attention, epochs=1, sequence_length=length
    )
    model = tutorial.build_model(settings)
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, settings.vocab_size, (320, length))
    floats = rng.standard_normal((320, length, 3), "float32")
    labels = rng.integers(0, 2, 320).astype("float32")
    model.compile("adam", "binary_crossentropy")
    model.train_on_batch([tokens[:32], floats[:32]], labels[:32])
    start = time.perf_counter()
    model.fit([tokens, floats], labels, batch_size=32, verbose=0)
    return {"seconds": (time.perf_counter() - start) / 10}


def in_a_process(*arguments):
    command = [sys.executable, __file__, "--worker", *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["imdb", "sample"], default="imdb")
    parser.add_argument("--rounds", type=int, default=2, help="epochs of each kind")
    parser.add_argument("--lengths", type=int, nargs="*", default=[512, 1024, 2048])
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if min([args.rounds, *args.lengths]) < 1:
        parser.error("--rounds and --lengths must be at least 1")
    if args.worker:
        what, attention, of = args.worker
        result = (
            measure_epoch(attention, of)
            if what == "epoch"
            else measure_steps(attention, int(of))
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("\n" + json.dumps({**result, "peak_mib": peak}))
        return

    epochs = {kind: [] for kind in KINDS}
    for _ in range(args.rounds):
        for kind in KINDS:
            epochs[kind].append(in_a_process("epoch", kind, args.data))
    print("| attention | best epoch, s | all epochs, s | peak memory, MiB |")
    print("| --- | --- | --- | --- |")
    for kind in KINDS:
        seconds = [e["seconds"] for e in epochs[kind]]
        peak = max(e["peak_mib"] for e in epochs[kind])
        every = ", ".join(f"{s:.1f}" for s in seconds)
        print(f"| {kind} | {min(seconds):.1f} | {every} | {peak:.0f} |")
    print("\n| length | " + " | ".join(f"{k}: ms/step, peak MiB" for k in KINDS) + " |")
    print("| --- | --- | --- |")
    for length in args.lengths:
        cells = []
        for kind in KINDS:
            result = in_a_process("steps", kind, length)
            cells.append(f"{1e3 * result['seconds']:.0f}, {result['peak_mib']:.0f}")
        print(f"| {length} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
