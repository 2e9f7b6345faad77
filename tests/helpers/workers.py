"""Workers of one cluster on this machine, as forks of one process: where that has
imported TensorFlow, and not run it, they need not."""

import json
import socket

from checks import run_python

# If one fails or does not end, all end: a worker waits for the others.
PROGRAM = """
import os, signal, traceback, sys
workers = {{}}
for index, environment in enumerate({environments}):
    pid = os.fork()
    if pid == 0:
        signal.alarm({timeout})
        os.environ.update(environment)
        status = 1
        try:
            with open(environment["OUTPUT"], "w") as sys.stdout:
                exec({code!r}, {{"__name__": "__main__"}})
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    workers[pid] = index
failed = False
while workers:
    pid, status = os.wait()
    index = workers.pop(pid)
    if status and not failed:
        failed = True
        print("worker", index, "ended with status", status, file=sys.stderr)
        for other in workers:
            os.kill(other, signal.SIGKILL)
sys.exit(failed)
"""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def run_workers(code, folder, count=2, cwd=None, timeout=240):
    """Runs `code` in every worker; returns what each of them printed.

    Args:
        code: Python, which finds its index in `TF_CONFIG` and in `WORKER`.
        folder: An empty folder for what they print.
        count: The number of workers.
        cwd: The folder to run in.
        timeout: Seconds, for each of them.
    """
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(count)]}
    environments = []
    for index in range(count):
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        environments.append(
            {
                "TF_CONFIG": json.dumps(task),
                "WORKER": str(index),
                "CUDA_VISIBLE_DEVICES": "",
                "OUTPUT": str(folder / str(index)),
            }
        )
    program = PROGRAM.format(environments=environments, code=code, timeout=timeout)
    run_python(program, cwd=cwd, timeout=timeout + 60)
    return [(folder / str(index)).read_text() for index in range(count)]
