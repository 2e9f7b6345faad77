"""The parts that all programs in tutorials/ share: arguments, checks before the work,
folder, memory, claims, the last line, and the end."""

import argparse
import contextlib
import importlib
import io
import json
import operator
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

LARGEST_SEED = 2**31 - 1


class UserError(RuntimeError):
    """What the user of a program can fix; `run` prints it as one line."""


class ClaimError(AssertionError):
    """A claim that a run contradicts; `run` prints it as one line.

    Attributes:
        changed: Whether options that have a part in the claims are not at their
            defaults.
    """

    def __init__(self, text: str, changed: bool = False) -> None:
        super().__init__(text)
        self.changed = changed


def number(
    least: float, most: float | None = None, kind: type = int
) -> Callable[[str], Any]:
    """Returns a type for `argparse`: a number of a range.

    Args:
        least: The smallest number.
        most: The largest one. None, the default, for any.
        kind: `int` (the default) or `float`.

    Returns:
        Function of a string. It returns the number, or raises
        `argparse.ArgumentTypeError`, which says what was expected and what came.

    Example:

    >>> number(1)("3")
    3
    >>> number(1, 9)("ten")
    Traceback (most recent call last):
    argparse.ArgumentTypeError: must be an integer from 1 to 9, not 'ten'
    """
    wanted = "an integer" if kind is int else "a number"
    wanted += f" of at least {least}" if most is None else f" from {least} to {most}"

    def parse(text: str) -> Any:
        with contextlib.suppress(ValueError):
            value = kind(text)
            if least <= value and (most is None or value <= most):
                return value
        raise argparse.ArgumentTypeError(f"must be {wanted}, not {text!r}")

    return parse


def unicode_text(text: str) -> str:
    """A type for `argparse`: text that was typed in UTF-8, whatever the locale."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:  # bytes that the locale does not know
        typed = os.fsencode(text)
    try:
        return typed.decode()
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(
            f"must be UTF-8, not the bytes {typed!r}"
        ) from None


def file_path(text: str) -> pathlib.Path:
    """A type for `argparse`: a path. TensorFlow writes to none that is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(
            f"must be a path of characters that the locale knows, in UTF-8, not the "
            f"bytes {os.fsencode(text)!r}"
        ) from None
    return pathlib.Path(text)


def argument_parser(
    description: str, out: str, quick: str, seed: str = "of everything random"
) -> argparse.ArgumentParser:
    """Returns a parser with what every tutorial takes: `--seed, --quick, --out`.

    Args:
        description: What the program does, one sentence.
        out: Default folder for pictures and models.
        quick: What `--quick` makes of the run.
        seed: What the seed decides.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--seed", type=number(0, LARGEST_SEED), default=0, help=seed)
    add("--quick", action="store_true", help=quick)
    add("--out", type=file_path, default=pathlib.Path(out), help="results go here")
    parser.set_defaults(parser=parser)  # `conclude` asks it for the defaults
    return parser


# Options that choose what is done. Each of their choices has claims of its own.
_CHOICES = {
    "attention", "data", "model", "out", "parser", "quick", "recipe", "resume", "save",
    "strategy", "text", "workers",
}  # fmt: skip


def _changed_options(args: argparse.Namespace) -> str:
    """The options that have a part in the claims and are not at their defaults."""
    return " ".join(
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
        for name, value in vars(args).items()
        if name not in _CHOICES and value != args.parser.get_default(name)
    )


def require_tensorflow() -> None:
    """Checks that Keras runs on TensorFlow, as the tutorials need it.

    Raises:
        UserError: If it runs on another backend.
    """
    import keras

    if (backend := keras.config.backend()) != "tensorflow":
        raise UserError(
            f"this program needs TensorFlow, and Keras runs on {backend}: unset "
            "KERAS_BACKEND, or set it to tensorflow"
        )


def require_package(name: str, extra: str = "tutorials") -> None:
    """Checks that a package can be imported.

    Args:
        name: As in an `import`.
        extra: The extra of hw3tf that brings it.

    Raises:
        UserError: If it cannot, with the command that installs it.
    """
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"{name} cannot be imported ({error}): pip install 'hw3tf[{extra}]'"
        ) from error


def check_start(args: argparse.Namespace, *packages: str, megabytes: int = 20) -> None:
    """Checks before the work what can be known then, and makes the folder `args.out`.

    Args:
        args: What `argument_parser` has parsed.
        *packages: Names of packages of the extra `tutorials`; matplotlib is always
            one of them.
        megabytes: What the program writes, at most.

    Raises:
        UserError: If a package is missing, or the folder cannot be written to.
    """
    for name in ("matplotlib", *packages):
        require_package(name)
    prepare_folder(args.out)
    free = shutil.disk_usage(args.out).free // 2**20
    if free < megabytes:
        raise UserError(
            f"--out {args.out} cannot be written: about {megabytes} MiB are needed, "
            f"{free} are free"
        )


def prepare_folder(path: str | os.PathLike) -> None:
    """Makes the folder `path` and checks, before hours of work, that it can be
    written to.

    Raises:
        UserError: If it cannot.
    """
    path = pathlib.Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
        for inside in path.iterdir():
            if inside.suffix in (".png", ".svg", ".keras", ".h5", ".npz"):
                _require_place(inside)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"--out {path} cannot be written: {reason}") from error


def prepare_file(path: str | os.PathLike, suffix: str, option: str) -> None:
    """Checks, before hours of work, that a file can be written. What it holds stays.

    Args:
        path: The file.
        suffix: What its name has to end with.
        option: The option of the command line that names it, for the message.

    Raises:
        UserError: If it cannot.
    """
    path = pathlib.Path(path)
    if path.suffix != suffix:
        raise UserError(f"{option} {path} must be a file whose name ends in {suffix}")
    try:
        _require_place(path)
        beside = _beside(path)
        beside.touch()
        beside.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{option} {path} cannot be written: {reason}") from error


def _require_place(path: pathlib.Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, and a file has to go there")


def _beside(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f".part.{path.name}")


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a path beside `path` to write to; the file takes its place when the block
    ends, and goes if the block fails: nobody finds half a file.

    >>> with whole_file("results.txt") as beside:  # doctest: +SKIP
    ...     beside.write_text("all of them")
    """
    path = pathlib.Path(path)
    beside = _beside(path)
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def available_memory() -> int | None:
    """Bytes that this process can still take; None where that is not known."""
    found = []
    with contextlib.suppress(OSError, StopIteration):
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable"))
        found.append(1024 * int(line.split()[1]))
    with contextlib.suppress(OSError, ValueError):  # "max": no limit
        group = pathlib.Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        found.append(limit - int((group / "memory.current").read_text()))
    return min(found, default=None)


