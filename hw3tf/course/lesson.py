"""The runner of a lesson: its settings, pictures, claims, progress and end.

A lesson is a notebook and a program in one file. The file holds the text and the
experiments; the command line, the files and the summary are here.
"""

import argparse
import contextlib
import dataclasses
import io
import logging
import operator
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import keras
import numpy as np

from hw3tf.course.plots import save_figure
from hw3tf.course.tutorial import (
    LARGEST_SEED,
    UserError,
    argument_parser,
    check_start,
    number,
    print_summary,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Item = TypeVar("Item")

_RELATIONS: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "<": (operator.lt, "less than "),
    "<=": (operator.le, "at most "),
    "==": (operator.eq, ""),
    ">=": (operator.ge, ""),
    ">": (operator.gt, "more than "),
    "~": (operator.lt, ""),
}
_SECONDS_BETWEEN_REPORTS = 2.0


@dataclasses.dataclass
class Claim:
    """One line of the summary.

    Attributes:
        number: That of the claim in the opening of the lesson; several may share one.
        what: What was measured.
        wanted: What the claim says, in words.
        found: What the run has found, in words.
        held: Whether it holds. None if this run does not judge it.
        needs: What a run needs to judge it, beside being a full one; often nothing.
    """

    number: int
    what: str
    wanted: str
    found: str
    held: bool | None
    needs: str = ""

    def verdict(self) -> str:
        return {True: "holds", False: "does not hold", None: "not judged"}[self.held]

    def __str__(self) -> str:
        if self.held is None:
            where, these = "in a full run", "quick runs do not judge it"
            if self.needs:
                where, these = f"{where} on {self.needs}", "this run does not judge it"
            return (
                f"claim {self.number}: {self.wanted} wanted {where}; {these} "
                f"({self.found} here) [{self.what}]"
            )
        return (
            f"claim {self.number}: {self.wanted} wanted, {self.found} found: "
            f"{self.verdict()} [{self.what}]"
        )


