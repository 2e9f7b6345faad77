"""Processes that are measured in turn, and the files that a measurement is written to.

A program starts a `Process` for each library, asks one at a time, and writes JSON and
tables. The process runs this file:

    python harness.py MODULE ARGUMENTS

which makes `MODULE.Worker(*ARGUMENTS)` and calls a method of it for every line on
stdin, {"do": its name, and its arguments}. The answer is a dict, a line of JSON on
stdout; {"error": ...} says what went wrong. An exception does not end the process.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import functools
import gc
import importlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

_T = TypeVar("_T")
ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "KERAS_BACKEND": "tensorflow",
    "CUDA_VISIBLE_DEVICES": "",
}
SECONDS_FOR_AN_ANSWER = 900
END = "<!-- to here -->"
STATUS = pathlib.Path("/proc/self/status")


def say(*words: object) -> None:
    """Prints to stderr: stdout is for the tables."""
    print(*words, file=sys.stderr, flush=True)


# -- Processes and turns


class Process:
    """A worker of `module` in a process of its own, asleep except while it answers.

    It starts when it is first asked, and anew when it is asked after its end.

    Args:
        module: Name of the module, from this folder: "attention.worker".
        arguments: Of its class `Worker`; strings when they arrive.
        environment: Variables to set beside `ENVIRONMENT`; None removes one.
    """

    def __init__(
        self,
        module: str,
        *arguments: object,
        environment: Mapping[str, str | None] | None = None,
    ) -> None:
        self.last_words = ""
        self.command = [sys.executable, __file__, module, *map(str, arguments)]
        wanted = {**os.environ, **ENVIRONMENT, **(environment or {})}
        self.environment = {k: v for k, v in wanted.items() if v is not None}
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def ask(self, do: str, **message: Any) -> dict[str, Any]:
        """The worker's answer, {"error": ...} if it ended, hangs or cannot start."""
        if self.process is None:
            self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115, until it ends
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                text=True,
                env=self.environment,
            )
            hello = self._answer(self.process)
            if "error" in hello:
                self.end()
                return hello
        self._signal("SIGCONT")
        with contextlib.suppress(BrokenPipeError):
            line = json.dumps({"do": do, **message})
            print(line, file=self.process.stdin, flush=True)
        return self._answer(self.process)

    def demand(self, do: str, **message: Any) -> dict[str, Any]:
        """The same; `SystemExit` with the worker's words instead of an error."""
        answer = self.ask(do, **message)
        if "error" in answer:
            self.end()
            words = self.last_words[-2000:] or answer["error"]
            raise SystemExit(f"{self.command[2]} {do} failed:\n{words}")
        return answer

    def _answer(self, process: "subprocess.Popen[str]") -> dict[str, Any]:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], SECONDS_FOR_AN_ANSWER)
        line = process.stdout.readline() if ready else ""
        if line:
            self._signal("SIGSTOP")
            return dict(json.loads(line))
        self.end()
        last = (self.last_words.strip().splitlines() or ["without a word"])[-1]
        return {"error": f"died: {last}" if ready else "no answer"}

    def _signal(self, name: str) -> None:
        if self.process and hasattr(signal, name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, getattr(signal, name))

    def end(self) -> None:
        """Ends the process, if it runs, and with it all memory that it kept."""
        if self.process is None:
            return
        self.process.kill()
        with contextlib.suppress(BrokenPipeError), self.process:
            pass  # closes its pipes and waits for its end
        self.process = None
        with self.log:
            self.log.seek(0)
            self.last_words = self.log.read()


def ask_once(
    module: str, *arguments: object, do: str, **message: Any
) -> dict[str, Any]:
    """The answer of a process that does nothing else; `SystemExit` if it fails."""
    with Process(module, *arguments) as process:
        return process.demand(do, **message)


