"""The integer recurrence by hw3tf and by everything else that computes it on a CPU.

    python benchmarks/recurrence.py --json recurrence.json --picture recurrence.png

One process per peer, of which one at a time is awake; the peers take turns in every
round, beside the bandwidths of reading and copying, measured with the same threads. A
peer that is not installed, does not cover a case or computes it wrongly is named and
left out. In all processes memory that is freed is kept for the next call, as in a
program that runs on: otherwise the system's zeroing of new pages would be timed.

    python benchmarks/recurrence.py --list
    python benchmarks/recurrence.py --cases 'dense-*' --peers hw3tf,numpy
    python benchmarks/recurrence.py --from-json recurrence.json --picture recurrence.png
"""

import argparse
import dataclasses
import fnmatch
import importlib.metadata
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import time

import attention_report
import recurrence_report
from recurrence_cases import CASES, shrunk
from recurrence_peers import BANDWIDTHS, PEERS, refuses

WORKER = pathlib.Path(__file__).with_name("recurrence_worker.py")
ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "KERAS_BACKEND": "tensorflow",
    "CUDA_VISIBLE_DEVICES": "",
    "MALLOC_MMAP_THRESHOLD_": str(2**33),
    "MALLOC_TRIM_THRESHOLD_": str(2**35),
}
PACKAGES = ("hw3tf", "jax", "keras", "numba", "numpy", "scipy", "tensorflow")
# A peer that is slower than hw3tf by this much has one turn.
HOPELESS = 20
# Peers keep what they took: after a case with larger inputs they start anew.
LARGE_BYTES = 2**28


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def versions():
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class Peer:
    """A worker process; it starts when there is something to do."""

    def __init__(self, name, threads):
        self.name, self.threads = name, threads
        self.process, self.times = None, []

    def _start(self):
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), self.threads)
        self.process = subprocess.Popen(
            [sys.executable, WORKER, self.name, str(self.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | ENVIRONMENT | {k: str(v) for k, v in limits.items()},
        )

    def _ask(self, **message):
        print(json.dumps(message), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            self.end()
            return {"error": "the process ended"}
        return json.loads(line)

    def prepare(self, case):
        """The checksum of the last states, or an error, as a dict."""
        self.times = []
        if self.process is None:
            self._start()
        return self._ask(case=dataclasses.asdict(case))

    def turn(self, seconds):
        self.times += self._ask(seconds=seconds).get("times", [])

    def end(self):
        if self.process is not None:
            self.process.stdin.close()
            self.process.stdout.close()
            self.process.wait()
            self.process = None


def measure(name, case, peers, rounds, seconds):
    """The result of one case: times per peer, and who is left out, and why."""
    ready, left_out, ours = [], {}, None
    for peer in peers:
        why = refuses(peer.name, case)
        if not why:
            answer = peer.prepare(case)
            checksum, why = answer.get("checksum"), answer.get("error")
            ours = checksum if peer is peers[0] else ours
            if not why and checksum not in (None, ours):
                why = "other states than hw3tf's"
        if why:
            left_out[peer.name] = why
        else:
            ready.append(peer)
    for number in range(rounds):
        for peer in ready:
            best = min(ready[0].times, default=0)
            if number and best and min(peer.times) > HOPELESS * best:
                continue
            peer.turn(seconds)
    times = {
        p.name: {"best": min(p.times), "median": statistics.median(p.times)}
        for p in ready
    }
    for peer in peers:
        if case.bytes_of_inputs > LARGE_BYTES:
            peer.end()
    words = (f"{k} {1e3 * v['best']:.3g}" for k, v in times.items())
    say(f"{name}, {peers[0].threads} threads, ms: " + ", ".join(words))
    return {
        "name": name,
        **dataclasses.asdict(case),
        "bytes": case.bytes_of_inputs,
        "times": times,
        "left_out": left_out,
    }


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog=__doc__.split("\n\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--cases", default="*", help="patterns, with commas")
    add("--peers", default=",".join(PEERS), help="names, with commas")
    add("--threads", type=int, default=2)
    add("--rounds", type=int, default=3)
    add("--seconds", type=float, default=0.2, help="of a turn")
    add("--quick", action="store_true", help="tiny sizes, one round")
    add("--list", action="store_true", help="print the cases")
    add("--json", type=pathlib.Path, help="write every figure here")
    add(
        "--markdown",
        type=pathlib.Path,
        help="write the tables here, or between the marks of this file",
    )
    add("--picture", type=pathlib.Path, help="draw rate over length here, a PNG")
    add("--from-json", type=pathlib.Path, help="measure nothing, report this file")
    options = parser.parse_args(argv)
    options.peers = options.peers.split(",")
    patterns = options.cases.split(",")
    options.names = [n for n in CASES if any(fnmatch.fnmatch(n, p) for p in patterns)]
    unknown = set(options.peers) - set(PEERS)
    if unknown or not options.names or options.peers[0] != "hw3tf":
        parser.error(
            f"--peers must begin with hw3tf and be among {', '.join(PEERS)}; --cases "
            f"must match some of {', '.join(CASES)}"
        )
    if min(options.threads, options.rounds) < 1:
        parser.error("--threads and --rounds are 1 or more")
    return options


def run(options, command):
    results = {
        "machine": attention_report.machine(),
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions(),
        "command": command,
        "threads": options.threads,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "quick": options.quick,
        "cases": [],
    }
    peers = [Peer(name, options.threads) for name in [*options.peers, *BANDWIDTHS]]
    rounds, seconds = options.rounds, options.seconds
    if options.quick:
        rounds, seconds = 1, 0.0
    try:
        for name in options.names:
            case = shrunk(CASES[name]) if options.quick else CASES[name]
            results["cases"].append(measure(name, case, peers, rounds, seconds))
    finally:
        for peer in peers:
            peer.end()
    return results


def main(argv=None):
    words = sys.argv[1:] if argv is None else argv
    options = parse_arguments(words)
    if options.list:
        print("\n".join(f"{name}: {CASES[name]}" for name in options.names))
        return
    if options.from_json:
        results = json.loads(options.from_json.read_text())
    else:
        command = ["python", "benchmarks/recurrence.py", *map(str, words)]
        results = run(options, shlex.join(command))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    text = recurrence_report.report(results)
    print(text)
    if options.picture:
        text += f"\n![GB/s over the length, of every peer]({options.picture.name})\n"
    if options.markdown:
        attention_report.write_markdown(text, options.markdown, recurrence_report.BEGIN)
    if options.picture:
        recurrence_report.draw(results, options.picture)


if __name__ == "__main__":
    main()
