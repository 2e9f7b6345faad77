"""Libraries that compute the same cases in turn: what attention/run.py and
recurrence/layers/run.py share.

One process per library, of which one at a time is awake; the libraries take turns in
every round, beside the peak of the machine. A peer that is not installed, that does not
cover a case or computes it wrongly is named and left out.
"""

import argparse
import contextlib
import dataclasses
import fnmatch
import json
import pathlib
import statistics

import harness
from harness import Process, Progress, say
from machine_peak import MachinePeak

OURS = "hw3tf"
# Variables that would overrule the number of threads.
MEDDLING = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "HW3TF_NUM_THREADS")
# How the libraries are told not to use wider instructions: oneDNN is in TensorFlow,
# JAX, PyTorch and OpenVINO, MKL in PyTorch, XLA in TensorFlow and JAX. XLA's products
# are YNNPACK's, which cannot be told: without it they are oneDNN's.
INSTRUCTION_SETS = {
    "avx2": {
        "HW3TF_ISA": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2 --xla_cpu_experimental_ynn_fusion_type=",
    }
}
# Libraries without a switch of this kind.
UNLIMITED = ("onnxruntime",)
UNLIMITED_NOTE = "no switch limits it to"
# A library that is slower than hw3tf by this much is timed in the first round, once:
# some take 20 times as long, and all would wait for them.
HOPELESS = 5
# A library that keeps more than this after a case starts anew, or the memory of the
# next one would not show: TensorFlow's allocator gives nothing back.
KEPT_MIB = 16


class Run:
    """All cases with one number of threads.

    Args:
        threads: That number.
        options: Of `parse_arguments`.
        peak: The `MachinePeak` to measure beside the libraries.
        progress: The `Progress` of all runs.
    """

    # Module of the libraries' processes.
    worker = ""

    def __init__(self, threads, options, peak, progress):
        self.threads, self.options = threads, options
        self.peak, self.progress = peak, progress
        self.missing, self.versions = {}, {}
        environment = dict.fromkeys(MEDDLING)
        if options.isa:
            environment |= INSTRUCTION_SETS[options.isa]
        self.workers = {
            library: Process(self.worker, library, threads, environment=environment)
            for library in options.libraries
        }
        self.kept_mib = dict.fromkeys(self.workers, 0)

    def right(self, case):
        """The sampled rows in float64: name -> numbers."""
        raise NotImplementedError

    def wrong(self, case, rows, right):
        """What is wrong with a library's rows; empty if nothing is."""
        raise NotImplementedError

    def passes_over(self, case, library):
        """Whether the library is not asked for the case."""
        return False

    def described(self, case):
        """The entries of the result that describe the case."""
        return {"name": case.name, **dataclasses.asdict(case), "flops": case.flops}

    def measure(self, cases):
        """The results of all cases so far, after each of them."""
        isa = {"isa": self.options.isa} if self.options.isa else {}
        found = []
        try:
            self._start()
            for case in cases:
                found.append(self._case(case))
                peak = self.peak.best.get(self.threads)
                yield {"threads": self.threads, **isa, "cases": found, "peak": peak}
        finally:
            for worker in self.workers.values():
                worker.end()

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
        right = self.right(case)
        found, left_out = {}, dict(self.missing)
        for library, worker in self.workers.items():
            if self.passes_over(case, library):
                continue
            if self.kept_mib[library] > KEPT_MIB:
                worker.end()
            answer = worker.ask("prepare", case=dataclasses.asdict(case))
            rows = answer.pop("rows", None)
            why = answer.get("error") or self.wrong(case, rows, right)
            if why:
                left_out[library] = why
                say(f"{case.name}: left out: {library}: {why}")
            else:
                found[library] = answer | {"rounds": [], "medians": []}
                if self.options.isa and library in UNLIMITED:
                    words = f"{UNLIMITED_NOTE} {self.options.isa}"
                    notes = filter(None, [answer["note"], words])
                    found[library]["note"] = "; ".join(notes)
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
        return self.described(case) | {
            "peaks": peaks,
            "libraries": found,
            "left_out": left_out,
        }

    def _round(self, found, left_out, number):
        """A turn of every library."""
        ours = found.get(OURS, {}).get("seconds", float("inf"))
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


