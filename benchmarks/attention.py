"""Attention by hw3tf and by everything else that computes it exactly on a CPU.

    python benchmarks/attention.py --threads 1,2 --json attention.json

One process per library, of which one at a time is awake; the libraries take turns in
every round, beside the peak of the machine. A peer that is not installed, that does
not cover a case or computes it wrongly is named and left out.

    python benchmarks/attention.py --list
    python benchmarks/attention.py --cases 'training-*,padded-*' --libraries hw3tf,torch
    python benchmarks/attention.py --curve --picture attention.png
    python benchmarks/attention.py --cases 'odd-*' --odd 24 --seed 7
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import select
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import attention_cases
import attention_report
from attention_peers import PEERS
from machine_peak import MachinePeak

WORKER = pathlib.Path(__file__).with_name("attention_worker.py")
# The kernel without TensorFlow is asked for by name.
LIBRARIES = [name for name in PEERS if name != "hw3tf-core"]
SECONDS_FOR_AN_ANSWER = 900
# A library that is slower than hw3tf by this much is timed in the first round, once:
# some take 20 times as long, and all would wait for them.
HOPELESS = 5
# A library that keeps more than this after a case starts anew, or the memory of the
# next one would not show: TensorFlow's allocator gives nothing back.
KEPT_MIB = 16


def say(*words):
    print(*words, file=sys.stderr, flush=True)


class WorkerError(Exception):
    """A worker that ended, hangs, or could not start."""


class Worker:
    """A library in its process, asleep except while it answers."""

    def __init__(self, library, threads):
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115, as long as the worker
        environment = {
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BACKEND": "tensorflow",
            "CUDA_VISIBLE_DEVICES": "",
        }
        # Variables that would overrule the number of threads.
        meddling = {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "HW3TF_NUM_THREADS"}
        kept = {k: v for k, v in os.environ.items() if k not in meddling}
        self.process = subprocess.Popen(
            [sys.executable, WORKER, library, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=kept | environment,
        )
        hello = self._answer()
        if "error" in hello:
            self.end()
            raise WorkerError(hello["error"])
        self.versions = hello["versions"]
        self.kept_mib = 0

    def _answer(self):
        ready, _, _ = select.select(
            [self.process.stdout], [], [], SECONDS_FOR_AN_ANSWER
        )
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.end()
            self.log.seek(0)
            last = (self.log.read().strip().splitlines() or ["without a word"])[-1]
            raise WorkerError(f"died: {last}" if ready else "no answer")
        self._signal("SIGSTOP")
        return json.loads(line)

    def _signal(self, name):
        if hasattr(signal, name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, getattr(signal, name))

    def ask(self, do, **message):
        """Sends a command; its answer, a dict."""
        self._signal("SIGCONT")
        try:
            print(
                json.dumps({"do": do, **message}), file=self.process.stdin, flush=True
            )
        except BrokenPipeError:
            raise WorkerError("died") from None
        return self._answer()

    def end(self):
        self.process.kill()
        self.process.wait()


class Progress:
    """Says what is done and about how long the rest takes."""

    def __init__(self, steps):
        self.start, self.steps, self.done = time.monotonic(), steps, 0

    def step(self, *words):
        self.done += 1
        spent = time.monotonic() - self.start
        left = spent / self.done * (self.steps - self.done)
        say(f"[{spent / 60:.1f} min, {left / 60:.1f} left]", *words)


class Run:
    """All cases with one number of threads."""

    def __init__(self, threads, options, peak, progress):
        self.threads, self.options = threads, options
        self.peak, self.progress = peak, progress
        self.workers, self.missing, self.versions = {}, {}, {}
        self.results = {"threads": threads, "cases": []}

    def measure(self, cases):
        try:
            for library in self.options.libraries:
                self._start(library)
            for case in cases:
                self.results["cases"].append(self._case(case))
        finally:
            for worker in self.workers.values():
                worker.end()
        return self.results | {"peak": self.peak.best.get(self.threads)}

    def _start(self, library):
        say(f"starting {library}, {self.threads} threads")
        try:
            self.workers[library] = Worker(library, self.threads)
            self.versions |= self.workers[library].versions
        except WorkerError as error:
            self.missing[library] = str(error)
            say(f"left out: {library}: {error}")

    def _ask(self, library, do, **message):
        """The worker's answer, {"error": ...} if it ends; then it starts anew."""
        try:
            return self.workers[library].ask(do, **message)
        except WorkerError as error:
            self._restart(library)
            return {"error": str(error)}

    def _restart(self, library):
        self.workers.pop(library).end()
        self._start(library)

    def _case(self, case):
        right = attention_cases.reference(case, attention_cases.make_inputs(case))
        found, left_out = {}, dict(self.missing)
        for library in list(self.workers):
            if case.group == "neighbour" and not library.startswith("hw3tf"):
                continue
            if self.workers[library].kept_mib > KEPT_MIB:
                self._restart(library)
            if library in self.missing:
                left_out[library] = self.missing[library]
                continue
            answer = self._ask(library, "prepare", case=dataclasses.asdict(case))
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
        for library in list(self.workers):
            kept = self._ask(library, "free").get("kept_mib", 0)
            if library in self.workers:
                self.workers[library].kept_mib = kept
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
        """A turn of every library; each round begins with another one."""
        order = list(found)
        first = number % max(1, len(order))
        ours = found.get("hw3tf", {}).get("seconds", float("inf"))
        for library in order[first:] + order[:first]:
            hopeless = found[library]["seconds"] > HOPELESS * ours
            if hopeless and number > 0:
                continue
            seconds, at_least = (0, 1) if hopeless else (self.options.seconds, 3)
            answer = self._ask(library, "time", seconds=seconds, at_least=at_least)
            if "error" in answer:
                left_out[library] = answer["error"]
                del found[library]
                continue
            found[library]["rounds"].append(answer["best"])
            found[library]["medians"].append(answer["median"])


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog=__doc__.split("\n\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

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
    add("--quick", action="store_true", help="tiny sizes: only to see that all works")
    add("--list", action="store_true", help="name the cases and end")
    add("--json", type=pathlib.Path, help="write every figure here")
    add(
        "--append",
        action="store_true",
        help="keep what stands in --json of other numbers of threads",
    )
    add(
        "--markdown",
        type=pathlib.Path,
        help="write the tables here, or between the marks of this file",
    )
    add("--picture", type=pathlib.Path, help="draw the curve here, a PNG")
    add("--from-json", type=pathlib.Path, help="measure nothing, report this file")
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
    results = {
        "machine": attention_report.machine(),
        "date": time.strftime("%Y-%m-%d"),
        "versions": {},
        "runs": [],
    }
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
            options.json.write_text(json.dumps(results, indent=1) + "\n")
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
    if options.from_json:
        results = json.loads(options.from_json.read_text())
    else:
        words = sys.argv[1:] if argv is None else argv
        results = measure(
            options, shlex.join(["python", "benchmarks/attention.py", *map(str, words)])
        )
    text = attention_report.report(results)
    print(text)
    if options.markdown:
        attention_report.write_markdown(text, options.markdown)
    if options.picture:
        attention_report.draw(results, options.picture)


if __name__ == "__main__":
    main()