class Lesson:
    """What a lesson needs beside its text and its experiments.

    Args:
        name: The name of its file, without `.py`.
        claims: How many claims its opening lists.
        program: Function that takes over if the command line has an option that is
            none of the lesson's. It reads `sys.argv` itself.

    Example:

    >>> lesson = Lesson("06_squares", claims=1)  # doctest: +SKIP
    >>> settings = lesson.settings(num_points=(10, 1000))  # doctest: +SKIP
    >>> lesson.claim(1, "largest square", 81, "<", 100)  # doctest: +SKIP
    claim 1: less than 100 wanted, 81 found: holds [largest square]
    >>> lesson.finish(largest=81)  # doctest: +SKIP
    """

    def __init__(
        self, name: str, claims: int, program: Callable[[], Any] | None = None
    ) -> None:
        self.name = name
        self.program = program
        self.num_claims = claims
        self.in_notebook = "ipykernel" in sys.modules
        self.full = False
        self.out = pathlib.Path("runs", name.partition("_")[2])
        self.changed = ""
        self._settings: dict[str, Any] = {}
        self._claims: dict[tuple[int, str], Claim] = {}
        # A lesson builds one net after the other, each with a graph of its own.
        # TensorFlow warns of that, as of a mistake.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        if not self.in_notebook:
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(errors="replace")
            sys.excepthook = _end_in_one_line

    # -- Settings

    def settings(
        self,
        full: bool = False,
        choices: Mapping[str, Sequence[str]] | None = None,
        **values: Any,
    ) -> SimpleNamespace:
        """Returns the settings of this run, and prints them.

        A program makes a full run, or a short one with `--quick`. Each setting is an
        option, too: `num_points` is `--num-points`. A notebook makes a short run,
        unless `full` is true or the variable HW3TF_TUTORIAL_ARGUMENTS has other
        arguments.

        Args:
            full: In a notebook, whether to make a full run.
            choices: Dict from the name of a setting to the texts that it may be. Such
                a setting chooses what is done, and each choice has claims of its own.
            **values: Names of settings and their values: a pair (short run, full run),
                or one value for both.

        Raises:
            UserError: If the program cannot run, as `check_start` finds.
        """
        pairs = {k: v if isinstance(v, tuple) else (v, v) for k, v in values.items()}
        if self.in_notebook:
            default = "" if full else "--quick"
            argv = os.environ.get("HW3TF_TUTORIAL_ARGUMENTS", default).split()
        else:
            argv = sys.argv[1:]
        parser = self._parser(pairs, choices or {})
        args, others = parser.parse_known_args(argv)
        if others and self.program and not self.in_notebook:
            self.program()
            raise SystemExit
        if others:
            parser.error(f"unrecognized arguments: {' '.join(others)}")
        self.full, self.out = not args.quick, args.out
        if not self.in_notebook:
            check_start(args)
        chosen = {k: getattr(args, k) for k in pairs if hasattr(args, k)}
        usual = {k: pair[self.full] for k, pair in pairs.items()}
        self.changed = " ".join(
            f"--{name.replace('_', '-')} {value}"
            for name, value in chosen.items()
            if value != usual[name] and name not in (choices or {})
        )
        self._settings, self._claims = usual | chosen, {}
        kind = "Full" if self.full else "Short"
        words = (f"{name} {_text(value)}" for name, value in self._settings.items())
        print(f"{kind} run of {self.name}: {', '.join(words)}", flush=True)
        return SimpleNamespace(**self._settings)

    def _parser(
        self, pairs: dict[str, tuple[Any, Any]], choices: Mapping[str, Sequence[str]]
    ) -> argparse.ArgumentParser:
        parser = argument_parser(
            f"Tutorial {self.name}, from its first cell to its last.",
            out=str(self.out),
            quick="a short run, with the settings of the notebook",
        )
        for name, (short, full) in pairs.items():
            if name == "seed":  # which every tutorial has
                parser.set_defaults(seed=full)
                continue
            option = f"--{name.replace('_', '-')}"
            if name in choices:
                parser.add_argument(
                    option,
                    choices=choices[name],
                    default=argparse.SUPPRESS,
                    help=f"{short} by default",
                )
                continue
            least = 1 if short > 1 else -LARGEST_SEED
            parser.add_argument(
                option,
                type=number(least, LARGEST_SEED, type(full)),
                default=argparse.SUPPRESS,
                help=f"{short:,} by default"
                if short == full
                else f"{short:,} in a short run, {full:,} in a full run",
            )
        return parser

    # -- Pictures

    def show(self, name: str, figure: "Figure") -> None:
        """Shows a figure: in a notebook below the cell, in a program as a file.

        Args:
            name: The file is `name.png` in the folder `--out`, with `name.svg` beside
                it.
            figure: A matplotlib figure.
        """
        if self.in_notebook:
            from IPython.display import Image, display

            picture = io.BytesIO()
            figure.savefig(picture, format="png", dpi=120)
            # The name stays with the output: docs/stored_runs.py looks for it.
            about = {"name": name}
            display(Image(data=picture.getvalue(), format="png", metadata=about))
        else:
            save_figure(figure, self.out / f"{name}.png")
            print(f"picture: {self.out / name}.png", flush=True)

    # -- Claims

    def claim(
        self,
        number: int,
        what: str,
        found: Any,
        relation: str,
        wanted: Any,
        within: float = 0.0,
        full: bool = False,
        needs: str = "",
    ) -> None:
        """Judges a claim, keeps it for the summary and prints it. It never raises
        because of what was found.

        Args:
            number: That of the claim in the opening of the lesson.
            what: What was measured.
            found: What the run has found.
            relation: `"<"`, `"<="`, `"=="`, `">="`, `">"`, or `"~"`: numbers or arrays
                that differ by less than `within` everywhere.
            wanted: What the claim says.
            within: For `"~"`.
            full: Whether only a full run judges it. Defaults to `False`.
            needs: The data without which it is not judged, if this run lacks them.

        Raises:
            ValueError: If there is no such relation, or no claim of this number.
        """
        if not 1 <= number <= self.num_claims:
            raise ValueError(f"`number` must be 1..{self.num_claims}, not {number}")
        if relation not in _RELATIONS:
            raise ValueError(
                f"`relation` must be one of {' '.join(_RELATIONS)}, not {relation}"
            )
        compare, words = _RELATIONS[relation]
        wanted_text, found_text = words + _text(wanted), _text(found)
        if relation == "~":
            error = _largest_error(found, wanted)
            if np.ndim(wanted):
                what, found_text = f"{what}, largest error", _text(error)
                wanted_text = f"less than {_text(within)}"
            else:
                wanted_text += f" within {_text(within)}"
            found, wanted = error, within
        held: bool | None = None
        if not needs and (self.full or not full):
            try:
                held = bool(compare(found, wanted))
            except (TypeError, ValueError):  # of another type or shape than wanted
                held = False
        record = Claim(number, what, wanted_text, found_text, held, needs)
        self._claims[number, what] = record  # a cell that is run again replaces it
        print(record, flush=True)

    def _held(self, number: int) -> bool | None:
        """Whether all that was found for a claim holds; None if not all was judged."""
        found = [c.held for (n, _), c in self._claims.items() if n == number]
        if False in found:
            return False
        return None if None in found or not found else True

    # -- Progress

    def progress(self, items: Sequence[Item], what: str) -> Iterator[Item]:
        """Yields the items of a sequence, and reports every few seconds.

        Args:
            items: What a loop goes through.
            what: What the loop does, for the reports.
        """
        report = _Report(what)
        for done, item in enumerate(items):
            report(done / len(items))
            yield item
        report.end()

    def training(self, what: str) -> keras.callbacks.Callback:
        """Returns a callback for `keras.Model.fit` and `predict` that reports progress.

        Args:
            what: What is trained, for the reports.
        """
        return _TrainingReport(what)

    # -- End

    def finish(self, **results: Any) -> None:
        """Prints the results and all claims as tables; a program then prints one line
        of JSON and ends.

        The exit status is 0 if every claim that was judged holds. It is 1 if one does
        not, and 3 if one does not and the reader has changed settings.

        Args:
            **results: Numbers, texts, or dicts of them.
        """
        print("\nResults")
        rows = list(_rows(results))
        width = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            print(f"  {name:{width}}  {value}")
        claims = [self._claims[key] for key in sorted(self._claims, key=lambda k: k[0])]
        print("\nClaims")
        table = [
            (str(c.number), f"{c.wanted} wanted", f"{c.found} found", c.verdict())
            for c in claims
        ]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for claim, row in zip(claims, table, strict=True):
            cells = (x.ljust(w) for x, w in zip(row, widths, strict=True))
            print(f"  {'  '.join(cells)}  {claim.what}")
        print(self.verdict(), flush=True)
        if self.in_notebook:
            return
        summary = {
            "full": self.full,
            "settings": self._settings,
            "claims": [
                {
                    "claim": c.number,
                    "what": c.what,
                    "wanted": c.wanted,
                    "found": c.found,
                    "held": c.held,
                }
                for c in claims
            ],
        }
        print_summary(self.name, {**results, **summary})
        if status := self.status():
            raise SystemExit(status)

    def verdict(self) -> str:
        """What can be said of all claims. "All claims hold." is said only if this run
        has judged every one at its stated bar, with the settings of the lesson."""
        numbers = range(1, self.num_claims + 1)
        reached = {n for n, _ in self._claims}
        by_verdict: dict[bool | None, list[int]] = {True: [], False: [], None: []}
        for n in numbers:
            by_verdict[self._held(n)].append(n)
        if len(by_verdict[True]) == self.num_claims and not self.changed:
            return "All claims hold."
        words = []
        if by_verdict[True]:
            words.append(f"Claims that hold: {_listed(by_verdict[True])}.")
        if failed := by_verdict[False]:
            why = f" ({self.changed} may be why)" if self.changed else ""
            words.append(f"Claims that do not hold: {_listed(failed)}{why}.")
        elif self.changed:
            words.append(f"This run has changed settings: {self.changed}.")
        if unjudged := [n for n in by_verdict[None] if n in reached]:
            needs = {c.needs for (n, _), c in self._claims.items() if n in unjudged}
            where = "".join(f" on {name}" for name in sorted(needs) if name)
            words.append(
                f"Claims that only a full run{where} judges: {_listed(unjudged)}."
            )
        if missing := [n for n in numbers if n not in reached]:
            words.append(f"Claims whose cells were not run: {_listed(missing)}.")
        return " ".join(words)

    def status(self) -> int:
        """The exit status of the program; see `finish`."""
        if any(claim.held is False for claim in self._claims.values()):
            return 3 if self.changed else 1
        return int({n for n, _ in self._claims} != {*range(1, self.num_claims + 1)})


