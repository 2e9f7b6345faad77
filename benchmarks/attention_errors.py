"""How far attention is from float64, by dtype and length: hw3tf and Keras's own.

    python benchmarks/attention_errors.py

writes the table of docs/numerics.md. Inputs are standard normal numbers, rounded to the
dtype before either computes; the judge is `hw3tf.reference` in float64 on the same
numbers. One core, half a minute.
"""

import argparse
import pathlib

import keras
import numpy as np
import tensorflow as tf

from hw3tf import _core, ops, reference

PAGE = pathlib.Path(__file__).parents[1] / "docs/numerics.md"
START = "<!-- attention_errors.py writes from here -->\n"
END = "<!-- to here -->\n"
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


def table(lengths):
    """The Markdown table, a row for each dtype and length."""
    names = ("dtype", "length", "bound", "output", "Keras's", "gradients", "Keras's")
    lines = [f"| {' | '.join(names)} |", "| --- " * len(names) + "|"]
    rng = np.random.default_rng(0)
    for dtype, bound in BOUNDS.items():
        for length in lengths:
            output, grads, theirs, their_grads = errors(dtype, length, rng)
            numbers = (output, theirs, grads, their_grads)
            cells = " | ".join(f"{x:.1e}" for x in numbers)
            lines.append(f"| {dtype} | {length:,} | {bound:.0e} | {cells} |")
    lines.append(
        f"\nInstruction set {_core.instruction_set()}, Keras "
        f"{keras.__version__}, TensorFlow {tf.__version__}."
    )
    return "\n".join(lines) + "\n"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=pathlib.Path, default=PAGE)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    args = parser.parse_args(argv)
    text = table(args.lengths)
    before, _, rest = args.page.read_text().partition(START)
    _, _, after = rest.partition(END)
    args.page.write_text(before + START + text + END + after)
    print(text)


if __name__ == "__main__":
    main()
