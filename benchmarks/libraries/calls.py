"""What a call costs beside its arithmetic: microseconds on tensors of a few numbers.

    python benchmarks/libraries/calls.py --json calls.json --markdown calls.md

Every framework calls the kernel and its own function, in turn. A time is that of a call
in a loop of many, as short as any loop was (in brackets the median loop). A training
call computes the gradients of the sum of the outputs, too.
"""

import pathlib
import statistics
import sys
import time

if not __package__:  # run as a program: what it imports is in the folder above
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

import harness

PROGRAM = "libraries/calls.py"
PACKAGES = ("hw3tf", "tensorflow", "keras", "torch", "jax", "jaxlib")
SIZE = (1, 4, 2, 8)  # batch, length, heads, size of a head
# Of a framework: how it calls, and its own function.
FRAMEWORKS = {
    "tensorflow": "tf.function",
    "jax": "jax.jit",
    "torch": "eager",
}
CALLS = 200  # in a loop
ROUNDS = 5
SECONDS = 1.0  # of a round
BARS = {("jax", "forward"): 10, ("torch", "forward"): 30}  # microseconds


class Worker:
    """Calls of one framework: `functions[library][what]` is one call.

    Args:
        framework: "tensorflow", "jax" or "torch".
    """

    def __init__(self, framework):
        make = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[framework]
        self.functions = make()
        for functions in self.functions.values():
            for call in functions.values():
                call()  # traces and compiles

    def time(self, library, what, seconds):
        """Seconds of a call in each of the loops."""
        call = self.functions[library][what]
        times = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 3:
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            times.append((time.perf_counter() - start) / CALLS)
        return {"seconds": times}


def _tensorflow():
    import keras
    import tensorflow as tf

    import hw3tf

    x = tf.random.normal(SIZE)

    def of(attention):
        def training(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(attention(x, x, x))
            return tape.gradient(loss, x)

        forward = tf.function(lambda x: attention(x, x, x))
        training = tf.function(training)
        return {"forward": lambda: forward(x), "training": lambda: training(x)}

    def in_keras(query, key, value):
        return keras.ops.dot_product_attention(query, key, value)

    return {"hw3tf": of(hw3tf.ops.dot_product_attention), "its own": of(in_keras)}


def _jax():
    import jax

    import hw3tf.jax

    x = jax.random.normal(jax.random.key(0), SIZE)

    def of(attention):
        forward = jax.jit(lambda x: attention(x, x, x))
        training = jax.jit(jax.grad(lambda x: attention(x, x, x).sum()))
        return {
            "forward": lambda: forward(x).block_until_ready(),
            "training": lambda: training(x).block_until_ready(),
        }

    own = jax.nn.dot_product_attention
    return {"hw3tf": of(hw3tf.jax.dot_product_attention), "its own": of(own)}


def _torch():
    import torch

    import hw3tf.torch

    batch, length, heads, head = SIZE
    x = torch.randn(batch, heads, length, head)
    watched = x.clone().requires_grad_()

    def of(attention):
        @torch.no_grad()
        def forward():
            return attention(x, x, x)

        def training():
            loss = attention(watched, watched, watched).sum()
            return torch.autograd.grad(loss, watched)

        return {"forward": forward, "training": training}

    own = torch.nn.functional.scaled_dot_product_attention
    return {"hw3tf": of(hw3tf.torch.scaled_dot_product_attention), "its own": of(own)}


def measure_framework(process, framework, quick):
    libraries = ("hw3tf", "its own")
    case = {"framework": framework, "calls": {}}
    for what in ("forward", "training"):
        loops = {library: [] for library in libraries}
        for number in range(1 if quick else ROUNDS):
            for library in harness.in_turn(libraries, number):
                answer = process.demand(
                    "time",
                    library=library,
                    what=what,
                    seconds=0.01 if quick else SECONDS,
                )
                loops[library] += answer["seconds"]
        case["calls"][what] = {
            library: {
                "best": 1e6 * min(times),
                "median": 1e6 * statistics.median(times),
            }
            for library, times in loops.items()
        }
    return case


def measure(options, command):
    cases = []
    for framework in options.frameworks.split(","):
        environment = {"KERAS_BACKEND": framework, "JAX_PLATFORMS": "cpu"}
        with harness.Process(
            "libraries.calls", framework, environment=environment
        ) as process:
            harness.say(framework)
            cases.append(measure_framework(process, framework, options.quick))
    return {**harness.heading(PACKAGES), "command": command, "cases": cases}


def rows(results):
    for case in results["cases"]:
        for what, calls in case["calls"].items():
            bar = BARS.get((case["framework"], what))
            best = calls["hw3tf"]["best"]
            met = f"{bar}: {'met' if best <= bar else 'missed'}" if bar else "-"
            times = [f"{x['best']:.1f} ({x['median']:.1f})" for x in calls.values()]
            yield [case["framework"], FRAMEWORKS[case["framework"]], what, *times, met]


def report(results):
    head = ["framework", "call", "what", "hw3tf, us", "its own, us", "bar, us"]
    parts = [
        harness.heading_in_words(results, [results["command"]]),
        harness.table(head, rows(results)),
        f"Microseconds of a call, best loop of {CALLS} calls (median loop). Batch, "
        f"length, heads, size: {SIZE}.",
    ]
    return "\n\n".join(parts) + "\n"


def main(argv=None):
    parser = harness.parser(__doc__)
    parser.add_argument("--frameworks", default=",".join(FRAMEWORKS))
    options = parser.parse_args(argv)
    command = harness.command(PROGRAM, argv)
    return harness.publish(PROGRAM, options, lambda: measure(options, command), report)


if __name__ == "__main__":
    main()
