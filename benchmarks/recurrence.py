"""The integer recurrence by hw3tf and by everything else that computes it on a CPU.

    python benchmarks/recurrence.py --threads 2 --json recurrence.json

One process per peer, of which one at a time is awake; the peers take turns in every
round, beside the bandwidths of reading and copying, measured with the same threads. A
peer that is not installed, does not cover a case or computes it wrongly is named and
left out. In all processes memory that is freed is kept for the next call, as in a
program that runs on: otherwise the system's zeroing of new pages would be timed.

    python benchmarks/recurrence.py --list
    python benchmarks/recurrence.py --cases 'dense-*' --peers hw3tf,numpy
    python benchmarks/recurrence.py --picture recurrence.png
"""

import argparse
import dataclasses
import fnmatch
import json
import os
import pathlib
import statistics
import subprocess
import sys

import attention_report
from recurrence_cases import CASES, shrunk
from recurrence_peers import BANDWIDTHS, PEERS

WORKER = pathlib.Path(__file__).with_name("recurrence_worker.py")
ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "KERAS_BACKEND": "tensorflow",
    "CUDA_VISIBLE_DEVICES": "",
    "MALLOC_MMAP_THRESHOLD_": str(2**33),
    "MALLOC_TRIM_THRESHOLD_": str(2**35),
}
# A peer that is slower than hw3tf by this much has one turn.
HOPELESS = 20


def say(*words):
    print(*words, file=sys.stderr, flush=True)


class Peer:
    """A worker process."""

    def __init__(self, name, case, threads):
        self.name, self.times = name, []
        limits = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [sys.executable, WORKER, name, json.dumps(vars(case)), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | ENVIRONMENT | limits,
        )
        first = self._answer()
        self.error, self.checksum = first.get("error"), first.get("checksum")

    def _answer(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "the process ended"}

    def turn(self, seconds):
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        self.times += self._answer().get("times", [])

    def end(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def measure(name, case, peers, threads, rounds, seconds):
    """The result of one case: times per peer, and who is left out, and why."""
    ready, left_out = [], {}
    for peer in map(lambda p: Peer(p, case, threads), [*peers, *BANDWIDTHS]):
        ours = ready[0].checksum if ready else peer.checksum
        if peer.error is None and peer.checksum not in (None, ours):
            peer.error = "other states than hw3tf's"
        if peer.error:
            left_out[peer.name] = peer.error
            peer.end()
        else:
            ready.append(peer)
    for number in range(rounds):
        for peer in ready:
            ours = min(ready[0].times, default=0)
            if number and ours and min(peer.times) > HOPELESS * ours:
                continue
            peer.turn(seconds)
    for peer in ready:
        peer.end()
    times = {
        p.name: {"best": min(p.times), "median": statistics.median(p.times)}
        for p in ready
    }
    say(f"{name}, {threads} threads: " + ", ".join(f"{k} {v['best']:.2g} s"
        for k, v in times.items()))  # fmt: skip
    return {
        "name": name,
        **dataclasses.asdict(case),
        "threads": threads,
        "times": times,
        "left_out": left_out,
    }


def share_of_bandwidth(result):
    """hw3tf's speed as a part of reading, or of copying where states are wanted."""
    times = result["times"]
    bound = "copy" if result["sequences"] else "read"
    return times[bound]["best"] / times["hw3tf"]["best"]


def report(results):
    """The tables, in Markdown."""
    names = [n for n in PEERS if any(n in r["times"] for r in results["cases"])]
    head = ["case", "threads", *names, "of the bandwidth"]
    rows = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for result in results["cases"]:
        times = result["times"]
        cells = [
            f"{1e3 * times[n]['best']:.3g} ({1e3 * times[n]['median']:.3g})"
            if n in times
            else "-"
            for n in names
        ]
        line = result["units"] == result["features"] == 1
        share = f"{100 * share_of_bandwidth(result):.0f} %" if line else ""
        rows.append([result["name"], str(result["threads"]), *cells, share])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    left_out = {
        (name, reason): None
        for result in results["cases"]
        for name, reason in result["left_out"].items()
    }
    lines += ["", "Milliseconds: best (median).", ""]
    lines += [f"- `{name}` is left out: {reason}" for name, reason in left_out]
    return "\n".join([f"{results['machine']}", "", *lines, ""])


def draw(results, path):
    """A bar per peer and case: how many times longer than hw3tf."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cases = results["cases"]
    figure, axes = plt.subplots(
        1, len(cases), figsize=(2.2 * len(cases), 3.2), layout="constrained"
    )
    for axis, result in zip([axes] if len(cases) == 1 else axes, cases, strict=True):
        ours = result["times"]["hw3tf"]["best"]
        ratios = {n: t["best"] / ours for n, t in result["times"].items()}
        axis.barh(list(ratios), list(ratios.values()))
        axis.set_xscale("log")
        axis.axvline(1, color="black", linewidth=0.8)
        axis.invert_yaxis()
        axis.set_title(f"{result['name']}\n{result['threads']} threads", fontsize=8)
        axis.tick_params(labelsize=7)
    figure.supxlabel("time, hw3tf = 1")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="*", help="patterns, with commas")
    parser.add_argument("--peers", default=",".join(PEERS), help="names, with commas")
    parser.add_argument("--threads", default="2", help="numbers, with commas")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round")
    parser.add_argument("--list", action="store_true", help="print the cases")
    parser.add_argument("--json", help="file to write")
    parser.add_argument("--picture", help="file to write")
    args = parser.parse_args(argv)
    patterns, peers = args.cases.split(","), args.peers.split(",")
    names = [n for n in CASES if any(fnmatch.fnmatch(n, p) for p in patterns)]
    unknown = set(peers) - set(PEERS)
    if unknown or not names or peers[0] != "hw3tf":
        parser.error(
            f"--peers must begin with hw3tf and be among {', '.join(PEERS)}; --cases "
            f"must match some of {', '.join(CASES)}"
        )
    if args.list:
        print("\n".join(f"{name}: {CASES[name]}" for name in names))
        return None
    results = {"machine": attention_report.machine(), "cases": []}
    for threads in map(int, args.threads.split(",")):
        for name in names:
            case = shrunk(CASES[name]) if args.quick else CASES[name]
            rounds, seconds = (1, 0.0) if args.quick else (args.rounds, args.seconds)
            results["cases"].append(
                measure(name, case, peers, threads, rounds, seconds)
            )
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(results, indent=1) + "\n")
    if args.picture:
        draw(results, args.picture)
    print(report(results))
    return results


if __name__ == "__main__":
    main()
