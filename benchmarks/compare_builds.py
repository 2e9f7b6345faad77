"""Two builds of the kernels, call by call in turn: what a change is worth.

    python benchmarks/compare_builds.py OLD NEW --cases 'forward-*,dense-64' --threads 2

OLD and NEW are folders that hold a built `hw3tf`: that of an environment's packages,
or what `pip install --no-deps --target OLD .` filled. Each build has a process of its
own, as two libraries of one name do not fit into one; both sleep except in their
turns, of a few milliseconds each, so that what else happens on the machine happens to
both. Nothing but `hw3tf._core` is called, on the inputs of attention.py and
recurrence.py, in memory aligned as TensorFlow's is. The last column says whether both
gave the same bits.
"""

import argparse
import fnmatch
import importlib
import importlib.machinery
import importlib.util
import json
import pathlib
import statistics
import subprocess
import sys
import time
import zlib

import attention_cases
import numpy as np
import recurrence_cases
from attention_report import table

# Shorter turns would time the waking of the process, which the first call, not
# counted, takes on itself.
SECONDS_OF_A_TURN = 0.005


def all_cases():
    attention = [*attention_cases.table(), *attention_cases.curve()]
    attention += attention_cases.kernel_alone()
    return {case.name: case for case in attention} | recurrence_cases.CASES


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
    room = np.empty(x.nbytes + 64, np.uint8)
    first = -room.ctypes.data % 64
    copy = room[first : first + x.nbytes].view(x.dtype).reshape(x.shape)
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
    from attention_tensorflow import Hw3tfCore

    case = attention_cases.shrunk(case) if quick else case
    inputs = {k: aligned(x) for k, x in attention_cases.make_inputs(case).items()}
    peer = Hw3tfCore.__new__(Hw3tfCore)
    peer.core = core
    return peer.prepare(case, inputs, "")


def work(folder, name, threads, quick):
    """The process of one build: a turn per line on stdin."""
    core = load_core(folder)
    core.set_num_threads(int(threads))
    call = prepare(core, name, quick == "quick")
    print(zlib.crc32(b"".join(x.tobytes() for x in call())), flush=True)
    for _ in sys.stdin:
        call()
        best, end = float("inf"), time.perf_counter() + SECONDS_OF_A_TURN
        while time.perf_counter() < end or best == float("inf"):
            start = time.perf_counter()
            call()
            best = min(best, time.perf_counter() - start)
        print(json.dumps(best), flush=True)


class Build:
    """A worker process."""

    def __init__(self, folder, name, threads, quick):
        mode = "quick" if quick else "full"
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--work", folder, name, str(threads), mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.times = []
        self.bits = self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.end()
            raise SystemExit("a build ended; see above")
        return json.loads(line)

    def turn(self):
        print(file=self.process.stdin, flush=True)
        self.times.append(self._answer())

    def end(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def compare(folders, name, threads, seconds, quick):
    """The row of a case: best times, their ratio, and the median over the turns."""
    old, new = builds = [Build(folder, name, threads, quick) for folder in folders]
    end = time.perf_counter() + seconds
    while not old.times or time.perf_counter() < end:
        # Who begins takes turns, too.
        for build in builds if len(old.times) % 2 else builds[::-1]:
            build.turn()
    for build in builds:
        build.end()
    best_old, best_new = min(old.times), min(new.times)
    ratios = [a / b for a, b in zip(old.times, new.times, strict=True)]
    return [
        name,
        f"{1e3 * best_old:.3f}",
        f"{1e3 * best_new:.3f}",
        f"{best_old / best_new:.3f}",
        f"{statistics.median(ratios):.3f}",
        str(len(ratios)),
        "same" if old.bits == new.bits else "other",
    ]


HEAD = ["case", "old, ms", "new, ms", "best / best", "median", "turns", "bits"]


def main(argv=None):
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["--work"]:
        return work(*argv[1:])
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog=__doc__.split("\n\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("old", help="folder that holds hw3tf")
    add("new", help="folder that holds hw3tf")
    add("--cases", default="forward-*,training-*", help="patterns, with commas")
    add("--threads", type=int, default=2)
    add("--seconds", type=float, default=4.0, help="of a case")
    add("--quick", action="store_true", help="tiny sizes, one turn")
    options = parser.parse_args(argv)
    if options.threads < 1 or not 0 <= options.seconds < float("inf"):
        parser.error("--threads must be at least 1, and --seconds at least 0")
    patterns = options.cases.split(",")
    for folder in (options.old, options.new):
        core_in(folder)
    names = [n for n in all_cases() if any(fnmatch.fnmatch(n, p) for p in patterns)]
    if not names:
        parser.error(f"no case is named {options.cases}: see --list of the programs")
    seconds = 0.0 if options.quick else options.seconds
    rows = [
        compare((options.old, options.new), n, options.threads, seconds, options.quick)
        for n in names
    ]
    print("Times of old over times of new: more than 1 is a gain.\n")
    print(table(HEAD, rows))
    return rows


if __name__ == "__main__":
    main()