def _largest_error(found: Any, wanted: Any) -> Any:
    """Of numbers or arrays; what was found, if it cannot be compared."""
    try:
        return np.max(np.abs(np.subtract(found, wanted)))
    except (TypeError, ValueError):
        return found


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _text(value: Any) -> str:
    """A number or a list of them, for people, in one line."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_text, value))}]"
    return str(value)


def _rows(results: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Names and values of results; those inside of a dict have both names."""
    for key, value in results.items():
        name = f"{before}{str(key).replace('_', ' ')}"
        if isinstance(value, dict):
            yield from _rows(value, f"{name}, ")
        else:
            yield name, _text(value)


class _Report:
    """Says how far a piece of work is, two seconds after its start and then every two
    seconds: in a new line, or in a notebook or a terminal in the same."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.start = self.last = time.monotonic()
        self.width = 0
        self.same_line = "ipykernel" in sys.modules or sys.stdout.isatty()

    def __call__(self, share: float, note: str = "") -> None:
        now = time.monotonic()
        if now - self.last < _SECONDS_BETWEEN_REPORTS:
            return
        self.last, passed = now, now - self.start
        # The first step builds TensorFlow's graph, and says nothing of the others.
        left = f", about {passed / share - passed:.0f} s left" if share > 0.02 else ""
        self.write(f"{self.what}: {share:.0%} after {passed:.0f} s{left}{note}")

    def write(self, text: str) -> None:
        if self.same_line:
            print(f"\r{text.ljust(self.width)}", end="", flush=True)
        else:
            print(text, flush=True)
        self.width = len(text)

    def end(self, note: str = "") -> None:
        if self.width:
            self.write(
                f"{self.what}: done in {time.monotonic() - self.start:.1f} s{note}"
            )
            if self.same_line:
                print(flush=True)


class _TrainingReport(keras.callbacks.Callback):
    """Reports the steps of `fit`, of all epochs together."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.report = _Report(self.what)
        self.report.write(f"{self.what}: the first step takes longest")
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(
        self, batch: int, logs: dict[str, float] | None = None
    ) -> None:
        steps, epochs = self.params["steps"], self.params["epochs"]
        if steps:
            self.report((self.epoch + (batch + 1) / steps) / epochs, _note(logs))

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self.report.end(_note(logs))

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.report = _Report(f"{self.what}, test")

    def on_predict_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        if steps := self.params["steps"]:
            self.report((batch + 1) / steps)

    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        self.report.end()


def _note(logs: dict[str, float] | None) -> str:
    """Loss and accuracy in training, as far as they are known."""
    logs = logs or {}
    return "".join(f", {k} {logs[k]:.3f}" for k in ("loss", "accuracy") if k in logs)


def _end_in_one_line(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Takes the place of `sys.excepthook`: what the user can fix is one line."""
    program = pathlib.Path(sys.argv[0]).name
    if issubclass(kind, UserError):
        print(f"{program}: error: {error}", file=sys.stderr)
        raise SystemExit(2)
    if issubclass(kind, KeyboardInterrupt):
        with contextlib.suppress(OSError):
            print("Interrupted.", file=sys.stderr)
        raise SystemExit(130)
    sys.__excepthook__(kind, error, trace)
