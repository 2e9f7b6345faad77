"""Two builds of the kernels, call by call in turn: what a change is worth.

    python benchmarks/compare_builds.py OLD NEW --cases 'forward-*,dense-64' --threads 2

OLD and NEW are folders that hold a built `hw3tf`: that of an environment's packages,
or what `pip install --no-deps --target OLD .` filled. Each build has a process of its
own, as two libraries of one name do not fit into one; both sleep except in their
turns, of a few milliseconds each, so that what else happens on the machine happens to
both. Nothing but `hw3tf._core` is called, on the inputs of the benchmarks of attention
and recurrences, in memory aligned as TensorFlow's is. The last column says whether both
gave the same bits.
"""

import dataclasses
import fnmatch
import importlib.machinery
import importlib.util
import pathlib
import statistics
import time
import zlib

import harness
import numpy as np
from attention import cases as attention_cases
from harness import Process
from recurrence import cases as recurrence_cases
from recurrence.layers import cases as layer_cases

PROGRAM = "compare_builds.py"
# Shorter turns would time the waking of the process, which the first call, not
# counted, takes on itself.
SECONDS_OF_A_TURN = 0.005


def all_cases():
    attention = [*attention_cases.table(), *attention_cases.curve()]
    attention += attention_cases.kernel_alone()
    layers = [*layer_cases.table(), *layer_cases.curve()]
    layers = [case for case in layers if len(case.weight_shapes) == 1]
    named = {case.name: case for case in attention + layers}
    return named | recurrence_cases.CASES


def core_in(folder):
    """The file of `hw3tf._core`."""
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    found = [
        path
        for path in pathlib.Path(folder, "hw3tf").glob("_core*")
        if path.name.endswith(suffixes)
    ]
    if not found:
        raise SystemExit(f"no built hw3tf in {folder}")
    return found[0]


def load_core(folder):
    """`hw3tf._core` alone: the package would load TensorFlow, and look for itself."""
    spec = importlib.util.spec_from_file_location("_core", core_in(folder))
    core = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(core)
    return core


def aligned(x):
    """A copy that begins at a multiple of 64 bytes, as TensorFlow's tensors do."""
    space = np.empty(x.nbytes + 64, np.uint8)
    first = -space.ctypes.data % 64
    copy = space[first : first + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


def prepare(core, name, quick):
    """The call of a case, without arguments; it returns a tuple of arrays."""
    case = all_cases()[name]
    if isinstance(case, recurrence_cases.Case):
        case = recurrence_cases.shrunk(case) if quick else case
        arrays = [aligned(x) for x in recurrence_cases.make_arrays(case)]
        options = recurrence_cases.kernel_options(case)
        return lambda: (core.integer_rnn(*arrays, **options),)
    if isinstance(case, layer_cases.Case):
        from recurrence.layers.peers.tensorflow import Hw3tfCore

        case = layer_cases.shrunk(case) if quick else case
        inputs = layer_cases.make_inputs(case)
        weights = [tuple(map(aligned, inputs.weights[0]))]
        arrays = {"inputs": aligned(inputs.inputs), "weights": weights}
        if case.training:
            arrays["grad_outputs"] = aligned(inputs.grad_outputs)
        inputs = dataclasses.replace(inputs, **arrays)
    else:
        from attention.peers.tensorflow import Hw3tfCore

        case = attention_cases.shrunk(case) if quick else case
        inputs = {k: aligned(x) for k, x in attention_cases.make_inputs(case).items()}
    peer = Hw3tfCore.__new__(Hw3tfCore)
    peer.core = core
    return peer.prepare(case, inputs, "")


class Worker:
    """The process of one build and one case."""

    def __init__(self, folder, name, threads, quick):
        core = load_core(folder)
        core.set_num_threads(int(threads))
        self.call = prepare(core, name, quick == "True")

    def bits(self):
        return {"bits": zlib.crc32(b"".join(x.tobytes() for x in self.call()))}

    def turn(self):
        self.call()
        best, end = float("inf"), time.perf_counter() + SECONDS_OF_A_TURN
        while time.perf_counter() < end or best == float("inf"):
            start = time.perf_counter()
            self.call()
            best = min(best, time.perf_counter() - start)
        return {"best": best}


def compare(folders, name, threads, seconds, quick):
    """A case: best times in ms, their ratio, and the median over the turns."""
    arguments = (name, threads, quick)
    builds = [Process("compare_builds", folder, *arguments) for folder in folders]
    old, new = times = [], []
    with builds[0], builds[1]:
        bits = [build.demand("bits")["bits"] for build in builds]
        end = time.perf_counter() + seconds
        while not old or time.perf_counter() < end:
            for i in harness.in_turn((0, 1), len(old)):
                times[i].append(builds[i].demand("turn")["best"])
    ratios = [a / b for a, b in zip(old, new, strict=True)]
    return {
        "name": name,
        "old": min(old),
        "new": min(new),
        "ratio": min(old) / min(new),
        "median": statistics.median(ratios),
        "turns": len(ratios),
        "same_bits": bits[0] == bits[1],
    }


def report(results):
    head = ["case", "old, ms", "new, ms", "best / best", "median", "turns", "bits"]
    rows = [
        [
            case["name"],
            *(f"{1e3 * case[build]:.3f}" for build in ("old", "new")),
            *(f"{case[ratio]:.3f}" for ratio in ("ratio", "median")),
            str(case["turns"]),
            "same" if case["same_bits"] else "other",
        ]
        for case in results["cases"]
    ]
    parts = [
        harness.heading_in_words(results, [results["command"]]),
        "Times of old over times of new: more than 1 is a gain.",
        harness.table(head, rows),
    ]
    return "\n\n".join(parts) + "\n"


def main(argv=None):
    parser = harness.parser(__doc__)
    add = parser.add_argument
    add("old", help="folder that holds hw3tf")
    add("new", help="folder that holds hw3tf")
    add("--cases", default="forward-*,training-*", help="patterns, with commas")
    add("--threads", type=int, default=2)
    add("--seconds", type=float, default=4.0, help="of a case")
    options = parser.parse_args(argv)
    if options.threads < 1 or not 0 <= options.seconds < float("inf"):
        parser.error("--threads must be at least 1, and --seconds at least 0")
    patterns = options.cases.split(",")
    folders = (options.old, options.new)
    for folder in folders:
        core_in(folder)
    names = [n for n in all_cases() if any(fnmatch.fnmatch(n, p) for p in patterns)]
    if not names:
        parser.error(f"no case is named {options.cases}: see --list of the programs")
    seconds = 0.0 if options.quick else options.seconds
    how = (options.threads, seconds, options.quick)

    def measure():
        cases = [compare(folders, name, *how) for name in names]
        command = harness.command(PROGRAM, argv)
        return harness.heading(["numpy"]) | {"command": command, "cases": cases}

    return harness.publish(PROGRAM, options, measure, report)


if __name__ == "__main__":
    main()
