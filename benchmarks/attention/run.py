"""Attention by hw3tf and by everything else that computes it exactly on a CPU.

    python benchmarks/attention/run.py --threads 1,2 --json attention.json

One process per library, of which one at a time is awake; the libraries take turns in
every round, beside the peak of the machine. A peer that is not installed, that does
not cover a case or computes it wrongly is named and left out.

    python benchmarks/attention/run.py --list
    python benchmarks/attention/run.py --cases 'odd-*' --odd 24 --seed 7
    python benchmarks/attention/run.py --cases 'padded-*' --libraries hw3tf,torch
    python benchmarks/attention/run.py --curve --picture attention.png
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import statistics
import sys

if not __package__:  # run as a program: what it imports is in the folder above
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

import harness
from attention import cases as attention_cases
from attention.peers import PEERS
from attention.report import draw, report
from harness import Process, Progress, say
from machine_peak import MachinePeak

PROGRAM = "attention/run.py"
# The kernel without TensorFlow is asked for by name.
LIBRARIES = [name for name in PEERS if name != "hw3tf-core"]
# Variables that would overrule the number of threads.
MEDDLING = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "HW3TF_NUM_THREADS")
# A library that is slower than hw3tf by this much is timed in the first round, once:
# some take 20 times as long, and all would wait for them.
HOPELESS = 5
# A library that keeps more than this after a case starts anew, or the memory of the
# next one would not show: TensorFlow's allocator gives nothing back.
KEPT_MIB = 16


class Run:
    """All cases with one number of threads."""

    def __init__(self, threads, options, peak, progress):
        self.threads, self.options = threads, options
        self.peak, self.progress = peak, progress
        self.missing, self.versions = {}, {}
        self.workers = {
            library: Process(
                "attention.worker",
                library,
                threads,
                environment=dict.fromkeys(MEDDLING),
            )
            for library in options.libraries
        }
        self.kept_mib = dict.fromkeys(self.workers, 0)

    def measure(self, cases):
        try:
            self._start()
            found = [self._case(case) for case in cases]
        finally:
            for worker in self.workers.values():
                worker.end()
        peak = self.peak.best.get(self.threads)
        return {"threads": self.threads, "cases": found, "peak": peak}

    def _start(self):
        for library in self.options.libraries:
            say(f"starting {library}, {self.threads} threads")
            answer = self.workers[library].ask("versions")
            if "error" in answer:
                self.missing[library] = answer["error"]
                del self.workers[library]
                say(f"left out: {library}: {answer['error']}")
            else:
                self.versions |= answer

    def _case(self, case):
        right = attention_cases.reference(case, attention_cases.make_inputs(case))
        found, left_out = {}, dict(self.missing)
        for library, worker in self.workers.items():
            if case.group == "neighbour" and not library.startswith("hw3tf"):
                continue
            if self.kept_mib[library] > KEPT_MIB:
                worker.end()
            answer = worker.ask("prepare", case=dataclasses.asdict(case))
            rows = answer.pop("rows", None)
            why = answer.get("error") or attention_cases.wrong(case, rows, right)
            if why:
                left_out[library] = why
                say(f"{case.name}: left out: {library}: {why}")
            else:
                found[library] = answer | {"rounds": [], "medians": []}
        peaks = []
        for number in range(self.options.rounds):
            self._round(found, left_out, number)
            peaks.append(self.peak.measure(self.threads))
            self.progress.step(
                f"{self.threads} threads, {case.name}, round {number + 1}"
            )
        for library, worker in self.workers.items():
            self.kept_mib[library] = worker.ask("free").get("kept_mib", 0)
        for answer in found.values():
            answer["best"] = min(answer["rounds"])
            answer["median"] = statistics.median(answer.pop("medians"))
        return {
            "name": case.name,
            **dataclasses.asdict(case),
            "flops": case.flops,
            "bytes": case.bytes_of("key", "value"),
            "bound": case.bound,
            "peaks": peaks,
            "libraries": found,
            "left_out": left_out,
        }

    def _round(self, found, left_out, number):
        """A turn of every library."""
        ours = found.get("hw3tf", {}).get("seconds", float("inf"))
        for library in harness.in_turn(found, number):
            hopeless = found[library]["seconds"] > HOPELESS * ours
            if hopeless and number > 0:
                continue
            seconds, at_least = (0, 1) if hopeless else (self.options.seconds, 3)
            answer = self.workers[library].ask(
                "time", seconds=seconds, at_least=at_least
            )
            if "error" in answer:
                left_out[library] = answer["error"]
                del found[library]
                continue
            found[library]["rounds"].append(answer["best"])
            found[library]["medians"].append(answer["median"])


def parse_arguments(argv):
    parser = harness.parser(__doc__)

    def words(text):
        return [word for word in text.split(",") if word]

    def numbers(text):
        with contextlib.suppress(ValueError):
            found = [int(word) for word in words(text)]
            if min(found, default=0) > 0:
                return found
        raise argparse.ArgumentTypeError(
            f"must be integers of at least 1 with commas between, not {text!r}"
        )

    add = parser.add_argument
    add("--threads", type=numbers, default=[1, 2], help="default: 1,2")
    add("--cases", type=words, help="names or patterns of --list; default: the table")
    add("--libraries", type=words, default=LIBRARIES, help=", ".join(PEERS))
    add("--rounds", type=int, help="default: 5")
    add("--seconds", type=float, help="of a turn of a library; default: 0.5")
    add("--odd", type=int, default=12, help="how many cases odd-* are drawn")
    add("--seed", type=int, default=0, help="what they are drawn from")
    add(
        "--curve",
        action="store_true",
        help="also the rate over the length, with most threads",
    )
    add("--list", action="store_true", help="name the cases and end")
    add(
        "--append",
        action="store_true",
        help="keep what is in --json of other numbers of threads",
    )
    add("--picture", type=pathlib.Path, help="draw the curve here, a PNG")
    options = parser.parse_args(argv)
    if options.rounds is None:
        options.rounds = 1 if options.quick else 5
    if options.seconds is None:
        options.seconds = 0.01 if options.quick else 0.5
    unknown = set(options.libraries) - set(PEERS)
    if unknown:
        parser.error(f"--libraries: unknown: {', '.join(sorted(unknown))}")
    if options.append and not (options.json and options.json.exists()):
        parser.error("--append needs a file of an earlier run as --json")
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {options.rounds}")
    options.curve = options.curve or bool(options.picture and not options.from_json)
    return options


def choose(options):
    """The cases that the options ask for."""
    table, curve = attention_cases.table(), attention_cases.curve()
    odd = attention_cases.odd(options.odd, options.seed)
    cases = table
    if options.cases:
        cases = attention_cases.chosen(table + odd + curve, options.cases)
        if not cases:
            raise SystemExit(f"no case is named {', '.join(options.cases)}; see --list")
    elif options.list:
        return table + odd + curve
    if options.curve:
        cases += [case for case in curve if case not in cases]
    if options.quick:
        small = map(attention_cases.shrunk, cases)
        cases = list({case.name: case for case in small}.values())
    return cases


def measure(options, command):
    cases = choose(options)
    results = harness.heading(()) | {"runs": []}
    if options.append:
        earlier = json.loads(options.json.read_text())
        if earlier["machine"] != results["machine"]:
            raise SystemExit(
                f"--append: {options.json} is of another machine: {earlier['machine']}"
            )
        results["versions"] = earlier["versions"]
        results["runs"] = [
            run for run in earlier["runs"] if run["threads"] not in options.threads
        ]
    sizes = {"milliseconds": 1, "mebibytes": 16} if options.quick else {}
    peak = MachinePeak(**sizes)
    if peak.why_unknown:
        say(f"the machine's peak is unknown: {peak.why_unknown}")
    plan = {
        threads: [
            case
            for case in cases
            if case.group != "curve" or threads == max(options.threads)
        ]
        for threads in options.threads
    }
    progress = Progress(options.rounds * sum(map(len, plan.values())))
    how = {
        "command": command,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "quick": options.quick,
    }
    for threads, cases_of_run in plan.items():
        run = Run(threads, options, peak, progress)
        results["runs"].append(how | run.measure(cases_of_run))
        results["versions"] |= run.versions
        if options.json:  # after every number of threads: a long run may be cut off
            harness.write_json(results, options.json)
    return results


def main(argv=None):
    options = parse_arguments(argv)
    if options.list:
        for case in choose(options):
            bars = [
                case.ahead and f"{case.ahead}x",
                case.of_peak and f"{case.of_peak:.0%}",
            ]
            print(f"{case.name:40}", *filter(None, bars))
        return
    results = harness.publish(
        PROGRAM,
        options,
        lambda: measure(options, harness.command(PROGRAM, argv)),
        report,
    )
    if options.picture:
        draw(results, options.picture)


if __name__ == "__main__":
    main()
