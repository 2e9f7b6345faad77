"""Errors of the integer recurrence: they name the argument, what was expected and what
came. hw3tf.ops checks arguments first. `_core` and the op check again, for direct calls
and for shapes that are known only when a graph runs."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from checks import run_python

from hw3tf import _core, ops

GOOD = {
    "inputs": np.zeros((2, 5, 3), "int32"),
    "kernel": np.zeros((3, 4), "int32"),
    "recurrent_kernel": np.zeros((4, 4), "int32"),
}


def zeros(*shape, dtype="int32"):
    return np.zeros(shape, dtype)


# what is changed -> the error and its message, in hw3tf.ops and below it
SHAPES = [
    ({"inputs": zeros(2, 5)}, "`inputs` must have 3 axes: (batch, timesteps, fea"),
    ({"inputs": zeros(2, 5, 0)}, "`inputs` must have at least one feature"),
    ({"inputs": zeros(2, 5, 4)}, "`kernel` must have shape (4, 4). Received: kernel.s"),
    ({"kernel": zeros(3)}, "`kernel` must have 2 axes: (features, units). Received"),
    ({"kernel": zeros(3, 0)}, "`kernel` must have at least one unit"),
    ({"kernel": zeros(3, 5)}, "`recurrent_kernel` must have shape (5, 5). Received"),
    ({"recurrent_kernel": zeros(4, 3)}, "Received: recurrent_kernel.shape=(4, 3)"),
    ({"bias": zeros(1, 4)}, "`bias` must have shape (4,). Received: bias.shape=(1, 4)"),
    ({"initial_state": zeros(4)}, "`initial_state` must have shape (2, 4). Received"),
    ({"mask": zeros(2, 4, dtype="bool")}, "`mask` must have shape (2, 5). Received"),
    ({"mask": zeros(2, 5, 1, dtype="bool")}, "`mask` must have shape (2, 5)"),
]
DTYPES = [
    ({"inputs": zeros(2, 5, 3, dtype="float32")}, "`inputs` must have dtype bool"),
    ({"inputs": zeros(2, 5, 3, dtype="complex64")}, "inputs.dtype=complex64"),
    ({"inputs": zeros(2, 5, 3, dtype="uint32")}, "Received: inputs.dtype=uint32"),
    ({"inputs": zeros(2, 5, 3, dtype="int64")}, "Received: inputs.dtype=int64"),
    ({"kernel": zeros(3, 4, dtype="float64")}, "Received: kernel.dtype=float64"),
    (
        {"recurrent_kernel": zeros(4, 4, dtype="int16")},
        "`recurrent_kernel` must have dtype int8, int32 or int64. Received: recurrent",
    ),
    ({"bias": zeros(4, dtype="float32")}, "`bias` must have dtype"),
    ({"initial_state": zeros(2, 4, dtype="float16")}, "`initial_state` must have dt"),
    ({"mask": zeros(2, 5, dtype="float32")}, "`mask` must have dtype bool"),
]


@pytest.mark.parametrize("name", GOOD)
def test_missing_array_is_refused(name):
    with pytest.raises(TypeError, match=f"`{name}` must be an array. Received: {name}"):
        ops.integer_rnn(**GOOD | {name: None})


@pytest.mark.parametrize(("changes", "message"), SHAPES)
def test_wrong_shape_is_refused(changes, message):
    call = {**GOOD, **changes}
    for function in (ops.integer_rnn, _core.integer_rnn):
        with pytest.raises(ValueError, match=re.escape(message)):
            function(**call)
    symbolic = {k: keras.KerasTensor(x.shape, str(x.dtype)) for k, x in call.items()}
    with pytest.raises(ValueError, match=re.escape(message)):
        ops.integer_rnn(**symbolic)
    specs = {k: tf.TensorSpec(None, x.dtype) for k, x in call.items()}
    graph = tf.function(lambda call: ops.integer_rnn(**call), input_signature=[specs])
    with pytest.raises(tf.errors.InvalidArgumentError, match=re.escape(message)):
        graph({k: tf.constant(x) for k, x in call.items()})


@pytest.mark.parametrize(("changes", "message"), DTYPES)
def test_wrong_dtype_is_refused(changes, message):
    call = {**GOOD, **changes}
    for function in (ops.integer_rnn, _core.integer_rnn):
        with pytest.raises(TypeError, match=re.escape(message)):
            function(**call)
    symbolic = {k: keras.KerasTensor(x.shape, str(x.dtype)) for k, x in call.items()}
    with pytest.raises(TypeError, match=re.escape(message)):
        ops.integer_rnn(**symbolic)


def test_types_that_do_not_meet_are_refused_by_the_op():
    library = ops.load_op_library()
    none = [tf.zeros([0], "int64"), tf.zeros([0], "int64"), tf.zeros([0], "bool")]
    weights = tf.zeros((3, 4), "int8"), tf.zeros((4, 4), "int8")
    with pytest.raises(tf.errors.InvalidArgumentError, match="dtype int64, that of"):
        library.hw3tf_integer_rnn(tf.zeros((2, 5, 3), "int8"), *weights, *none)
    none = [tf.cast(x, "int32") for x in none[:2]] + none[2:]
    with pytest.raises(tf.errors.InvalidArgumentError, match="no wider than int32"):
        library.hw3tf_integer_rnn(tf.zeros((2, 5, 3), "int64"), *weights, *none)


OPTIONS = [
    ({"activation": "tanh"}, "`activation` must be one of"),
    ({"overflow": "ignore"}, "`overflow` must be one of"),
    ({"overflow": None}, "`overflow` must be one of"),
    ({"clip": (0, 1)}, "`clip` must be None unless activation='clip'"),
    ({"activation": "clip"}, "`clip` must be a pair of integers (low, high)"),
    ({"activation": "clip", "clip": (0, 1.5)}, "Received: clip=(0, 1.5)"),
    ({"activation": "clip", "clip": (2, 1)}, "`clip` must be an ascending pair"),
    ({"activation": "clip", "clip": (0, 2**31)}, "within the range of int32"),
    ({"fractional_bits": 32}, "`fractional_bits` must be an integer from 0 to 31"),
    ({"fractional_bits": -1}, "Received: fractional_bits=-1"),
    ({"fractional_bits": 1.0}, "Received: fractional_bits=1.0"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_wrong_option_is_refused(options, message, path):
    with pytest.raises(ValueError, match=re.escape(message)):
        ops.integer_rnn(**GOOD, **options)
    inputs = keras.KerasTensor((2, 5, 3), "int32")
    with pytest.raises(ValueError, match=re.escape(message)):
        ops.integer_rnn(**{**GOOD, "inputs": inputs}, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "tanh"}, "'clip'. Received: activation='tanh'"),
        ({"overflow": "no"}, "'saturate'. Received: overflow='no'"),
        ({"activation": "clip", "clip_low": 2, "clip_high": 1}, "`clip_high`, 1"),
        ({"activation": "clip", "clip_low": -(2**31) - 1}, "clip_low=-2147483649"),
        ({"activation": "clip", "clip_high": 2**31}, "clip_high=2147483648"),
        ({"fractional_bits": 32}, "`fractional_bits` must be from 0 to 31"),
    ],
)
def test_wrong_option_is_refused_by_core(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        _core.integer_rnn(**GOOD, **options)


def test_core_converts_and_copies_nothing():
    with pytest.raises(ValueError, match="`kernel` must be C-contiguous"):
        _core.integer_rnn(**{**GOOD, "kernel": zeros(4, 3).T})
    with pytest.raises(ValueError, match=r"`inputs` must be contiguous along its last"):
        _core.integer_rnn(**{**GOOD, "inputs": zeros(2, 5, 6)[..., ::2]})
    with pytest.raises(TypeError, match=r"`kernel` must have dtype int32\. Received"):
        _core.integer_rnn(**{**GOOD, "kernel": zeros(3, 4, dtype="int8")})
    with pytest.raises(TypeError, match=r"inputs\.dtype=>i4"):
        _core.integer_rnn(**{**GOOD, "inputs": zeros(2, 5, 3).astype(">i4")})


@pytest.mark.parametrize("name", ["kernel", "bias", "initial_state"])
def test_weights_outside_the_dtype_are_refused(name, path):
    """Wider ones that fit are taken."""
    shapes = {"kernel": (3, 4), "bias": (4,), "initial_state": (2, 4)}
    wide = np.ones(shapes[name], "int64")
    states = ops.integer_rnn(**{**GOOD, name: wide})
    assert states.dtype == "int32"
    wide.flat[1] = -(2**31) - 1
    message = f"`{name}` must fit int32, that of the state. Received: {name} with "
    with pytest.raises(ValueError, match=message + "the value -2147483649"):
        ops.integer_rnn(**{**GOOD, name: wide})
    graph = tf.function(lambda x: ops.integer_rnn(**{**GOOD, name: x}))
    with pytest.raises(TypeError, match=f"`{name}` must have dtype int32 or narrower"):
        graph(tf.constant(wide))


def test_lists_are_integers_of_the_state(path):
    states = ops.integer_rnn(
        [[[1], [2]]], np.ones((1, 1), "int32"), GOOD["kernel"][:1, :1]
    )
    assert (states.dtype, states.numpy().tolist()) == ("int32", [[2]])
    with pytest.raises(ValueError, match="`inputs` must fit int32"):
        ops.integer_rnn([[[2**31]]], GOOD["kernel"][:1, :1], GOOD["kernel"][:1, :1])
    with pytest.raises(TypeError, match=r"inputs\.dtype=float64"):
        ops.integer_rnn([[[1.0]]], [[1]], [[1]])
    with pytest.raises(TypeError, match=r"inputs\.dtype=object"):
        ops.integer_rnn([[[2**70]]], [[1]], [[1]])


def test_more_than_can_be_counted_is_refused():
    inputs = np.broadcast_to(np.int8(0), (2**31, 2**31, 1))
    with pytest.raises(ValueError, match="`inputs` must have fewer elements"):
        _core.integer_rnn(inputs, zeros(1, 4), GOOD["recurrent_kernel"])


@pytest.mark.parametrize("path", ["op", "pybind"])
def test_a_zero_beside_any_size_costs_nothing_and_ends_nothing(path):
    """In a process of its own. There is nothing to compute where there are no steps:
    sizes up to 2**59 are counted, larger ones refused. The last state of so many
    sequences would be real memory, and is asked for where there is little."""
    code = """
