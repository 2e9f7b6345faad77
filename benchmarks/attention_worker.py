"""The process of one library: takes commands on stdin, answers on stdout, in JSON.

    python attention_worker.py LIBRARY THREADS

{"do": "prepare", "case": {...}}: makes the inputs, runs each way to see that it
works, keeps the quickest, measures memory, answers with the sampled rows.
{"do": "time", "seconds": s, "at_least": n}: one turn. {"do": "free"}: drops the case
and tells what memory the library keeps.
"""

import contextlib
import ctypes
import gc
import json
import os
import pathlib
import signal
import sys
import time

from attention_cases import Case, make_inputs, sampled, shrunk
from attention_peers import InARow, load

STATUS = pathlib.Path("/proc/self/status")


def resident(field="VmRSS"):
    """Bytes of memory in use, or with "VmHWM" at most; None if nobody tells."""
    if not STATUS.exists():
        return None
    return next(
        (
            1024 * int(line.split()[1])
            for line in STATUS.read_text().splitlines()
            if line.startswith(field)
        ),
        None,
    )


def give_back():
    """Returns what is freed to the system, so that the next peak shows."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def forget_peak():
    """Starts VmHWM anew from what is in use; False if the system cannot."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return resident("VmHWM") is not None


class Session:
    """A library, and the case that is prepared."""

    def __init__(self, library, threads):
        self.peer = load(library, threads)
        self.call, self.before, self.kept = None, None, 0

    def prepare(self, case):
        why = self.peer.refuses(case)
        if why:
            return {"error": why}
        # A tiny case of the same kind first, so that what a library loads at first
        # use does not count as memory of the case.
        self._quickest(shrunk(case))
        give_back()
        self.before = before = resident()
        seconds, way, self.call, problems = self._quickest(case)
        if self.call is None:
            return {"error": "; ".join(problems)}
        give_back()  # what tracing and compiling took
        known = forget_peak()
        outputs = self.call()
        peak = resident("VmHWM") if known else None
        arrays = self.peer.to_numpy(outputs)
        if peak is not None:
            peak -= before + case.bytes_of_inputs_and_outputs
        rows = {
            name: arrays[i][where].astype(float).tolist()
            for i, (name, where) in enumerate(sampled(case).items())
        }
        return {
            "seconds": seconds,
            "way": way,
            "note": "; ".join(filter(None, [self.peer.note(), *problems])),
            "peak_mib": None if peak is None else max(0, peak) / 2**20,
            "rows": rows,
        }

    def _quickest(self, case):
        """(seconds, way, call, problems): each way in its turn."""
        best, problems = (float("inf"), "", None), []
        for way in self.peer.ways(case):
            try:
                call = self.peer.prepare(case, make_inputs(case), way)
                seconds = min(time_calls(call, 0.05, 2))
                if seconds < best[0]:
                    best = (seconds, way, call)
            except Exception as error:  # what a library raises is its own affair
                problems.append(f"{way} {type(error).__name__}: {error}".strip()[:300])
            call = None
            give_back()
        return *best, problems

    def time(self, seconds, at_least):
        gc.disable()
        spent = time_calls(self.call, seconds, at_least)
        gc.enable()
        spent.sort()
        return {
            "best": spent[0],
            "median": spent[len(spent) // 2],
            "repeats": len(spent),
        }

    def free(self):
        self.call = None
        give_back()
        if self.before is not None:
            self.kept += resident() - self.before
        self.before = None
        return {"kept_mib": self.kept / 2**20}


def time_calls(call, seconds, at_least):
    """Seconds of every call after a warm-up: for `seconds`, and `at_least` so many.
    No warm-up if one call is enough. Of calls in a row, the mean of each row."""
    count = 1
    if isinstance(call, InARow):
        call, count = call.row, call.count
    end = time.perf_counter() + seconds / 10
    while at_least > 1:
        call()
        if time.perf_counter() >= end:
            break
    spent, end = [], time.perf_counter() + seconds
    while len(spent) < at_least or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        spent.append((time.perf_counter() - start) / count)
    return spent


def main(library, threads):
    # Answers go where stdout went; what libraries print goes to stderr.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # ends with its parent
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))[:threads]
        os.sched_setaffinity(0, allowed)

    def answer(message):
        print(json.dumps(message), file=answers, flush=True)

    try:
        session = Session(library, threads)
        answer({"versions": session.peer.versions()})
    except ImportError as error:
        answer({"error": f"not installed: {error}"})
        return
    for line in sys.stdin:
        message = json.loads(line)
        what = message.pop("do")
        if what == "prepare":
            case = message["case"]
            message["case"] = Case(**{**case, "sizes": tuple(case["sizes"])})
        try:
            answer(getattr(session, what)(**message))
        except Exception as error:
            answer({"error": f"{type(error).__name__}: {error}"[:300]})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