def serve(module: str, *arguments: str) -> None:
    """The loop of a worker's process."""
    # Answers go where stdout went; what libraries print goes to stderr.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # ends with its parent

    def answer(make: Callable[[], dict[str, Any] | None]) -> bool:
        try:
            message = make() or {}
        except Exception as error:  # what a library raises is its own affair
            traceback.print_exc()
            absent = isinstance(error, ImportError)
            what = "not installed" if absent else type(error).__name__
            message = {"error": f"{what}: {error}"[:300]}
        print(json.dumps(message), file=answers, flush=True)
        return "error" not in message

    worker: Any = None

    def start() -> None:
        nonlocal worker
        worker = importlib.import_module(module).Worker(*arguments)

    if answer(start):
        for line in sys.stdin:
            message = json.loads(line)
            method = getattr(worker, message.pop("do"))
            answer(functools.partial(method, **message))


@dataclasses.dataclass(frozen=True)
class InARow:
    """A call, and `count` of them that a library makes as one."""

    once: Callable[[], Any]
    row: Callable[[], Any]
    count: int

    def __call__(self) -> Any:
        return self.once()


def in_turn(these: Iterable[_T], number: int) -> list[_T]:
    """The order of round `number`: each round begins with another one."""
    order = list(these)
    first = number % max(1, len(order))
    return order[first:] + order[:first]


class Progress:
    """Says what is done and about how long the rest takes."""

    def __init__(self, steps: int) -> None:
        self.start, self.steps, self.done = time.monotonic(), steps, 0

    def step(self, *words: object) -> None:
        self.done += 1
        spent = time.monotonic() - self.start
        left = spent / self.done * (self.steps - self.done)
        done = f"{self.done} of {self.steps}, {spent / 60:.1f} min"
        say(f"[{done}, {left / 60:.1f} left]", *words)


# -- Memory of the process that calls


def resident(field: str = "VmRSS") -> int | None:
    """Bytes of memory in use, or with "VmHWM" at most; None if nobody tells."""
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith(field):
                return 1024 * int(line.split()[1])
    return None


def give_back() -> None:
    """Returns what is freed to the system, so that the next peak shows."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def forget_peak() -> bool:
    """Starts VmHWM anew from what is in use; False if the system cannot."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return resident("VmHWM") is not None


# -- Where and when


def machine() -> str:
    """Processor, processors, memory and system, in words."""
    model, memory = platform.processor() or platform.machine(), ""
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        pairs = (line.split(":", 1) for line in info.read_text().splitlines() if line)
        fields = {k.strip(): v.strip() for k, v in pairs}
        model = fields.get("model name", model)
        family = [fields.get(k, "?") for k in ("cpu family", "model")]
        model += f" (family {family[0]}, model {family[1]})"
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        memory = f", {size / 2**30:.0f} GiB"
    system = f"{platform.system()}, Python {platform.python_version()}"
    return f"{model}, {os.cpu_count()} processors{memory}, {system}"


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def heading(packages: Iterable[str]) -> dict[str, Any]:
    """The beginning of the results of a run."""
    return {
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions(packages),
    }


def heading_in_words(results: Mapping[str, Any], commands: Iterable[str]) -> str:
    """The same in Markdown, and the commands of the run."""
    packages = ", ".join(f"{k} {v}" for k, v in sorted(results["versions"].items()))
    where = f"Machine: {results['machine']}. {results['date']}.\n{packages}."
    return "\n".join([where, "\n```", *commands, "```"])


# -- Options, tables, files


