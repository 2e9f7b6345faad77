"""From which length on the kernels are faster than Keras, one layer at a time.

    python benchmarks/libraries/lengths.py --json lengths.json --markdown lengths.md

A call of `tf.function` with one attention or one recurrent layer, ours and Keras's in
turn. A ratio is the time of Keras's shortest call over that of ours; both calls cost
more than their arithmetic where sequences are short.
"""

import pathlib
import sys
import time

if not __package__:  # run as a program: what it imports is in the folder above
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

import harness

PROGRAM = "libraries/lengths.py"
PACKAGES = ("hw3tf", "keras", "tensorflow")
LENGTHS = (1, 2, 4, 8, 16, 32, 64)
LIBRARIES = ("hw3tf", "keras")
GAINS = 1.1  # the smallest ratio that counts: less is noise
CALLS = 50  # in a loop
ROUNDS = 7
SECONDS = 0.1  # of a round, each
# Batch, heads, size of a head; batch, units.
ATTENTION = [(b, *sizes) for b in (1, 8, 64) for sizes in ((2, 16), (4, 32), (12, 64))]
RECURRENT = [(b, 64) for b in (1, 32)]
CASES = [("attention", *sizes) for sizes in ATTENTION]
CASES += [(layer, *s) for layer in ("LSTM", "GRU", "SimpleRNN") for s in RECURRENT]


def name_of(kind, batch, *sizes):
    if kind == "attention":
        return f"attention, batch {batch}, {sizes[0]} heads of {sizes[1]}"
    return f"{kind}, batch {batch}, {sizes[0]} units"


class Worker:
    """Calls of one case.

    Args:
        case: One of `CASES`, as words.
    """

    def __init__(self, *case):
        kind, batch, *sizes = case
        self.kind, self.batch, self.sizes = kind, int(batch), [int(s) for s in sizes]
        self.calls = {library: self._call(library) for library in LIBRARIES}

    def _call(self, library):
        import keras
        import tensorflow as tf

        import hw3tf

        module = {"hw3tf": hw3tf, "keras": keras}[library]
        if self.kind == "attention":
            attention = module.ops.dot_product_attention
            return tf.function(lambda x: attention(x, x, x), reduce_retracing=False)
        return tf.function(getattr(module.layers, self.kind)(*self.sizes))

    def time(self, library, length, seconds):
        """Seconds of a call in each of the loops."""
        import tensorflow as tf

        x = tf.random.normal((self.batch, length, *self.sizes))
        call, times = self.calls[library], []
        call(x)  # traces
        end = time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            for _ in range(CALLS):
                call(x)
            times.append((time.perf_counter() - start) / CALLS)
        return {"seconds": min(times)}


def measure_case(process, case, quick):
    best = {library: {} for library in LIBRARIES}
    for length in LENGTHS:
        for number in range(1 if quick else ROUNDS):
            for library in harness.in_turn(LIBRARIES, number):
                answer = process.demand(
                    "time",
                    library=library,
                    length=length,
                    seconds=0.0 if quick else SECONDS,
                )
                before = best[library].get(str(length), float("inf"))
                best[library][str(length)] = min(before, 1e6 * answer["seconds"])
    return {"name": name_of(*case), "kind": case[0], "microseconds": best}


def ratios(case):
    """Length -> time of Keras over that of hw3tf."""
    ours, stock = (case["microseconds"][library] for library in LIBRARIES)
    return {int(length): stock[length] / ours[length] for length in ours}


def gains_from(cases):
    """The shortest of `LENGTHS` from which on every case gains."""
    found = None
    for length in reversed(LENGTHS):
        if min(ratios(case)[length] for case in cases) < GAINS:
            break
        found = length
    return found


def by_kind(results):
    """Dict: "attention" and "recurrent layers" -> their cases."""
    found = {"attention": [], "recurrent layers": []}
    for case in results["cases"]:
        kind = "attention" if case["kind"] == "attention" else "recurrent layers"
        found[kind].append(case)
    return found


def measure(options, command):
    cases, progress = [], harness.Progress(len(CASES))
    for case in CASES:
        words = [str(x) for x in case]
        with harness.Process("libraries.lengths", *words) as process:
            cases.append(measure_case(process, case, options.quick))
        progress.step(name_of(*case))
    return {**harness.heading(PACKAGES), "command": command, "cases": cases}


def report(results):
    rows = [
        [case["name"], *(f"{ratio:.2f}x" for ratio in ratios(case).values())]
        for case in results["cases"]
    ]
    found = {kind: gains_from(cases) for kind, cases in by_kind(results).items()}
    words = [f"{kind}: {length}" for kind, length in found.items()]
    parts = [
        harness.heading_in_words(results, [results["command"]]),
        harness.table(["layer", *map(str, LENGTHS)], rows),
        f"Every case is at least {GAINS} times as fast from this length on: "
        f"{'; '.join(words)}.",
    ]
    return "\n\n".join(parts) + "\n"


def main(argv=None):
    return harness.run(PROGRAM, __doc__, measure, report, argv)


if __name__ == "__main__":
    main()