def require_memory(needed: float, what: str) -> None:
    """Checks before hours of work that they fit into memory.

    Args:
        needed: Bytes, an estimate.
        what: What needs them, and what to change, for the message.

    Raises:
        UserError: If less is available.
    """
    available = available_memory()
    if available is not None and needed > available:
        gib = [f"{size / 2**30:.1f} GiB" for size in (needed, available)]
        raise UserError(f"{what} needs about {gib[0]} of memory, {gib[1]} are free")


def peak_memory() -> float:
    """The largest number of MiB that this process has held."""
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def print_summary(tutorial: str, results: dict) -> None:
    """Prints one line of JSON, for scripts: `tutorial` and what is in `results`,
    arrays as lists, numbers with six digits."""

    def plain(value: Any) -> Any:
        value = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(value, dict):
            return {str(k): plain(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        return float(f"{value:.6g}") if isinstance(value, float) else value

    print(json.dumps({"tutorial": tutorial, **plain(results)}), flush=True)


_RELATIONS: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "<": (operator.lt, "less than "),
    "<=": (operator.le, "at most "),
    "==": (operator.eq, ""),
    ">=": (operator.ge, "at least "),
    ">": (operator.gt, "more than "),
}


def claim(
    what: str, found: Any, relation: str, wanted: Any, within: float = 0.0
) -> None:
    """Checks a claim, under `python -O`, too.

    Args:
        what: What was measured.
        found: What the run has found.
        relation: `"<"`, `"<="`, `"=="`, `">="`, `">"`, or `"~"`: numbers or arrays that
            differ by less than `within` everywhere.
        wanted: What the claim says.
        within: For `"~"`.

    Raises:
        ClaimError: If `found relation wanted` is not true.

    Example:

    >>> claim("test accuracy", 0.91, ">=", 0.9)
    >>> claim("area", 3.14, "~", 3.1416, 0.01)
    >>> claim("test accuracy", 0.8912345, ">=", 0.9)
    Traceback (most recent call last):
    hw3tf.course.tutorial.ClaimError: test accuracy: wanted at least 0.9, found 0.891234
    """
    if relation == "~":
        import numpy as np

        what, relation = f"{what}, largest error", "<"
        found, wanted = np.max(np.abs(np.subtract(found, wanted))), within
    holds, words = _RELATIONS[relation]
    if not holds(found, wanted):
        raise ClaimError(
            f"{what}: wanted {words}{_short(wanted)}, found {_short(found)}"
        )


def _short(value: Any) -> str:
    value = value.tolist() if hasattr(value, "tolist") else value
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def conclude(
    tutorial: str, results: dict, check: Callable[[], None], args: argparse.Namespace
) -> None:
    """Checks the claims and prints the summary, whether they hold or not.

    Args:
        tutorial, results: As for `print_summary`.
        check: Function that raises ClaimError if a claim does not hold.
        args: What `argument_parser` has parsed.

    Raises:
        ClaimError: As `check` does. It names the options that may be why.
    """
    try:
        check()
    except ClaimError as error:
        if not (changed := _changed_options(args)):
            raise
        raise ClaimError(f"{error}; {changed} may be why", changed=True) from None
    finally:
        print_summary(tutorial, results)


def run(main: Callable[[list[str] | None], Any]) -> None:
    """Runs `main(argv)` of a tutorial with the arguments of the command line.

    The exit status is 0 if all claims hold. Otherwise one line on standard error says
    what is wrong:

    - 1: a claim does not hold.
    - 2: `UserError`; a wrong argument or what else keeps the program from working.
    - 3: a claim does not hold, and numbers that the user has chosen may be why.
    - 130: Ctrl-C.

    Other exceptions are bugs, and shown whole. In a notebook, whose command line is the
    kernel's, there are no arguments, and every error is an exception. Characters that
    standard output cannot encode are printed as question marks.
    """
    if "ipykernel" in sys.modules:
        # Short runs for who builds the site.
        main(os.environ.get("HW3TF_TUTORIAL_ARGUMENTS", "").split())
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    program = pathlib.Path(sys.argv[0]).name
    try:
        main(None)
    except UserError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except ClaimError as error:
        print(f"{program}: a claim does not hold: {error}", file=sys.stderr)
        raise SystemExit(3 if error.changed else 1) from None
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        raise SystemExit(130) from None