def parser(documentation: str) -> argparse.ArgumentParser:
    """With the options that all programs share.

    Args:
        documentation: The program's docstring: a line, and what follows `--help`.
    """
    first, _, rest = documentation.partition("\n\n")
    made = argparse.ArgumentParser(
        description=first,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--quick", action="store_true", help="tiny sizes: only to see that all works")
    add("--json", type=pathlib.Path, help="write every figure here")
    add(
        "--markdown",
        type=pathlib.Path,
        help="write the tables here, or between the marks of this file",
    )
    add("--from-json", type=pathlib.Path, help="measure nothing, report this file")
    return made


def command(program: str, arguments: Sequence[object] | None) -> str:
    """The command line of a run, as the page shows it.

    Args:
        program: From this folder: "attention/run.py".
        arguments: Those of `main`; None: those of the process.
    """
    words = sys.argv[1:] if arguments is None else arguments
    return shlex.join(["python", f"benchmarks/{program}", *map(str, words)])


def publish(
    program: str,
    options: argparse.Namespace,
    measure: Callable[[], dict[str, Any]],
    report: Callable[[dict[str, Any]], str],
) -> dict[str, Any]:
    """Measures, or reads an earlier run, and writes what the options ask for.

    Args:
        program: Whose marks are looked for on the page.
        options: Of `parser`.
        measure: Makes the results.
        report: Puts them into Markdown.

    Returns:
        The results.
    """
    stored = options.from_json
    results: dict[str, Any] = json.loads(stored.read_text()) if stored else measure()
    if options.json:
        write_json(results, options.json)
    text = report(results)
    print(text)
    if options.markdown:
        write_markdown(text, options.markdown, program)
    return results


def run(
    program: str,
    documentation: str,
    measure: Callable[[argparse.Namespace, str], dict[str, Any]],
    report: Callable[[dict[str, Any]], str],
    arguments: Sequence[object] | None = None,
) -> dict[str, Any]:
    """A whole program that has no options of its own: `parser`, then `publish`.

    Args:
        program: As for `publish`.
        documentation: Of the program.
        measure: Makes the results from the options and the command line.
        report: As for `publish`.
        arguments: Of the command line; None: those of the process.
    """
    words = None if arguments is None else [str(word) for word in arguments]
    options = parser(documentation).parse_args(words)
    line = command(program, arguments)
    return publish(program, options, lambda: measure(options, line), report)


def write_json(results: dict[str, Any], path: pathlib.Path) -> None:
    path.write_text(json.dumps(results, indent=1) + "\n")


def write_markdown(text: str, path: pathlib.Path, program: str) -> None:
    """Writes a file, or the text between the program's marks if it has them."""
    old = path.read_text() if path.exists() else ""
    before, begin, rest = old.partition(begin_of(program))
    _, end, after = rest.partition(END)
    if end:
        text = f"{before}{begin}\n\n{text}\n{end}{after}"
    path.write_text(text)


def begin_of(program: str) -> str:
    return f"<!-- {program} writes from here -->"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown that is readable as text too: columns padded to one width."""
    rows = list(rows)
    widths = [max(2, *map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * widths[0]] + ["-" * (w - 1) + ":" for w in widths[1:]]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def remarks(pairs: Iterable[tuple[str, str]], cases: int) -> str:
    """A list in Markdown of each text and the names that it was said of."""
    names_of: dict[str, list[str]] = {}
    for text, name in pairs:
        names_of.setdefault(" ".join(text.split()), []).append(name)
    return "\n".join(
        f"- {text} ({'all' if len(names) == cases else ', '.join(names)})"
        for text, names in names_of.items()
    )


def draw(
    path: pathlib.Path,
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    styles: Mapping[str, tuple[str, str, float]],
    labels: Mapping[str, str],
    finish: Callable[[Any], None],
) -> None:
    """Draws lines of all libraries in rows of two panels, and their legend.

    Args:
        path: PNG file to write.
        panels: Title -> name of a library -> its points; an even number of them.
        styles: Name of a library -> colour, marker, width of its line.
        labels: "title" of the picture, "x" and "y" of the axes; "x" has a line for
            each row of panels.
        finish: Called with the list of all axes, before the legend is made.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    below_each = labels["x"].splitlines()
    rows = len(below_each)
    figure = Figure(figsize=(11, 1 + 4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, 2, sharey=True, squeeze=False).flat)
    for i, (axis, (title, lines)) in enumerate(zip(axes, panels.items(), strict=True)):
        for name, points in lines.items():
            if not points:
                continue
            colour, marker, width = styles[name]
            look = {"color": colour, "marker": marker, "linewidth": width}
            xy = zip(*points, strict=True)
            axis.plot(*xy, **look, markersize=5, zorder=1 + width, label=name)
        axis.grid(alpha=0.25)
        axis.set_xlabel(below_each[i // 2])
        axis.set_title(title)
    for axis in axes[::2]:
        axis.set_ylabel(labels["y"])
    finish(axes)
    handles = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    below = {"loc": "outside lower center", "ncols": 5, "frameon": False}
    figure.legend(handles=list(handles.values()), **below)
    figure.suptitle(labels["title"])
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    serve(*sys.argv[1:])
