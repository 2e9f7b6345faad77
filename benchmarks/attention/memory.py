"""Memory of the kernel beyond inputs, outputs and statistics, at great length.

    python benchmarks/attention/memory.py --json memory.json

Forward and backward of one head of 64 through `hw3tf._core`, every length in a fresh
process that has computed nothing before: what its resident set grew by at most
(`VmHWM`, Linux only), less the arrays that the kernel returns. A matrix of scores
would take 16 GiB at 65,536.
"""

import pathlib
import sys

import numpy as np

if not __package__:  # run as a program: what it imports is in the folder above
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

import harness
from harness import forget_peak, give_back, resident

PROGRAM = "attention/memory.py"
HEAD_DIM = 64
BAR_LENGTH, BAR_MIB = 65_536, 64


class Worker:
    def measure(self, length, threads):
        """{"forward", "both"} in MiB."""
        from hw3tf import _core

        _core.set_num_threads(threads)
        rng = np.random.default_rng(0)
        shape = (1, length, 1, HEAD_DIM)
        query, key, value, grad_output = (
            rng.standard_normal(shape, np.float32) for _ in range(4)
        )
        inputs = {"query": query, "key": key, "value": value}
        give_back()
        if not forget_peak():
            raise OSError("this system does not tell the peak of memory (VmHWM)")
        before = resident()
        forward = _core.attention_forward(**inputs, scale=HEAD_DIM**-0.5)
        result = {"length": length, "forward": beyond(before, forward)}
        output, statistics, *_ = forward
        gradients = _core.attention_backward(
            **inputs,
            query_mask=None,
            key_mask=None,
            output=output,
            statistics=statistics,
            grad_output=grad_output,
            scale=HEAD_DIM**-0.5,
        )
        return result | {"both": beyond(before, [*forward, *gradients])}


def beyond(before, arrays):
    """MiB of the peak that are neither inputs nor the arrays returned."""
    returned = sum(x.nbytes for x in arrays if x is not None)
    return max(0, resident("VmHWM") - before - returned) / 2**20


def report(results):
    rows = []
    for result in results["lengths"]:
        bar = BAR_MIB * result["length"] / BAR_LENGTH
        met = "met" if result["both"] <= bar else "missed"
        figures = [f"{result[name]:.2f}" for name in ("forward", "both")]
        rows.append([f"{result['length']:,}", *figures, f"{bar:.0f}: {met}"])
    head = ["T = S", "forward, MiB", "and backward, MiB", "bar, MiB"]
    heading = harness.heading_in_words(results, [results["command"]])
    return f"{heading}\n\n{harness.table(head, rows)}\n"


def main(argv=None):
    parser = harness.parser(__doc__)
    parser.add_argument("--lengths", type=int, nargs="*", default=[4096, 16384, 65536])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(argv)
    if min([options.threads, *options.lengths]) < 1:
        parser.error("--threads and --lengths must be at least 1")
    lengths = [256] if options.quick else options.lengths

    def measure():
        found = [
            harness.ask_once(
                "attention.memory", do="measure", length=n, threads=options.threads
            )
            for n in lengths
        ]
        how = {"command": harness.command(PROGRAM, argv), "lengths": found}
        return harness.heading(["hw3tf", "numpy"]) | how

    return harness.publish(PROGRAM, options, measure, report)


if __name__ == "__main__":
    main()
