"""New processes for tests, most of them without the seconds that imports take.

A server imports TensorFlow, Keras and hw3tf, runs nothing of them, and forks a process
for each request: neither TensorFlow's threads nor the kernels' exist before the first
call. `python processes.py MODULE...` is a server that imports those modules.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import tempfile
import types

# Read when they are used, not when something is imported.
READ_LATE = ("PYTEST_CURRENT_TEST", "TFDS_DATA_DIR")  # and HW3TF_PATH
OTHERS = ("numpy", "tensorflow", "keras")
ALL = (*OTHERS, "hw3tf")


def environment_with(changes):
    """That of this process with `changes`, of which None removes a variable."""
    variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    for name, value in changes.items():
        variables.pop(name, None)
        if value is not None:
            variables[name] = str(value)
    return variables


class Server:
    """A process that has imported `modules` and is forked for each request."""

    def __init__(self, modules, variables):
        self.process = subprocess.Popen(
            [sys.executable, __file__, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # what one `select` has seen, one `readline` takes
            env=variables,
            cwd=tempfile.gettempdir(),  # in the checkout, the source hides the package
        )
        atexit.register(self.close)

    def close(self):
        atexit.unregister(self.close)
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def _answer(self, timeout):
        """What the server says next."""
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            return None
        line = self.process.stdout.readline()
        assert line, "the server of new processes has ended"
        return json.loads(line)

    def run(self, request, timeout):
        """As `subprocess.run` for a request: see `serve`."""
        with tempfile.TemporaryDirectory() as folder:
            files = [os.path.join(folder, name) for name in ("out", "err")]
            line = json.dumps({**request, "files": files}) + "\n"
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()
            pid = self._answer(None)["pid"]
            status = self._answer(timeout)
            if status is None:
                os.kill(pid, signal.SIGKILL)
                self._answer(None)
                raise subprocess.TimeoutExpired(request["arguments"], timeout)
            texts = [pathlib.Path(file).read_text() for file in files]
        return subprocess.CompletedProcess(
            request["arguments"], status["status"], *texts
        )


SERVERS = {}  # the one used last is the last


def server_for(modules, variables):
    """The server for an environment. Few are kept: each takes some 300 MB."""
    late = "HW3TF_" if "hw3tf" not in modules else "HW3TF_PATH"
    read = {k: v for k, v in variables.items() if not k.startswith((late, *READ_LATE))}
    key = modules, *sorted(read.items())
    SERVERS[key] = SERVERS.pop(key, None) or Server(modules, variables)
    while len(SERVERS) > 3:
        SERVERS.pop(next(iter(SERVERS))).close()
    return SERVERS[key]


def run(arguments, *, modules=ALL, cwd=None, timeout=300, **environment):
    """Runs Python with `arguments`, `-c CODE ...` or `PROGRAM ...`, in a new process.

    Args:
        modules: What may be imported beforehand. Nothing if the code is about imports,
            or about what must happen before them.
        cwd: The folder to run in; by default one for temporary files.
        timeout: In seconds.
        **environment: Variables to set, or to remove with None.

    Returns:
        A `subprocess.CompletedProcess` with texts.
    """
    arguments = [str(x) for x in arguments]
    cwd = str(cwd or tempfile.gettempdir())
    variables = environment_with(environment)
    if modules and sys.platform == "linux":
        request = {"arguments": arguments, "cwd": cwd, "environment": variables}
        return server_for(modules, variables).run(request, timeout)
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=variables,
        cwd=cwd,
        timeout=timeout,
    )


def _become(request):
    """Makes this forked process what the request wants; returns its code."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sources = [os.devnull, *request["files"]]
    for number, (path, mode) in enumerate(
        zip(sources, (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT] * 2), strict=True)
    ):
        file = os.open(path, mode, 0o600)
        os.dup2(file, number)
        os.close(file)
    first, *rest = request["arguments"]
    if first == "-c":
        code, sys.argv, sys.path[0] = rest[0], ["-c", *rest[1:]], ""
        return compile(code, "<string>", "exec")
    sys.argv, sys.path[0] = [first, *rest], str(pathlib.Path(first).parent)
    return compile(pathlib.Path(first).read_text(), first, "exec")


def serve(modules):
    """Answers requests until there are no more; returns in the processes it forks.

    A request is a line of JSON with `arguments`, `cwd`, `environment` and `files`, for
    the two outputs. The answers are `pid` at once and `status` at the end.
    """
    answers = os.fdopen(os.dup(1), "w")
    requests = os.fdopen(os.dup(0), "r")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for name in modules:
        importlib.import_module(name)
    gc.freeze()
    while line := requests.readline():
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            for channel in (requests, answers):
                os.close(channel.fileno())
                with contextlib.suppress(OSError):
                    channel.close()
            return request
        print(json.dumps({"pid": pid}), file=answers, flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps({"status": status}), file=answers, flush=True)
    return None


if __name__ == "__main__" and (_request := serve(sys.argv[1:])):
    _code = _become(_request)
    _main = types.ModuleType("__main__")
    sys.modules["__main__"] = _main
    if _request["arguments"][0] != "-c":
        _main.__file__ = _request["arguments"][0]
    exec(_code, _main.__dict__)
