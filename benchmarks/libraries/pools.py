"""The kernels' threads in one process with those of PyTorch and JAX.

    python benchmarks/libraries/pools.py --json pools.json --markdown pools.md

In turn: a dense layer, attention, a dense layer. The attention is the framework's own
or ours. Threads that watch for work after one call keep the processors from the threads
of the next.

At once: one thread of Python multiplies matrices, another computes attention. The
table has the rate of each as a share of its rate when it is alone. The two shares make
1 where the threads of one do not hinder those of the other.
"""

import pathlib
import statistics
import sys
import threading
import time

if not __package__:  # run as a program: what it imports is in the folder above
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

import harness

PROGRAM = "libraries/pools.py"
PACKAGES = ("hw3tf", "torch", "jax", "jaxlib")
# The attention of a turn.
KINDS = {
    "torch": ("PyTorch's", "ours, own threads", "ours, PyTorch's threads"),
    "jax": ("JAX's", "ours, own threads"),
}
# Batch, length, heads, size of a head.
SIZES = {"small": (2, 128, 4, 64), "medium": (4, 256, 8, 64), "large": (2, 1024, 8, 64)}
ROUNDS = 3
SECONDS = 1.0  # of a round at once


class Worker:
    """Calls of one framework.

    Args:
        framework: "torch" or "jax".
    """

    def __init__(self, framework):
        self.framework = framework
        self.make = {"torch": self._torch, "jax": self._jax}[framework]()

    def _torch(self):
        import torch

        import hw3tf.torch
        from hw3tf import _core
        from hw3tf.ops.fronts.torch_kernels import follow_openmp

        torch.set_grad_enabled(False)

        def make(size, kind):
            if kind == "ours, own threads":
                _core.use_openmp(0, 0)
            elif kind != "PyTorch's":
                assert follow_openmp()
            batch, length, heads, head = size
            width = heads * head
            x = torch.randn(batch, length, width)
            first, last = torch.nn.Linear(width, width), torch.nn.Linear(width, width)
            attention = hw3tf.torch.scaled_dot_product_attention
            if kind == "PyTorch's":
                attention = torch.nn.functional.scaled_dot_product_attention

            def attend(y):
                y = y.view(batch, length, heads, head).transpose(1, 2)
                return attention(y, y, y).transpose(1, 2).reshape(batch, length, width)

            return lambda: last(attend(first(x))), lambda: first(x), lambda: attend(x)

        return make

    def _jax(self):
        import jax

        import hw3tf.jax

        def make(size, kind):
            batch, length, heads, head = size
            width = heads * head
            keys = jax.random.split(jax.random.key(0), 3)
            x = jax.random.normal(keys[0], (batch, length, width))
            first, last = (jax.random.normal(k, (width, width)) for k in keys[1:])
            attention = hw3tf.jax.dot_product_attention
            if kind == "JAX's":
                attention = jax.nn.dot_product_attention

            def attend(y):
                y = y.reshape(batch, length, heads, head)
                return attention(y, y, y).reshape(batch, length, width)

            functions = (
                jax.jit(lambda x: attend(x @ first) @ last),
                jax.jit(lambda x: x @ first),
                jax.jit(attend),
            )
            return [lambda f=f: f(x).block_until_ready() for f in functions]

        return make

    def turn(self, size, kind):
        """Microseconds of dense, attention, dense."""
        whole, *_ = self.make(size, kind)
        times = []
        end = time.perf_counter() + 0.5
        while time.perf_counter() < end or len(times) < 10:
            start = time.perf_counter()
            whole()
            times.append(time.perf_counter() - start)
        return {"microseconds": 1e6 * statistics.median(times[3:])}

    def at_once(self, size, kind, seconds):
        """The shares of both, and the processors that were busy."""
        _, dense, attend = self.make(size, kind)
        for call in (dense, attend):
            call()
        processor, start = time.process_time(), time.perf_counter()
        together = _calls_per_second([dense, attend], seconds)
        busy = (time.process_time() - processor) / (time.perf_counter() - start)
        alone = [_calls_per_second([call], seconds)[0] for call in (dense, attend)]
        shares = [a / b for a, b in zip(together, alone, strict=True)]
        return {"dense": shares[0], "attention": shares[1], "busy": busy}


def _calls_per_second(calls, seconds):
    """Of each of the functions, all called again and again at once."""
    rates = [0.0] * len(calls)
    begin = threading.Barrier(len(calls))

    def run(number):
        begin.wait()
        start, count = time.perf_counter(), 0
        while (spent := time.perf_counter() - start) < seconds:
            calls[number]()
            count += 1
        rates[number] = count / spent

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return rates


def measure_size(process, framework, name, quick):
    size = (1, 8, 2, 8) if quick else SIZES[name]
    kinds = KINDS[framework]
    turns = {kind: [] for kind in kinds}
    rounds = 1 if quick else ROUNDS
    for number in range(rounds):
        for kind in harness.in_turn(kinds, number):
            answer = process.demand("turn", size=size, kind=kind)
            turns[kind].append(answer["microseconds"])
    at_once = {}
    for kind in kinds:
        seconds = 0.05 if quick else SECONDS
        answers = [
            process.demand("at_once", size=size, kind=kind, seconds=seconds)
            for _ in range(rounds)
        ]
        at_once[kind] = {
            key: statistics.median(a[key] for a in answers) for key in answers[0]
        }
    return {
        "framework": framework,
        "size": name,
        "turns": {
            kind: {"best": min(times), "median": statistics.median(times)}
            for kind, times in turns.items()
        },
        "at_once": at_once,
    }


def measure(options, command):
    cases = []
    for framework in options.frameworks.split(","):
        environment = {"KERAS_BACKEND": framework, "JAX_PLATFORMS": "cpu"}
        with harness.Process(
            "libraries.pools", framework, environment=environment
        ) as process:
            for name in SIZES:
                harness.say(f"{framework}: {name}")
                cases.append(measure_size(process, framework, name, options.quick))
    return {**harness.heading(PACKAGES), "command": command, "cases": cases}


def rows(results):
    for case in results["cases"]:
        for kind, turn in case["turns"].items():
            once = case["at_once"][kind]
            yield [
                case["framework"],
                case["size"],
                kind,
                f"{turn['best']:.0f} ({turn['median']:.0f})",
                f"{once['dense']:.2f} + {once['attention']:.2f}",
                f"{once['dense'] + once['attention']:.2f}",
                f"{once['busy']:.2f}",
            ]


def report(results):
    head = ["framework", "size", "attention", "in turn, us", "at once, shares"]
    head += ["their sum", "busy processors"]
    sizes = "; ".join(f"{name} {size}" for name, size in SIZES.items())
    parts = [
        harness.heading_in_words(results, [results["command"]]),
        harness.table(head, rows(results)),
        f"In turn: the median call of the best of {ROUNDS} rounds (of the median "
        f"round). At once: the median of {ROUNDS} rounds of {SECONDS:.0f} s. "
        f"Batch, length, heads, size: {sizes}.",
    ]
    return "\n\n".join(parts) + "\n"


def main(argv=None):
    parser = harness.parser(__doc__)
    parser.add_argument("--frameworks", default=",".join(KINDS))
    options = parser.parse_args(argv)
    command = harness.command(PROGRAM, argv)
    return harness.publish(PROGRAM, options, lambda: measure(options, command), report)


if __name__ == "__main__":
    main()
