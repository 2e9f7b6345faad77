"""The process of one library: what `harness.py attention.worker` and others share.

It prepares a case (makes the inputs, runs each way to see that it works, keeps the
quickest, measures memory, answers with the sampled rows), times it in turns, and drops
it, telling what memory the library keeps.
"""

import gc
import os
import time

from harness import InARow, forget_peak, give_back, resident
from libraries.peer import load


class Worker:
    """A library, and the case that is prepared.

    Args:
        cases: Module of the cases: `Case`, `make_inputs`, `sampled`, `shrunk`.
        peers: Name -> (module, class) of each library.
        library: Its name.
        threads: Threads, and processors, that it may use.
    """

    def __init__(self, cases, peers, library, threads):
        threads = int(threads)
        if hasattr(os, "sched_setaffinity"):
            allowed = sorted(os.sched_getaffinity(0))[:threads]
            os.sched_setaffinity(0, allowed)
        self.cases, self.peer = cases, load(peers, library, threads)
        self.call, self.before, self.kept = None, None, 0

    def versions(self):
        return self.peer.versions()

    def prepare(self, case):
        case = self._case(case)
        why = self.peer.refuses(case)
        if why:
            return {"error": why}
        # A tiny case of the same kind first, so that what a library loads at first
        # use does not count as memory of the case.
        self._quickest(self.cases.shrunk(case))
        give_back()
        self.before = before = resident()
        seconds, way, self.call, problems = self._quickest(case)
        if self.call is None:
            return {"error": "; ".join(problems)}
        give_back()  # what tracing and compiling took
        known = forget_peak()
        outputs = self.call()
        peak = resident("VmHWM") if known else None
        if peak is not None:
            peak -= before + case.bytes_of_inputs_and_outputs
        rows = self._rows(case, outputs)
        if isinstance(self.call, InARow):
            self.call.row()  # traces and compiles
        return {
            "seconds": seconds,
            "way": way,
            "note": "; ".join(filter(None, [self.peer.note(), *problems])),
            "peak_mib": None if peak is None else max(0, peak) / 2**20,
            "rows": rows,
        }

    def rows(self, case):
        """The sampled rows alone: of a library that is the judge of the others."""
        case = self._case(case)
        call = self.peer.prepare(case, self.cases.make_inputs(case), "")
        return {"rows": self._rows(case, call())}

    def _case(self, case):
        return self.cases.Case(**{**case, "sizes": tuple(case["sizes"])})

    def _rows(self, case, outputs):
        arrays = self.peer.to_numpy(outputs)
        return {
            name: arrays[i][where].astype(float).tolist()
            for i, (name, where) in enumerate(self.cases.sampled(case).items())
        }

    def _quickest(self, case):
        """(seconds, way, call, problems): each way in its turn."""
        best, problems = (float("inf"), "", None), []
        for way in self.peer.ways(case):
            try:
                call = self.peer.prepare(case, self.cases.make_inputs(case), way)
                once = call.once if isinstance(call, InARow) else call
                seconds = min(time_calls(once, 0.05, 2))
                if seconds < best[0]:
                    best = (seconds, way, call)
            except Exception as error:  # what a library raises is its own affair
                problems.append(f"{way} {type(error).__name__}: {error}".strip()[:300])
            call = once = None
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
