"""What the programs in tutorials/ share: their arguments, their folder, their memory,
their last line, and how they end."""

import argparse
import contextlib
import json
import os
import pathlib
import sys
import tempfile


class UserError(Exception):
    """What the user of a program can mend; `run` prints it as one line."""


def argument_parser(description, out, quick, seed="of everything random"):
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
    add("--seed", type=int, default=0, help=seed)
    add("--quick", action="store_true", help=quick)
    add("--out", type=pathlib.Path, default=pathlib.Path(out), help="results go here")
    return parser


def prepare_folder(path):
    """Makes the folder `path` and checks, before hours of work, that it can be
    written to.

    Raises:
        UserError: If it cannot.
    """
    try:
        pathlib.Path(path).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"--out {path} cannot be written: {reason}") from error


@contextlib.contextmanager
def whole_file(path):
    """Yields a path beside `path` to write to; the file takes its place when the block
    ends, and goes if the block fails: nobody finds half a file.

    >>> with whole_file("results.txt") as beside:  # doctest: +SKIP
    ...     beside.write_text("all of them")
    """
    path = pathlib.Path(path)
    beside = path.with_name(f".part.{path.name}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def available_memory():
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


def require_memory(needed, what):
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


def peak_memory():
    """The largest number of MiB that this process has held."""
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def print_summary(tutorial, results):
    """Prints one line of JSON, for scripts: `tutorial` and what is in `results`,
    arrays as lists, numbers with six digits."""

    def plain(value):
        value = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(value, dict):
            return {str(k): plain(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        return float(f"{value:.6g}") if isinstance(value, float) else value

    print(json.dumps({"tutorial": tutorial, **plain(results)}), flush=True)


def run(main):
    """Runs `main(argv)` of a tutorial with the arguments of the command line.

    A `UserError` becomes one line and exit status 2, Ctrl-C exit status 130. In a
    notebook, whose command line is the kernel's, there are no arguments, and the
    error is an exception.
    """
    if "ipykernel" in sys.modules:
        # Short runs for who builds the site.
        main(os.environ.get("HW3TF_TUTORIAL_ARGUMENTS", "").split())
        return
    try:
        main(None)
    except UserError as error:
        print(f"{pathlib.Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        raise SystemExit(130) from None
