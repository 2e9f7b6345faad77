"""LSTM, GRU and simple RNN by hw3tf and by everything else that computes them on a CPU.

    python benchmarks/recurrence/layers/run.py --threads 1,2 --json layers.json

One process per library, of which one at a time is awake; the libraries take turns in
every round, beside the peak of the machine. A peer that is not installed, that does
not cover a case or computes it wrongly is named and left out. The judge is Keras in
float64.

    python benchmarks/recurrence/layers/run.py --list
    python benchmarks/recurrence/layers/run.py --cases 'gru-*' --libraries hw3tf,torch
    python benchmarks/recurrence/layers/run.py --isa avx2 --append --json layers.json
    python benchmarks/recurrence/layers/run.py --curve --picture layers.png
"""

import dataclasses
import functools
import pathlib
import sys

if not __package__:  # run as a program: what it imports is two folders above
    sys.path[0] = str(pathlib.Path(__file__).parents[2])

import harness
import libraries.run
from recurrence.layers import cases as layer_cases
from recurrence.layers.peers import PEERS
from recurrence.layers.report import draw, report

PROGRAM = "recurrence/layers/run.py"
# The kernel without TensorFlow is asked for by name.
LIBRARIES = [name for name in PEERS if not name.startswith("hw3tf-")]


class Judge:
    """What is right, by name of the case."""

    def __init__(self):
        self.process = harness.Process("recurrence.layers.worker", "judge", 2)
        self.found = {}

    def rows(self, case):
        if case.name not in self.found:
            answer = self.process.demand("rows", case=dataclasses.asdict(case))
            self.found[case.name] = answer["rows"]
        return self.found[case.name]


class Run(libraries.run.Run):
    worker = "recurrence.layers.worker"
    wrong = staticmethod(layer_cases.wrong)

    def __init__(self, judge, *args):
        super().__init__(*args)
        self.right = judge.rows

    def passes_over(self, case, library):
        """XLA compiles the loop of a training step for a minute: the table has it,
        and no point of the curves."""
        return library == "keras-xla" and case.is_curve

    def described(self, case):
        more = {"group": case.group, "bytes_from_cache": case.bytes_from_cache}
        return super().described(case) | more


def parse_arguments(argv):
    parser = libraries.run.parser(__doc__, PEERS, LIBRARIES)
    return libraries.run.parse_arguments(parser, argv, PEERS)


def choose(options):
    """The cases that the options ask for."""
    table, curve = layer_cases.table(), layer_cases.curve()
    return libraries.run.choose(options, table, curve, shrunk=layer_cases.shrunk)


def measure(options, command):
    judge = Judge()
    make_run = functools.partial(Run, judge)
    with judge.process:
        return libraries.run.measure(options, command, choose(options), make_run)


def main(argv=None):
    options = parse_arguments(argv)
    if options.list:
        libraries.run.list_cases(choose(options))
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
