"""Memory of the kernel beyond inputs, outputs and statistics, at great length.

    python benchmarks/attention_memory.py

Forward and backward of one head of 64 through `hw3tf._core`, every length in a fresh
process that has computed nothing before: what its resident set grew by at most
(`VmHWM`, Linux only), less the arrays that the kernel returns. A matrix of scores
would take 16 GiB at 65,536.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

import numpy as np
from attention_report import table
from attention_worker import forget_peak, give_back, resident

HEAD_DIM = 64
BAR_LENGTH, BAR_MIB = 65_536, 64


def measure(length, threads):
    """{"forward", "both"} in MiB, {"seconds"} of both passes."""
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
        raise SystemExit("this system does not tell the peak of memory (VmHWM)")
    before, start = resident(), time.perf_counter()
    forward = _core.attention_forward(**inputs, scale=HEAD_DIM**-0.5)
    result = {"forward": beyond(before, forward)}
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
    result["seconds"] = time.perf_counter() - start
    return result | {"both": beyond(before, [*forward, *gradients])}


def beyond(before, arrays):
    """MiB of the peak that are neither inputs nor the arrays returned."""
    returned = sum(x.nbytes for x in arrays if x is not None)
    return max(0, resident("VmHWM") - before - returned) / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="*", default=[4096, 16384, 65536])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=pathlib.Path, help="write the figures here")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if min([args.threads, *args.lengths]) < 1:
        parser.error("--threads and --lengths must be at least 1")
    if args.worker:
        print("\n" + json.dumps(measure(args.worker, args.threads)))
        return
    results, rows = {}, []
    for length in args.lengths:
        command = [sys.executable, __file__, "--threads", str(args.threads), "--worker"]
        done = subprocess.run(
            [*command, str(length)], check=True, stdout=subprocess.PIPE, text=True
        )
        result = results[length] = json.loads(done.stdout.splitlines()[-1])
        bar = BAR_MIB * length / BAR_LENGTH
        rows.append(
            [
                f"{length:,}",
                f"{result['forward']:.2f}",
                f"{result['both']:.2f}",
                f"{bar:.0f}: {'met' if result['both'] <= bar else 'missed'}",
                f"{result['seconds']:.1f}",
            ]
        )
    head = ["T = S", "forward, MiB", "and backward, MiB", "bar, MiB", "seconds"]
    print(table(head, rows))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
