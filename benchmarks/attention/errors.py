"""The error of attention against float64, by dtype and length: hw3tf's and Keras's.

    python benchmarks/attention/errors.py --json errors.json --markdown docs/numerics.md

Inputs are standard normal numbers, rounded to the dtype before either computes; the
judge is `hw3tf.reference` in float64 on the same numbers. One core, half a minute.
"""

import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf

if not __package__:  # run as a program: what it imports is in the folder above
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

import harness

from hw3tf import _core, ops, reference

PROGRAM = "attention/errors.py"
# Promised by docs/numerics.md for lengths up to 4,096, and checked by
# tests/release/test_numerics.py.
BOUNDS = {"float32": 3e-6, "bfloat16": 1e-2, "float16": 1e-3, "float64": 3e-14}
LENGTHS = (16, 128, 1024, 4096)
HEAD_SIZE = 64


def results(function, inputs, grad):
    """[output, grad_query, grad_key, grad_value] as float64 arrays.

    Args:
        inputs, grad: Tensors of shape `(1, length, 1, HEAD_SIZE)`.
    """
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        output = function(*inputs)
    grads = tape.gradient(output, inputs, output_gradients=grad)
    return [tf.cast(x, "float64").numpy() for x in (output, *grads)]


def errors(dtype, length, rng):
    """Relative errors: hw3tf's output and gradients, then Keras's.

    The largest difference over the largest number; of the gradients the worst.
    """
    shape = (4, 1, length, 1, HEAD_SIZE)
    tensors = list(tf.cast(tf.constant(rng.standard_normal(shape)), dtype))
    exact = [tf.cast(x, "float64") for x in tensors]
    judge = results(reference.dot_product_attention, exact[:3], exact[3])
    row = []
    for function in (ops.dot_product_attention, keras.ops.dot_product_attention):
        got = results(function, tensors[:3], tensors[3])
        of_each = [
            np.abs(x - y).max() / np.abs(y).max()
            for x, y in zip(got, judge, strict=True)
        ]
        row += [of_each[0], max(of_each[1:])]
    return row


def measure(lengths, command):
    rng = np.random.default_rng(0)
    rows = [
        {"dtype": dtype, "length": length, "errors": errors(dtype, length, rng)}
        for dtype in BOUNDS
        for length in lengths
    ]
    return harness.heading(["hw3tf", "keras", "tensorflow"]) | {
        "instruction_set": _core.instruction_set(),
        "command": command,
        "rows": rows,
    }


def report(results):
    """The Markdown table, a row for each dtype and length."""
    head = ("dtype", "length", "bound", "output", "Keras's", "gradients", "Keras's")
    rows = []
    for row in results["rows"]:
        output, grads, theirs, their_grads = row["errors"]
        cells = [f"{x:.1e}" for x in (output, theirs, grads, their_grads)]
        bound = f"{BOUNDS[row['dtype']]:.0e}"
        rows.append([row["dtype"], f"{row['length']:,}", bound, *cells])
    versions = ", ".join(f"{k} {v}" for k, v in results["versions"].items())
    isa = f"Instruction set {results['instruction_set']}, {versions}."
    return f"{harness.table(head, rows)}\n\n{isa}\n"


def main(argv=None):
    parser = harness.parser(__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    options = parser.parse_args(argv)
    lengths = LENGTHS[:1] if options.quick else options.lengths
    command = harness.command(PROGRAM, argv)
    return harness.publish(PROGRAM, options, lambda: measure(lengths, command), report)


if __name__ == "__main__":
    main()