def parser(documentation, peers, by_default):
    """The options of such a program; `parse_arguments` takes it.

    Args:
        documentation: The program's docstring.
        peers: Names of all libraries.
        by_default: Of those that are measured unless others are asked for.
    """
    made = harness.parser(documentation)

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

    add = made.add_argument
    add("--threads", type=numbers, default=[1, 2], help="default: 1,2")
    add("--cases", type=words, help="names or patterns of --list; default: the table")
    add("--libraries", type=words, default=by_default, help=", ".join(peers))
    add("--isa", choices=INSTRUCTION_SETS, help="of all libraries that can be told")
    add("--rounds", type=int, help="default: 5")
    add("--seconds", type=float, help="of a turn of a library; default: 0.5")
    add("--curve", action="store_true", help="the cases of the picture, too")
    add("--list", action="store_true", help="name the cases and end")
    add(
        "--append",
        action="store_true",
        help="keep what is in --json of other threads and instruction sets",
    )
    add("--picture", type=pathlib.Path, help="draw the curves here, a PNG")
    return made


def parse_arguments(parser, argv, peers):
    options = parser.parse_args(argv)
    if options.rounds is None:
        options.rounds = 1 if options.quick else 5
    if options.seconds is None:
        options.seconds = 0.01 if options.quick else 0.5
    unknown = set(options.libraries) - set(peers)
    if unknown:
        parser.error(f"--libraries: unknown: {', '.join(sorted(unknown))}")
    if options.append and not (options.json and options.json.exists()):
        parser.error("--append needs a file of an earlier run as --json")
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {options.rounds}")
    options.curve = options.curve or bool(options.picture and not options.from_json)
    return options


def choose(options, table, curve, others=(), shrunk=None):
    """The cases that the options ask for.

    Args:
        table, curve, others: Cases: those by default, those of the picture, and those
            that are only asked for by name.
        shrunk: Makes a case small, for `--quick`.
    """
    cases = list(table)
    known = [*table, *others, *curve]
    if options.cases:
        cases = chosen(known, options.cases)
        if not cases:
            raise SystemExit(f"no case is named {', '.join(options.cases)}; see --list")
    elif options.list:
        return known
    if options.curve:
        cases += [case for case in curve if case not in cases]
    if options.quick:
        cases = list({case.name: case for case in map(shrunk, cases)}.values())
    return cases


def chosen(cases, patterns):
    """The cases whose name fits one of the patterns, and their neighbours."""
    names = {c.name for p in patterns for c in cases if fnmatch.fnmatch(c.name, p)}
    names |= {c.neighbour for c in cases if c.name in names and hasattr(c, "neighbour")}
    return [c for c in cases if c.name in names]


def measure(options, command, cases, make_run):
    """The results of all numbers of threads.

    Args:
        options: Of `parse_arguments`.
        command: The command line, for the page.
        cases: Those with `group` "curve" are measured with most threads only.
        make_run: `Run`, or what is called like it.
    """
    results = harness.heading(()) | {"runs": []}
    if options.append:
        earlier = json.loads(options.json.read_text())
        if earlier["machine"] != results["machine"]:
            raise SystemExit(
                f"--append: {options.json} is of another machine: {earlier['machine']}"
            )
        results["versions"] = earlier["versions"]
        again = [(threads, options.isa) for threads in options.threads]
        results["runs"] = [
            run
            for run in earlier["runs"]
            if (run["threads"], run.get("isa")) not in again
        ]
    sizes = {"milliseconds": 1, "mebibytes": 16} if options.quick else {}
    peak = MachinePeak(**sizes, isa=options.isa)
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
        run = make_run(threads, options, peak, progress)
        before = results["runs"]
        for measured in run.measure(cases_of_run):
            results["runs"] = [*before, how | measured]
            results["versions"] |= run.versions
            if options.json:  # a long run may be cut off
                harness.write_json(results, options.json)
    return results


def list_cases(cases):
    for case in cases:
        bars = [
            case.ahead and f"{case.ahead}x",
            case.of_peak and f"{case.of_peak:.0%}",
        ]
        print(f"{case.name:40}", *filter(None, bars))
