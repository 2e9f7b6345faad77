"""64 threads call everything at once, in mixed sizes; then memory must not grow.

    python tests/helpers/stress.py --seconds 120

Every result is compared, bit for bit, with that of the same call alone on one thread.
After that, 100,000 calls from one thread: the resident set may not grow by more than
noise. The kernels take no call for too small for their threads, and count what they
do: most passes must want the pool, and some must get it.
"""

import argparse
import collections
import ctypes
import faulthandler
import os
import sys
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from hw3tf import _core, ops

THREADS = 64
CALLS = 100_000
MOST_GROWTH = 8  # MiB; an output leaked by every third call would be 16
SIZES = 8
PATHS = 16  # kTestPaths


class PathCounts(ctypes.Structure):
    """As in csrc/kernels/runtime/test_hooks.h."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("calls", "wanted_threads", "on_threads", "tasks")
    ]


class Hooks(ctypes.Structure):
    """The first members of TestHooks, there."""

    _fields_ = [
        ("always_threads", ctypes.c_int64),
        ("meet", ctypes.c_int64),
        ("counts", ctypes.POINTER(PathCounts)),
    ]


def kernels_hooks():
    """Those of the library that this process has loaded."""
    with open("/proc/self/maps") as file:
        paths = {x.split()[-1] for x in file if "libhw3tf_kernels" in x}
    (path,) = paths
    return Hooks.in_dll(ctypes.CDLL(path), "_ZN5hw3tf10test_hooksE")


class Counting:
    """Inside, calls of any size run on threads, and are counted."""

    def __init__(self, name):
        self.name = name
        self.counts = (PathCounts * PATHS)()
        self.hooks = kernels_hooks()

    def __enter__(self):
        self.hooks.always_threads = 1
        self.hooks.counts = ctypes.cast(self.counts, ctypes.POINTER(PathCounts))
        return self

    def __exit__(self, *error):
        self.hooks.counts = None
        self.hooks.always_threads = 0

    def total(self, member):
        return sum(getattr(x, member) for x in self.counts)

    def reached_the_pool(self):
        """Whether most passes wanted threads, and some got them; prints how many."""
        calls, wanted, got, tasks = map(
            self.total, ("calls", "wanted_threads", "on_threads", "tasks")
        )
        print(f"path {self.name}: {calls} cases, {got} on threads, ", end="")
        print(f"{wanted} cut, {tasks} tasks")
        return 2 * wanted > calls and got > 0


def attention_arrays(rng, i):
    """query, key, value of the i-th size; some grouped, some of one key."""
    kv_heads = 1 + i % 2
    batch, queries, keys = 1 + i % 3, 1 + 17 * i, 1 + 23 * (SIZES - 1 - i)
    size = 8 + 3 * i

    def normal(length, heads):
        return rng.standard_normal((batch, length, heads, size), dtype="float32")

    return normal(queries, 2 * kv_heads), normal(keys, kv_heads), normal(keys, kv_heads)


def attention_both_ways(query, key, value):
    """Forward and backward by the module."""
    options = {"scale": 0.2, "is_causal": True}
    results = _core.attention_forward(query, key, value, **options)
    output, statistics, _ = results
    return [
        *results,
        *_core.attention_backward(
            query, key, value, output, statistics, output, **options
        )[:3],
    ]


def attention_with_tape(*arrays):
    """Forward and backward by the op."""
    tensors = [tf.constant(x) for x in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        output = ops.dot_product_attention(*tensors)
    return [x.numpy() for x in (output, *tape.gradient(output, tensors))]


def make_calls():
    """Functions of no arguments, each of which returns arrays."""
    rng = np.random.default_rng(0)
    calls = []
    for i in range(SIZES):
        x = attention_arrays(rng, i)
        weights = [rng.integers(-1, 2, (3, 3)) for _ in range(2)]
        steps = rng.integers(-9, 9, (2, 40 * i, 3))

        def integers(steps=steps, weights=weights):
            return [ops.integer_rnn(steps, *weights, overflow="wrap").numpy()]

        calls += [
            lambda x=x: attention_both_ways(*x),
            lambda x=x: attention_with_tape(*x),
            integers,
        ]
    return calls


def equal(first, second):
    pairs = zip(first, second, strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def many_threads(calls, seconds):
    """(calls made, calls whose results were not those of the call alone)."""
    _core.set_num_threads(1)
    want = [call() for call in calls]
    _core.set_num_threads(3)
    end = time.monotonic() + seconds
    made, wrong = collections.Counter(), collections.Counter()

    def work(thread):
        i = thread
        while not made[thread] or time.monotonic() < end:
            i = (i + 1) % len(calls)
            try:
                right = equal(calls[i](), want[i])
            except Exception as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
                right = False
            made[thread] += 1
            wrong[thread] += not right

    threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made.total(), wrong.total()


def resident_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def growth(calls, count):
    """MiB by which the resident set grows in `count` calls, after a tenth of them."""
    for i in range(count // 10):
        calls[i % len(calls)]()
    before = resident_mib()
    for i in range(count):
        calls[i % len(calls)]()
    return resident_mib() - before


def small_calls():
    """One of each way, of 512 bytes each, so that 100,000 take seconds."""
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((1, 4, 2, 16), dtype="float32") for _ in range(3)]
    tensors = [tf.constant(a) for a in x]
    steps, weights = rng.integers(-9, 9, (2, 16, 4)), rng.integers(-1, 2, (4, 4))
    return [
        lambda: attention_both_ways(*x),
        lambda: ops.dot_product_attention(*tensors, is_causal=True),
        lambda: _core.integer_rnn(steps, weights, weights, overflow="wrap"),
    ]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--calls", type=int, default=CALLS)
    args = parser.parse_args(argv)
    # A deadlock ends with the stacks of all threads.
    faulthandler.dump_traceback_later(args.seconds + 300, exit=True)
    with Counting(f"{THREADS} callers at once") as at_once:
        made, wrong = many_threads(make_calls(), args.seconds)
    with Counting("calls one by one") as alone:
        grown = growth(small_calls(), args.calls)
    faulthandler.cancel_dump_traceback_later()
    failed = wrong + (grown > MOST_GROWTH)
    failed += sum(not x.reached_the_pool() for x in (at_once, alone))
    print(
        f"stress: {made + args.calls} cases, {failed} failed; {made} from {THREADS} "
        f"threads, {args.calls} that grew by {grown:.1f} MiB"
    )
    return failed


if __name__ == "__main__":
    sys.exit(bool(main()))
