"""Calls with arrays of no bytes and of any size: an axis of 0 beside powers of two.

    python tests/helpers/empty_calls.py PATH NOTE [every]

Every call computes results of the right shapes, or is refused with a message. Two sizes
that no memory holds are harmless beside a 0, until something multiplies them in another
order. PATH is `core`, `op` or `graph` (kernel_paths.py), `shapes` (the op in a graph in
which all shapes are known) or `ops` (hw3tf.ops with gradients, eager and in a graph).
The file NOTE holds the call that runs, should the process end. `every`: every power of
two up to 2**62, not only the small ones and those near where 32 and 64 bits end.
"""

import functools
import itertools
import math
import sys

import fuzz_ops
import numpy as np
import tensorflow as tf
from kernel_paths import op_arguments

from hw3tf import _core, ops

FEW = [0, 1, 5, 16, *range(29, 34), 48, *range(58, 63)]
POWERS = [2**n for n in (range(63) if "every" in sys.argv else FEW)]
MOST = 2**10  # elements of an array that is not empty
OPTIONS = {
    "": "",
    "bias": "BNTS",
    "mask": "BNTS",
    "query_mask": "BT",
    "key_mask": "BS",
    "query_lengths": "B",
    "key_lengths": "B",
}
DTYPES = {"bias": "float32", "query_lengths": "int32", "key_lengths": "int32"}


class NoArrayError(Exception):
    """NumPy or TensorFlow has no array of this shape, or it would be a large one."""


def sizes_of(axes, pairs):
    """Shapes with one axis of 0; another, or two, are a power of two; the rest is 1, or
    2 for the recurrence, which takes another path for a single feature."""
    rest = 2 if "U" in axes else 1
    for zero in axes:
        others = axes.replace(zero, "")
        huge = [*others, *itertools.combinations(others, 2)] if pairs else [*others]
        if not pairs and {"N", "K"} <= set(others):
            huge.append("NK")  # the one without the other is refused
        for some, power in itertools.product(huge, POWERS):
            yield dict.fromkeys(axes, rest) | {zero: 0} | dict.fromkeys(some, power)


class Arrays:
    """Makes the arrays of a call, zeros, and runs the kernels on them."""

    def __init__(self, path):
        self.path = path

    def zeros(self, dtype, *shape):
        if math.prod(shape) > MOST:
            raise NoArrayError
        try:
            if self.path == "core":
                return np.zeros(shape, dtype)
            if self.path == "shapes":
                return tf.compat.v1.placeholder(dtype, shape)
            return tf.zeros(shape, dtype)
        except (ValueError, tf.errors.OpError) as error:
            raise NoArrayError from error

    def run(self, name, inputs, **attributes):
        function = getattr(ops.load_op_library(), name)
        if self.path == "graph":
            function = in_graph(name, tuple(sorted(attributes.items())))
            return function(*inputs)
        return function(*inputs, **attributes)


@functools.cache
def in_graph(name, attributes):
    """The op in a graph that knows no shape."""
    function = functools.partial(
        getattr(ops.load_op_library(), name), **dict(attributes)
    )
    return tf.function(function, reduce_retracing=True)


def shapes_are(results, *expected):
    for x, shape in zip(results, expected, strict=True):
        if tuple(x.shape) != shape:
            raise fuzz_ops.WrongError(f"a result of shape {x.shape}, not {shape}")


def dense(arrays, sizes, option):
    """Functions that run attention forward and backward."""
    axes = ("BTNH", "BSKH", "BSKV")
    inputs = [arrays.zeros("float32", *(sizes[a] for a in x)) for x in axes]
    given = {}
    if option:
        shape = (sizes[axis] for axis in OPTIONS[option])
        given[option] = arrays.zeros(DTYPES.get(option, "bool"), *shape)
    batch, length, heads, value_dim = (sizes[axis] for axis in "BTNV")
    row = (batch, heads, length)
    return passes(
        arrays, inputs, ((batch, length, heads, value_dim), (*row, 2), row), given
    )


def packed(arrays, sizes, _):
    """The same for two sequences, the second of which is empty."""
    axes = ("TNH", "SKH", "SKV")
    inputs = [arrays.zeros("float32", *(sizes[a] for a in x)) for x in axes]
    given = {}
    for name, axis in (("query_splits", "T"), ("key_splits", "S")):
        given[name] = np.array([0, sizes[axis], sizes[axis]], "int64")
    length, heads, value_dim = (sizes[axis] for axis in "TNV")
    row = (heads, length)
    return passes(arrays, inputs, ((length, heads, value_dim), (*row, 2), row), given)


