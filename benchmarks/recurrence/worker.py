"""The process of one peer of recurrence/run.py: `harness.py recurrence.worker`.

It prepares a case, with a checksum of the last states, and times it in turns.
"""

import gc
import time
import zlib

from harness import InARow
from recurrence.cases import Case
from recurrence.peers import prepare

# Longer calls need no others in a row: what Python takes is lost in them.
SHORT = 0.005


class Worker:
    def __init__(self, name, threads):
        self.name, self.threads = name, int(threads)
        self.call, self.count = None, 1

    def prepare(self, case):
        self.call = None
        gc.collect()
        case = Case(**case)
        run, last = prepare(self.name, case, self.threads)
        self.call, self.count = run, 1
        if isinstance(run, InARow):
            start = time.perf_counter()
            run()
            self.call = run.once
            if time.perf_counter() - start < SHORT:
                run.row()  # traces and compiles
                self.call, self.count = run.row, run.count
        # A checksum says as much as the states themselves.
        return {"checksum": None if last is None else zlib.crc32(last.tobytes())}

    def turn(self, seconds):
        times, end = [], time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            self.call()
            times.append((time.perf_counter() - start) / self.count)
        return {"times": times}
