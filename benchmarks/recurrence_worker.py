"""The process of one peer of recurrence.py, asleep but for its turns.

    python recurrence_worker.py PEER THREADS

Answers on stdout, in JSON, what stands on a line of stdin: {"case": {...}} prepares a
case and gives a checksum of its last states; {"seconds": s} is a turn and gives its
times per call. {"error": ...} instead of either says what went wrong.
"""

import gc
import json
import sys
import time
import zlib

from attention_peers import InARow
from recurrence_cases import Case
from recurrence_peers import prepare

# Longer calls need no others in a row: what Python takes is lost in them.
SHORT = 0.005


class Worker:
    def __init__(self, name, threads):
        self.name, self.threads = name, threads
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


def main(name, threads):
    answers = sys.stdout
    sys.stdout = sys.stderr  # libraries talk
    worker = Worker(name, int(threads))
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if "case" in asked:
                answer = worker.prepare(asked["case"])
            else:
                answer = worker.turn(asked["seconds"])
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
