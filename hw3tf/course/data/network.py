"""Data sets of TensorFlow Datasets, where they are prepared or can be downloaded."""

import os
import pathlib
import re
import threading
import urllib.request
from collections.abc import Callable
from typing import Any

from hw3tf.course.tutorial import UserError


def read_prepared(
    name: str, url: str, megabytes: int, timeout: float, read: Callable[[Any], Any]
) -> tuple[Any, str]:
    """Reads a data set of TensorFlow Datasets, and downloads it if it is not there.

    It lies in the folder that the environment variable `TFDS_DATA_DIR` names, by
    default in `~/tensorflow_datasets`.

    Args:
        name: The data set's name in TensorFlow Datasets.
        url: What its server is asked for before anything is downloaded: TFDS would
            try an absent network for minutes.
        megabytes: Size of the download, for the message.
        timeout: Seconds to wait for the answer.
        read: Function of the prepared builder, whose `as_dataset` reads files.

    Returns:
        Tuple `(found, where)`: what `read` has returned, and `"prepared in FOLDER"` or
        `"downloaded to FOLDER"`.

    Raises:
        UserError: If the data set cannot be had: why not, and what to do about it, such
            as which folder to delete.
    """
    try:
        import tensorflow_datasets as tfds
        from tensorflow.errors import ResourceExhaustedError
    except ImportError as error:
        raise UserError(
            f"{name} needs TensorFlow Datasets ({_reason(error)}): "
            "pip install 'hw3tf[tutorials]'"
        ) from error
    where = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    data_dir = os.path.expanduser(where)  # a string: TFDS takes addresses, too
    root = pathlib.Path(data_dir)
    elsewhere = (
        "set the environment variable TFDS_DATA_DIR to a folder in which "
        f"`tfds build {name}` has been run"
    )
    size = f"{megabytes} MB are downloaded once"
    get = f"connect to a network and run again ({size}), or {elsewhere}"
    folder, where = root / name, "prepared in"
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        folder = pathlib.Path(builder.data_path)
        if not builder.is_prepared():
            _download(builder, url, timeout, root, get)
            where = "downloaded to"
        return read(builder), f"{where} {folder}"
    except (MemoryError, ResourceExhaustedError, _NotThereError):
        raise
    except Exception as error:
        if closed := _forbidden(root, root / name):
            message = f"no right to read {closed}. Get that right, or {elsewhere}"
        elif damaged := _in_the_place_of(folder):
            message = f"{damaged} is damaged ({_reason(error)}). Delete it, then {get}"
        else:
            message = f"{_reason(error)}. Please {get}"
        raise UserError(f"{name} cannot be loaded: {message}") from error


class _NotThereError(UserError):
    """The data set is not there, and cannot be downloaded; with the remedy."""


def _download(
    builder: Any, url: str, timeout: float, root: pathlib.Path, get: str
) -> None:
    folder = pathlib.Path(builder.data_path)
    if _in_the_place_of(folder):  # TFDS would take it for the data set
        raise OSError("not a complete data set")
    beside = folder.parent
    others = sorted(beside.iterdir()) if beside.is_dir() else []
    left = [path for path in others if "incomplete" in path.name]
    versions = ", ".join(path.name for path in others if path not in left)
    cannot = f"{builder.name} cannot be loaded"
    try:
        require_answer(url, timeout)
    except OSError as error:
        why = f"it is not in {root}"
        if versions:
            why = f"{beside} has version {versions}, not {folder.name}"
        if left:
            why = f"its download was interrupted (delete {_listed(left)})"
        raise _NotThereError(
            f"{cannot}: {why}, and there is {error}. Please {get}"
        ) from error
    try:
        builder.download_and_prepare()
    except Exception as error:
        # What was downloaded before is taken again, complete or not.
        left = [path for path in (*left, root / "downloads") if path.exists()]
        delete = f"Delete {_listed(left)}, then" if left else "Please"
        again = get.replace("connect to a network and ", "")  # it answered just now
        why = f"its download to {root} failed ({_reason(error)})"
        raise _NotThereError(f"{cannot}: {why}. {delete} {again}") from error


def _listed(paths: list[pathlib.Path]) -> str:
    return " and ".join(map(str, paths))


def _in_the_place_of(folder: pathlib.Path) -> pathlib.Path | None:
    """`folder` if it exists, or the file that stands in its way."""
    path = next(p for p in (folder, *folder.parents) if os.path.lexists(p))
    return path if path == folder or not path.is_dir() else None


def _forbidden(*folders: pathlib.Path) -> pathlib.Path | None:
    """The first folder or file of a data set that this user may not read."""
    for path in (*folders, *sorted(folders[-1].rglob("*"))):
        wanted = os.R_OK | (os.X_OK if path.is_dir() else 0)
        if os.path.lexists(path) and not os.access(path, wanted):
            return path
    return None


def _reason(error: BaseException) -> str:
    """An error in one line, without TensorFlow's names of ops."""
    line = (str(error).splitlines() or [""])[0]
    line = re.sub(r"\{\{.*?\}\} | \[Op:.*", "", line).rstrip(". ")
    return f"{type(error).__name__}: {line}"


def require_answer(url: str, timeout: float) -> None:
    """Raises OSError unless the server answers within `timeout` seconds.

    In a thread of its own: the resolver of host names knows no timeout.
    """
    answer: list[Exception | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=timeout):
                answer.append(None)
        except Exception as error:
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    if not answer:
        raise TimeoutError(f"no answer from {url} within {timeout:g} seconds")
    if answer[0] is not None:
        raise OSError(f"no answer from {url}: {answer[0]}")
