"""Headers of custom calls that earlier versions wrote: saved graphs contain them
(csrc/tensorflow/xla_target.h)."""

import numpy as np
import pytest
import tensorflow as tf

from hw3tf import ops
from hw3tf.ops.attention.options import bits_of
from hw3tf.ops.fronts import xla_probe
from hw3tf.ops.fronts.xla_module import Array, arrays_of, run_custom_call

WHY = xla_probe.call_error(ops.op_library_path())
pytestmark = pytest.mark.skipif(bool(WHY), reason=f"no custom calls: {WHY}")

SEED = tf.constant(3, tf.int64)
# Version 1: its order of types.
DTYPES = ("float32", "bfloat16", "float16", "float64")


def call(target, header, operands, results, seed=True):
    """What a compiled graph with this header gives."""
    arguments = [SEED] * seed + operands
    run = tf.function(
        lambda *x: run_custom_call(target, header, list(x), results), jit_compile=True
    )
    return [x.numpy() for x in run(*arguments)]


def sizes(operands, places, count):
    """Ranks and sizes: `operands` stand at `places` of `count`."""
    ranks = dict(zip(places, (len(x.shape) for x in operands), strict=True))
    known = [n for x in operands for n in x.shape]
    return [*(ranks.get(i, -1) for i in range(count)), *known]


def inputs_of(rng, dtype):
    real = "float64" if dtype == "float64" else "float32"
    shapes = (2, 5, 4, 8), (2, 7, 2, 8), (2, 7, 2, 6)
    query, key, value = (
        tf.cast(rng.standard_normal(shape).astype("float32"), dtype) for shape in shapes
    )
    bias = tf.cast(rng.standard_normal((2, 4, 5, 7)).astype("float32"), real)
    key_mask = tf.constant(rng.random((2, 7)) < 0.7)
    lengths = tf.constant([5, 0], "int32")  # the second batch entry sees nothing
    return [query, key, value, bias, key_mask, lengths]


PLACES = (0, 1, 2, 3, 6, 7)


def op_of(inputs, finite):
    """The same by the op."""
    query, key, value, bias, key_mask, lengths = inputs
    none = [tf.zeros([0], t) for t in ("bool", "bool", "int32", "int64", "int64")]
    numbers = tf.constant([0.3, 1.5, 0.25], "float64")
    arguments = [query, key, value, bias, none[0], none[1], key_mask, lengths]
    arguments += [*none[2:], SEED, numbers]
    attributes = {"is_causal": True, "window_before": 4, "window_after": -1}
    run = ops.load_op_library().hw3tf_attention
    results = run(*arguments, **attributes, finite_logsumexp=finite)
    return arguments, attributes, results


def forward_results(inputs):
    query, real = inputs[0].dtype.name, inputs[3].dtype.name
    return [
        Array((2, 5, 4, 6), query),
        Array((2, 4, 5, 2), real),
        Array((2, 4, 5), real),
    ]


def version_1(dtype, flags):
    numbers = [bits_of(x) for x in (0.3, 1.5, 0.25)]
    return [DTYPES.index(dtype), flags, 4, -1, 0, *numbers]


def assert_equal(got, want):
    for x, y in zip(got, want, strict=True):
        np.testing.assert_array_equal(x.astype("float64"), np.asarray(y, "float64"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("finite", [False, True])
def test_attention_of_version_1(dtype, finite, rng):
    inputs = inputs_of(rng, dtype)
    header = version_1(dtype, 1 + 2 * finite) + sizes(inputs, PLACES, 11)
    got = call("hw3tf_attention_1", header, inputs, forward_results(inputs))
    want = op_of(inputs, finite)[2]
    assert np.isinf(want[2].numpy()).any() != finite
    assert_equal(got, want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_of_attention_of_version_1(dtype, rng):
    inputs = inputs_of(rng, dtype)
    arguments, attributes, (output, statistics, logsumexp) = op_of(inputs, True)
    more = [output, statistics, output, tf.ones_like(logsumexp)]
    want = ops.load_op_library().hw3tf_attention_grad(*arguments, *more, **attributes)
    operands = inputs + more
    places = (*PLACES, 11, 12, 13, 14)
    header = version_1(dtype, 3) + sizes(operands, places, 15)
    results = [Array(x.sizes, x.dtype) for x in arrays_of(inputs[:4])]
    got = call("hw3tf_attention_grad_1", header, operands, results)
    assert_equal(got, want)


@pytest.mark.parametrize("weight", ["int8", "int32", "int64"])
@pytest.mark.parametrize("sequences", [False, True])
def test_recurrence_of_version_1(weight, sequences, rng):
    types = ("bool", "int8", "uint8", "int16", "int32", "int64")
    state = "int64" if weight == "int64" else "int32"
    x = tf.constant(rng.integers(-9, 9, (2, 5, 3)), "int16")
    w, u = (tf.constant(rng.integers(-2, 3, s), weight) for s in ((3, 4), (4, 4)))
    mask = tf.constant(rng.random((2, 5)) < 0.5)
    operands = [x, w, u, mask]
    header = [types.index(t) for t in ("int16", weight, state)]
    # clip to -20..30, saturate, one fractional bit, in reverse
    header += [3, -20, 30, 2, 1, 1, int(sequences), 0]
    header += sizes(operands, (0, 1, 2, 5), 6)
    shape = (2, 5, 4) if sequences else (2, 4)
    results = [Array(shape, state)]
    got = call("hw3tf_integer_rnn_1", header, operands, results, seed=False)
    want = ops.integer_rnn(
        x,
        w,
        u,
        mask=mask,
        activation="clip",
        clip=(-20, 30),
        overflow="saturate",
        fractional_bits=1,
        reverse=True,
        return_sequences=sequences,
    )
    assert_equal(got, [want])


def test_header_with_fewer_attributes_and_operands_leaves_the_defaults(rng):
    """As of a graph that was saved before the last options were added."""
    inputs = inputs_of(rng, "float32")
    numbers = [bits_of(x) for x in (0.3, 1.5, 0.25)]
    words = [numbers[0], 1, 4, -1, *numbers[1:]]  # without finite_logsumexp
    header = [len(words), 9, 0, 0, 0, *words] + sizes(inputs, PLACES, 9)
    got = call("hw3tf_attention_2", header, inputs, forward_results(inputs))
    arguments, attributes, want = op_of(inputs, False)
    assert_equal(got, want)
    more = [want[0], want[1], want[0], tf.ones_like(want[2])]
    grads = ops.load_op_library().hw3tf_attention_grad(*arguments, *more, **attributes)
    operands = inputs + more
    header = [len(words), 13, 0, 0, 0, *words]
    header += sizes(operands, (*PLACES, 9, 10, 11, 12), 13)
    results = [Array(x.sizes, x.dtype) for x in arrays_of(inputs[:4])]
    assert_equal(call("hw3tf_attention_grad_2", header, operands, results), grads)


@pytest.mark.parametrize(("at", "value"), [(0, 8), (1, 12), (2, 4)])
def test_header_of_a_later_version_is_refused(at, value, rng):
    """More attributes, more operands, another type."""
    inputs = inputs_of(rng, "float32")
    words = [bits_of(0.3), 1, 4, -1, bits_of(1.5), bits_of(0.25), 0]
    header = [len(words), 11, 0, 0, 0, *words] + sizes(inputs, PLACES, 11)
    call("hw3tf_attention_2", header, inputs, forward_results(inputs))
    header[at] = value
    with pytest.raises(tf.errors.InternalError, match="a later hw3tf has made this"):
        call("hw3tf_attention_2", header, inputs, forward_results(inputs))
