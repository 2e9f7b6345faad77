"""The integer recurrence by hw3tf and by everything else that computes it on a CPU.

    python benchmarks/recurrence/run.py --json recurrence.json --picture recurrence.png

One process per peer, of which one at a time is awake; the peers take turns in every
round, beside the bandwidths of reading and copying, measured with the same threads. A
peer that is not installed, does not cover a case or computes it wrongly is named and
left out. In all processes memory that is freed is kept for the next call, as in a
program that runs on: otherwise the system's zeroing of new pages would be timed.

    python benchmarks/recurrence/run.py --list
    python benchmarks/recurrence/run.py --cases 'dense-*' --peers hw3tf,numpy
    python benchmarks/recurrence/run.py --from-json recurrence.json
"""

import dataclasses
import fnmatch
import pathlib
import statistics
import sys

if not __package__:  # run as a program: what it imports is in the folder above
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

import harness
from harness import Process, say
from recurrence.cases import CASES, shrunk
from recurrence.peers import BANDWIDTHS, PEERS, refuses
from recurrence.report import draw, report

PROGRAM = "recurrence/run.py"
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**33),
    "MALLOC_TRIM_THRESHOLD_": str(2**35),
}
PACKAGES = ("hw3tf", "jax", "keras", "numba", "numpy", "scipy", "tensorflow")
OURS = "hw3tf"
# A peer that is slower than hw3tf by this much has one turn.
HOPELESS = 20
# Peers keep what they took: after a case with larger inputs they start anew.
LARGE_BYTES = 2**28


def start(names, threads):
    """name -> `Process`."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    environment = KEEP_MEMORY | limits
    return {
        name: Process("recurrence.worker", name, threads, environment=environment)
        for name in names
    }


def prepare(case, peers):
    """The peers that computed the case as hw3tf did; name -> why one is left out."""
    ready, left_out, ours = [], {}, None
    for name, process in peers.items():
        why = refuses(name, case)
        if not why:
            answer = process.ask("prepare", case=dataclasses.asdict(case))
            checksum, why = answer.get("checksum"), answer.get("error")
            ours = checksum if name == OURS else ours
            if not why and checksum not in (None, ours):
                why = "other states than hw3tf's"
        if why:
            left_out[name] = why
        else:
            ready.append(name)
    return ready, left_out


def measure(name, case, peers, rounds, seconds):
    """The result of one case: times of the peers, and why some are left out."""
    ready, left_out = prepare(case, peers)
    times = {peer: [] for peer in ready}
    for number in range(rounds):
        for peer in harness.in_turn(times, number):
            best = min(times.get(OURS, []), default=0)
            if number and best and min(times[peer]) > HOPELESS * best:
                continue
            answer = peers[peer].ask("turn", seconds=seconds)
            if "error" in answer:
                left_out[peer] = answer["error"]
                del times[peer]
            else:
                times[peer] += answer["times"]
    if case.bytes_of_inputs > LARGE_BYTES:
        for process in peers.values():
            process.end()
    found = {
        peer: {"best": min(spent), "median": statistics.median(spent)}
        for peer, spent in times.items()
    }
    say(f"{name}, ms:", *(f"{k} {1e3 * v['best']:.3g}," for k, v in found.items()))
    return {
        "name": name,
        **dataclasses.asdict(case),
        "bytes": case.bytes_of_inputs,
        "times": found,
        "left_out": left_out,
    }


def parse_arguments(argv):
    parser = harness.parser(__doc__)
    add = parser.add_argument
    add("--cases", default="*", help="patterns, with commas")
    add("--peers", default=",".join(PEERS), help="names, with commas")
    add("--threads", type=int, default=2)
    add("--rounds", type=int, default=3)
    add("--seconds", type=float, default=0.2, help="of a turn")
    add("--list", action="store_true", help="print the cases")
    add("--picture", type=pathlib.Path, help="draw rate over length here, a PNG")
    options = parser.parse_args(argv)
    options.peers = options.peers.split(",")
    patterns = options.cases.split(",")
    options.names = [n for n in CASES if any(fnmatch.fnmatch(n, p) for p in patterns)]
    unknown = set(options.peers) - set(PEERS)
    if unknown or not options.names or options.peers[0] != OURS:
        parser.error(
            f"--peers must begin with hw3tf and be among {', '.join(PEERS)}; --cases "
            f"must match some of {', '.join(CASES)}"
        )
    if min(options.threads, options.rounds) < 1:
        parser.error("--threads and --rounds are 1 or more")
    return options


def run(options, command):
    results = harness.heading(PACKAGES) | {
        "command": command,
        "threads": options.threads,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "quick": options.quick,
        "cases": [],
    }
    peers = start([*options.peers, *BANDWIDTHS], options.threads)
    rounds, seconds = options.rounds, options.seconds
    if options.quick:
        rounds, seconds = 1, 0.0
    try:
        for name in options.names:
            case = shrunk(CASES[name]) if options.quick else CASES[name]
            results["cases"].append(measure(name, case, peers, rounds, seconds))
    finally:
        for process in peers.values():
            process.end()
    return results


def main(argv=None):
    options = parse_arguments(argv)
    if options.list:
        print("\n".join(f"{name}: {CASES[name]}" for name in options.names))
        return
    results = harness.publish(
        PROGRAM,
        options,
        lambda: run(options, harness.command(PROGRAM, argv)),
        report,
    )
    if options.picture:
        draw(results, options.picture)


if __name__ == "__main__":
    main()
