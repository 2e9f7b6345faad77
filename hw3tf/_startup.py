"""Drops the messages that TensorFlow writes before it has read TF_CPP_MIN_LOG_LEVEL."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

# A line of its log: level, date, time, thread, file. The second is its introduction,
# the third the end of a message of two lines.
_MESSAGE = re.compile(
    rb"[IWEF]\d{4} [\d:. ]+ \S+:\d+\] "
    rb"|WARNING: All log messages before absl::InitializeLog"
    rb"|To enable the following instructions: "
)


@contextlib.contextmanager
def without_messages() -> Iterator[None]:
    """While the block runs, lines of TensorFlow's log do not reach standard error.

    Only for TF_CPP_MIN_LOG_LEVEL=3, which asks for none. TensorFlow obeys from the end
    of its import on. Everything else that is written meanwhile comes when the block
    ends.
    """
    wanted = os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3"
    if not wanted or "tensorflow" in sys.modules:
        yield
        return
    with tempfile.TemporaryFile() as written:
        try:
            kept = os.dup(2)
        except OSError:  # there is no standard error
            yield
            return
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            written.seek(0)
            for line in written:
                if not _MESSAGE.match(line):
                    os.write(2, line)