def passes(arrays, inputs, shapes, given):
    results = [arrays.zeros("float32", *shape) for shape in shapes]
    output, statistics, logsumexp = results
    results = (output, statistics, output, logsumexp)
    if arrays.path == "core":
        forward = functools.partial(_core.attention_forward, *inputs)
        backward = functools.partial(_core.attention_backward, *inputs, *results)
        forward, backward = (
            functools.partial(f, scale=0.5, **given) for f in (forward, backward)
        )
    else:
        wanted, _ = op_arguments(*inputs, 0.5, dict(given))
        forward = functools.partial(arrays.run, "hw3tf_attention", wanted)
        wanted = [*wanted, *results]
        backward = functools.partial(arrays.run, "hw3tf_attention_grad", wanted)
    grads = [tuple(x.shape) for x in inputs]
    return (
        lambda: shapes_are(forward(), *shapes),
        lambda: shapes_are(backward()[:3], *grads),
    )


def recurrence(arrays, sizes, _):
    """Functions that run the recurrence for the last state, and for all states."""
    batch, steps, features, units = (sizes[axis] for axis in "BTFU")
    inputs = [
        arrays.zeros("int32", *shape)
        for shape in ((batch, steps, features), (features, units), (units, units))
    ]
    if arrays.path == "core":
        last = functools.partial(_core.integer_rnn, *inputs)
        every = functools.partial(last, return_sequences=True)
    else:
        none = [arrays.zeros(dtype, 0) for dtype in ("int32", "int32", "bool")]
        last = functools.partial(arrays.run, "hw3tf_integer_rnn", inputs + none)
        every = functools.partial(
            arrays.run, "hw3tf_integer_rnn_sequence", inputs + none
        )
    if steps or batch <= MOST:  # otherwise the last state is large
        yield lambda: shapes_are([last()], (batch, units))
    yield lambda: shapes_are([every()], (batch, steps, units))


def differentiated(function, *inputs):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        output = function(*inputs)
    return output, *tape.gradient(output, inputs)


@functools.cache
def differentiated_in_graph(function):
    return tf.function(
        functools.partial(differentiated, function), reduce_retracing=True
    )


def by_ops(arrays, sizes, _):
    """Functions that run `hw3tf.ops.dot_product_attention` and its gradient."""
    axes = ("BTNH", "BSKH", "BSKV")
    inputs = [arrays.zeros("float32", *(sizes[a] for a in x)) for x in axes]
    shapes = [tuple(sizes[a] for a in "BTNV"), *(tuple(x.shape) for x in inputs)]
    attend = ops.dot_product_attention
    yield lambda: shapes_are(differentiated(attend, *inputs), *shapes)
    yield lambda: shapes_are(differentiated_in_graph(attend)(*inputs), *shapes)


def ragged(rows, splits):
    return tf.RaggedTensor.from_row_splits(rows, splits, validate=False)


def attend_ragged(query, key, value, query_splits, key_splits):
    return ops.ragged_dot_product_attention(
        ragged(query, query_splits), ragged(key, key_splits), ragged(value, key_splits)
    ).values


def by_ragged_ops(arrays, sizes, _):
    """The same for `ragged_dot_product_attention`."""
    axes = ("TNH", "SKH", "SKV")
    inputs = [arrays.zeros("float32", *(sizes[a] for a in x)) for x in axes]
    splits = [tf.constant([0, sizes[a], sizes[a]], "int64") for a in "TS"]
    attend = lambda *x: attend_ragged(*x, *splits)  # noqa: E731
    shapes = [tuple(sizes[a] for a in "TNV"), *(tuple(x.shape) for x in inputs)]
    yield lambda: shapes_are(differentiated(attend, *inputs), *shapes)


def calls(path):
    """Functions that make the functions of a call, and sizes for them."""
    if path == "ops":
        kinds = ((by_ops, "BTSNKHV"), (by_ragged_ops, "TSNKHV"))
    else:
        kinds = ((dense, "BTSNKHV"), (packed, "TSNKHV"), (recurrence, "BTFU"))
    for make, axes in kinds:
        options = itertools.cycle(OPTIONS)
        for sizes in sizes_of(axes, pairs=path == "core"):
            yield make, sizes, next(options)


def run(path, note):
    counts = dict.fromkeys(("computed", "refused", "no array"), 0)
    arrays = Arrays(path)
    for make, sizes, option in calls(path):
        note.seek(0)
        note.write(f"{make.__name__} {option} {sizes}".ljust(200))
        note.flush()
        try:
            functions = list(make(arrays, sizes, option))
        except NoArrayError:
            counts["no array"] += 1
            continue
        for function in functions:
            try:
                function()
                counts["computed"] += 1
            except fuzz_ops.REFUSALS as error:
                fuzz_ops.require_message(error)
                counts["refused"] += 1
    print(path, counts)


def main():
    path, file = sys.argv[1:3]
    ops.load_op_library()
    fuzz_ops.limit_memory()
    with open(file, "w") as note:
        if path == "shapes":
            with tf.Graph().as_default():
                run(path, note)
        else:
            run(path, note)


if __name__ == "__main__":
    main()