import numpy as np, tensorflow as tf
from hw3tf import ops
one = tf.ones((1, 1), "int32")
call = lambda x, **options: ops.integer_rnn(x, one, one, **options)
spec = [tf.TensorSpec([None, None, 1], "int32")]
graphs = {
    s: tf.function(lambda x, s=s: call(x, return_sequences=s), spec)
    for s in (False, True)
}
graph = lambda x, return_sequences: graphs[return_sequences](x)
for k in range(63):
    for shape in ((2**k, 0, 1), (0, 2**k, 1), (0, 0, 1)):
        x = tf.zeros(shape, "int32")
        for sequences in (True,) if 20 < k and shape[0] else (False, True):
            want = shape[:2] + (1,) if sequences else (shape[0], 1)
            for run in (call, graph):
                try:
                    got = run(x, return_sequences=sequences)
                    assert k < 60 or not max(shape[:2]), shape
                    assert tuple(got.shape) == want, got.shape
                    assert sequences or not np.any(got)
                except (ValueError, tf.errors.InvalidArgumentError) as error:
                    assert 60 <= k, error
start = tf.fill([2**20, 1], tf.constant(7, "int32"))
for run in (call, tf.function(call)):
    last = run(tf.zeros([2**20, 0, 1], "int32"), initial_state=start)
    assert np.all(last == 7)
print("done")
"""
    assert run_python(code, HW3TF_PATH=path).endswith("done\n")
