"""The process of one peer of recurrence.py, asleep but for its turns.

    python recurrence_worker.py PEER CASE-IN-JSON THREADS

Answers on stdout, in JSON: first the last states, or an error; then, for every line
on stdin with a number of seconds, the times of a turn.
"""

import json
import sys
import time
import zlib

from recurrence_cases import Case
from recurrence_peers import prepare


def main(name, case, threads):
    answers = sys.stdout
    sys.stdout = sys.stderr  # libraries talk
    try:
        run, last = prepare(name, Case(**json.loads(case)), int(threads))
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers)
        return
    # A checksum says as much as the states themselves.
    checksum = None if last is None else zlib.crc32(last.tobytes())
    print(json.dumps({"checksum": checksum}), file=answers, flush=True)
    for line in sys.stdin:
        times, end = [], time.perf_counter() + float(line)
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        print(json.dumps({"times": times}), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
