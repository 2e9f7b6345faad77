"""The time of one call of a model by kind of operation, by TensorFlow's profiler.

    python benchmarks/models/profile.py gpt2-small-1024
    python benchmarks/models/profile.py bert-small-training-512 --stock

Milliseconds by kind of operation, and how busy the processors are. Operations run side
by side: their sum may be more than the time of the call.
"""

import argparse
import collections
import functools
import os
import pathlib
import sys
import tempfile
import time

import numpy as np

if not __package__:  # run as a program: what it imports is in the folder above
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

from models.cases import CASES, build, inputs, shrunk
from models.worker import function, tensors


def milliseconds_by_kind(folder):
    """Dict: kind of operation -> milliseconds in all, number of calls.

    Args:
        folder: What `tf.profiler.experimental.start` was given.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
    space = xplane_pb2.XSpace()
    space.ParseFromString(path.read_bytes())
    found = collections.defaultdict(lambda: [0.0, 0])
    for plane in (p for p in space.planes if "CPU" in p.name):
        for event in (event for line in plane.lines for event in line.events):
            name = plane.event_metadata[event.metadata_id].name
            _, colon, kind = name.rpartition(":")
            if colon and "::" not in name:  # "name/of/node:Kind"
                found[kind][0] += event.duration_ps / 1e9
                found[kind][1] += 1
    return dict(found)


def profile(case, accelerated):
    """Seconds of the best of five calls, share of the processors' time that it took,
    and `milliseconds_by_kind` of one more."""
    import tensorflow as tf

    import hw3tf

    model, given = build(case), tensors(inputs(case, np.random.default_rng(0)))
    if accelerated:
        hw3tf.accelerate(model)
    call = function(case, model)
    if case.generated:  # not by XLA, whose loop is one operation to the profiler
        call = functools.partial(tf.function(model.generate_step), stop_token_ids=None)
    call(given)
    seconds, busy = [], []
    for _ in range(5):
        start, before = time.perf_counter(), time.process_time()
        call(given)
        seconds.append(time.perf_counter() - start)
        used = time.process_time() - before
        busy.append(used / seconds[-1] / len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            call(given)
        return min(seconds), float(np.median(busy)), milliseconds_by_kind(folder)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--stock", action="store_true", help="not accelerated")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--most", type=int, default=12, help="rows")
    args = parser.parse_args(argv)
    case = shrunk(CASES[args.case]) if args.quick else CASES[args.case]
    seconds, busy, kinds = profile(case, not args.stock)
    print(f"{args.case}: {1e3 * seconds:.1f} ms, processors busy {busy:.0%}")
    rows = sorted(kinds.items(), key=lambda row: -row[1][0])
    for kind, (milliseconds, calls) in rows[: args.most]:
        print(f"{kind:24} {milliseconds:10.1f} ms {calls:6} calls")
    return kinds


if __name__ == "__main__":
    main()
