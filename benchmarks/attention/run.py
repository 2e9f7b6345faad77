"""Attention by hw3tf and by everything else that computes it exactly on a CPU.

    python benchmarks/attention/run.py --threads 1,2 --json attention.json

One process per library, of which one at a time is awake; the libraries take turns in
every round, beside the peak of the machine. A peer that is not installed, that does
not cover a case or computes it wrongly is named and left out.

    python benchmarks/attention/run.py --list
    python benchmarks/attention/run.py --cases 'odd-*' --odd 24 --seed 7
    python benchmarks/attention/run.py --cases 'padded-*' --libraries hw3tf,torch
    python benchmarks/attention/run.py --curve --picture attention.png
    python benchmarks/attention/run.py --float64 --libraries hw3tf,keras,torch
"""

import pathlib
import sys

if not __package__:  # run as a program: what it imports is in the folder above
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

import harness
import libraries.run
from attention import cases as attention_cases
from attention.peers import PEERS
from attention.report import draw, report

PROGRAM = "attention/run.py"
# The kernel without TensorFlow is asked for by name, alone or in JAX.
LIBRARIES = [name for name in PEERS if not name.startswith("hw3tf-")]


class Run(libraries.run.Run):
    worker = "attention.worker"
    wrong = staticmethod(attention_cases.wrong)

    def right(self, case):
        return attention_cases.reference(case, attention_cases.make_inputs(case))

    def passes_over(self, case, library):
        return case.group == "neighbour" and not library.startswith("hw3tf")

    def described(self, case):
        of_keys = {"bytes": case.bytes_of("key", "value"), "bound": case.bound}
        return super().described(case) | of_keys


def parse_arguments(argv):
    parser = libraries.run.parser(__doc__, PEERS, LIBRARIES)
    add = parser.add_argument
    add("--odd", type=int, default=12, help="how many cases odd-* are drawn")
    add("--seed", type=int, default=0, help="what they are drawn from")
    add("--float64", action="store_true", help="the cases in float64 instead")
    return libraries.run.parse_arguments(parser, argv, PEERS)


def choose(options):
    """The cases that the options ask for."""
    table = attention_cases.float64 if options.float64 else attention_cases.table
    return libraries.run.choose(
        options,
        table(),
        attention_cases.curve(),
        attention_cases.odd(options.odd, options.seed),
        attention_cases.shrunk,
    )


def measure(options, command):
    return libraries.run.measure(options, command, choose(options), Run)


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
