"""Errors of the recurrent layers: they name the argument, what was expected and what
came. hw3tf.ops checks arguments first. `_core` and the op check again, for direct calls
and for shapes that are known only when a graph runs."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from checks import run_python

from hw3tf import _core, ops
from hw3tf.ops.rnn.call import RnnCall
from hw3tf.ops.rnn.options import RnnOptions

ERRORS = ValueError, TypeError


def zeros(*shape, dtype="float32"):
    return np.zeros(shape, dtype)


# Batch 2, timesteps 5, features 3, units 4.
GOOD = {
    "lstm": {
        "inputs": zeros(2, 5, 3),
        "kernel": zeros(3, 16),
        "recurrent_kernel": zeros(4, 16),
    },
    "gru": {
        "inputs": zeros(2, 5, 3),
        "kernel": zeros(3, 12),
        "recurrent_kernel": zeros(4, 12),
    },
    "simple_rnn": {
        "inputs": zeros(2, 5, 3),
        "kernel": zeros(3, 4),
        "recurrent_kernel": zeros(4, 4),
    },
}
# Cell, what is changed -> the message, in hw3tf.ops and below it.
SHAPES = [
    (
        "lstm",
        {"inputs": zeros(2, 5)},
        "`inputs` must have 3 axes: (batch, timesteps, f",
    ),
    (
        "gru",
        {"inputs": zeros(2, 0, 3)},
        "`inputs` must have at least one timestep. Rec",
    ),
    ("lstm", {"inputs": zeros(2, 5, 0)}, "`inputs` must have at least one feature. Re"),
    ("lstm", {"inputs": zeros(2, 5, 4)}, "`kernel` must have shape (4, 16). Received"),
    ("lstm", {"kernel": zeros(3)}, "`kernel` must have 2 axes: (features, gates * uni"),
    ("lstm", {"kernel": zeros(3, 12)}, "`kernel` must have shape (3, 16). Received: k"),
    ("gru", {"kernel": zeros(3, 16)}, "`kernel` must have shape (3, 12). Received: ke"),
    ("gru", {"recurrent_kernel": zeros(12)}, "`recurrent_kernel` must have 2 axes: (u"),
    (
        "lstm",
        {"recurrent_kernel": zeros(0, 0), "kernel": zeros(3, 0)},
        "`recurrent_kernel` must have at least one unit",
    ),
    (
        "lstm",
        {"recurrent_kernel": zeros(4, 12)},
        "`recurrent_kernel` must have shape (4, 16). Received: recurrent_kernel.s",
    ),
    (
        "simple_rnn",
        {"recurrent_kernel": zeros(4, 3)},
        "`recurrent_kernel` must have shape (4, 4). Received: recurrent_kernel.s",
    ),
    ("lstm", {"bias": zeros(1, 16)}, "`bias` must have "),
    ("lstm", {"bias": zeros(15)}, "`bias` must have shape (16,). Received: bias.shape"),
    ("gru", {"recurrent_bias": zeros(16)}, "`recurrent_bias` must have shape (12,)"),
    ("gru", {"initial_h": zeros(2, 3)}, "`initial_h` must have shape (2, 4). Received"),
    (
        "lstm",
        {"initial_c": zeros(1, 4)},
        "`initial_c` must have shape (2, 4). Received",
    ),
    ("lstm", {"mask": zeros(2, 4, dtype="bool")}, "`mask` must have shape (2, 5). Rec"),
    ("lstm", {"mask": zeros(2, 5, 1, dtype="bool")}, "`mask` must have "),
    ("lstm", {"lengths": zeros(3, dtype="int32")}, "`lengths` must have shape (2,). R"),
    (
        "lstm",
        {"input_dropout": zeros(2, 2, 3)},
        "`input_dropout` must have shape (1, 2, 3) or (4, 2, 3). Received: input_drop",
    ),
    (
        "gru",
        {"input_dropout": zeros(3, 2, 4)},
        "`input_dropout` must have shape (1, 2, 3) or (3, 2, 3). Received: input_drop",
    ),
    (
        "simple_rnn",
        {"recurrent_dropout": zeros(2, 2, 4)},
        "`recurrent_dropout` must have shape (1, 2, 4). Received: recurrent_dropout.s",
    ),
    (
        "gru",
        {"recurrent_dropout": zeros(4, 2, 4)},
        "`recurrent_dropout` must have shape (1, 2, 4) or (3, 2, 4). Received: recurr",
    ),
]


def call(cell, tensors, **options):
    return RnnCall(cell, tensors, RnnOptions(**options)).run()


@pytest.mark.parametrize(("cell", "changes", "message"), SHAPES)
def test_wrong_shape_is_refused(cell, changes, message, monkeypatch):
    monkeypatch.delenv("HW3TF_PATH", raising=False)
    tensors = {**GOOD[cell], **changes}
    match = re.escape(message)
    with pytest.raises(ValueError, match=match):
        call(cell, tensors)
    with pytest.raises(ValueError, match=match):
        getattr(_core, f"{cell}_forward")(**tensors)
    specs = {k: tf.TensorSpec(None, x.dtype) for k, x in tensors.items()}
    graph = tf.function(lambda x: call(cell, x), input_signature=[specs])
    with pytest.raises(tf.errors.InvalidArgumentError, match=match):
        graph({k: tf.constant(x) for k, x in tensors.items()})


@pytest.mark.parametrize(("cell", "changes", "message"), SHAPES)
def test_wrong_shape_is_refused_by_a_functional_model(cell, changes, message):
    tensors = {**GOOD[cell], **changes}
    if "recurrent_bias" in tensors:
        message = "`bias` must have shape"
        tensors["bias"] = zeros(1, 16)
        del tensors["recurrent_bias"]
    states = [n for n in ("initial_h", "initial_c") if n in tensors]
    symbolic = {k: keras.KerasTensor(x.shape, str(x.dtype)) for k, x in tensors.items()}
    if states:
        given = [symbolic.pop(n, keras.KerasTensor((2, 4))) for n in states]
        both = {"initial_c": [keras.KerasTensor((2, 4)), given[0]]}
        symbolic["initial_state"] = both.get(states[0], given[0])
    with pytest.raises(ValueError, match=re.escape(message)):
        getattr(ops, cell)(**symbolic)


@pytest.mark.parametrize("cell", GOOD)
@pytest.mark.parametrize("lengths", [[-1, 5], [0, 6], [5, 2**31 - 1]])
def test_lengths_are_within_the_inputs(cell, lengths, path):
    at = 0 if lengths[0] < 0 else 1
    message = (
        "`lengths` must be between 0 and the length of `inputs`, 5. "
        f"Received: lengths[{at}]={lengths[at]}"
    )
    tensors = {**GOOD[cell], "lengths": np.array(lengths, "int32")}
    with pytest.raises(ValueError, match=re.escape(message)):
        getattr(_core, f"{cell}_forward")(**tensors)
    with pytest.raises(ValueError, match=re.escape(message)):
        call(cell, {k: tf.constant(x) for k, x in tensors.items()})
    if path == "reference":
        return  # in a graph it takes them for 0 and for the length of the inputs
    specs = {k: tf.TensorSpec(x.shape, x.dtype) for k, x in tensors.items()}
    graph = tf.function(lambda x: call(cell, x), input_signature=[specs])
    with pytest.raises(tf.errors.InvalidArgumentError, match=re.escape(message)):
        graph({k: tf.constant(x) for k, x in tensors.items()})


@pytest.mark.parametrize("lengths", [[-1, 5], [0, 6], [2**32, 1], [2**62, 1]])
def test_lengths_of_64_bits_are_not_truncated(lengths, kernel_path):
    message = re.escape("`lengths` must be between 0 and the length of `inputs`, 5")
    with pytest.raises(ValueError, match=message):
        ops.lstm(**GOOD["lstm"], lengths=lengths)
    graph = tf.function(lambda x: ops.lstm(**GOOD["lstm"], lengths=x))
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        graph(tf.constant(lengths, "int64"))


DTYPES = [
    ({"inputs": zeros(2, 5, 3, dtype="int32")}, "`inputs` must be of a floating-point"),
    ({"kernel": zeros(3, 16, dtype="int8")}, "Received: kernel.dtype=int8"),
    ({"recurrent_kernel": zeros(4, 16, dtype="bool")}, "recurrent_kernel.dtype=bool"),
    ({"bias": zeros(16, dtype="int64")}, "`bias` must be of a floating-point dtype"),
    (
        {"lengths": zeros(2)},
        "`lengths` must be of an integer dtype. Received: lengths.d",
    ),
]


@pytest.mark.parametrize(("changes", "message"), DTYPES)
def test_wrong_dtype_is_refused(changes, message, path):
    tensors = {**GOOD["lstm"], **changes}
    with pytest.raises(ValueError, match=re.escape(message)):
        ops.lstm(**tensors)
    symbolic = {k: keras.KerasTensor(x.shape, str(x.dtype)) for k, x in tensors.items()}
    with pytest.raises(ValueError, match=re.escape(message)):
        ops.lstm(**symbolic)


def test_core_converts_and_copies_nothing():
    good = GOOD["lstm"]
    for changes, error, message in (
        ({"kernel": zeros(16, 3).T}, ValueError, "`kernel` must be C-contiguous"),
        (
            {"inputs": zeros(2, 5, 6)[..., ::2]},
            ValueError,
            "`inputs` must be contiguous along its last",
        ),
        (
            {"kernel": zeros(3, 16, dtype="float64")},
            TypeError,
            "`kernel` must have dtype float32, as `inputs`. Received: kernel.dtype=f",
        ),
        ({"inputs": zeros(2, 5, 3, dtype=">f4")}, TypeError, "inputs.dtype=>f4"),
        ({"inputs": zeros(2, 5, 3, dtype="int32")}, TypeError, "`inputs` must have d"),
        ({"mask": zeros(2, 5, dtype="int8")}, TypeError, "`mask` must have dtype bool"),
        ({"lengths": zeros(2, dtype="int64")}, TypeError, "`lengths` must have dtype "),
    ):
        with pytest.raises(error, match=re.escape(message)):
            _core.lstm_forward(**{**good, **changes})


@pytest.mark.parametrize("cell", GOOD)
def test_wrong_option_is_refused(cell, path):
    for name in ("activation", "recurrent_activation"):
        if name == "recurrent_activation" and cell == "simple_rnn":
            continue
        for value in ("tanhh", 3):
            message = re.escape(f"`{name}` must be one of ('tanh', 'sigmoid', 'relu'")
            with pytest.raises(ValueError, match=message):
                getattr(ops, cell)(**GOOD[cell], **{name: value})
            with pytest.raises(ValueError, match=message):
                call(cell, GOOD[cell], **{name: value})
        with pytest.raises(
            ValueError, match=f"`{name}` must be one of 'tanh', 'sigmoi"
        ):
            getattr(_core, f"{cell}_forward")(**GOOD[cell], **{name: "elu"})


@pytest.mark.parametrize("name", ["inputs", "kernel", "recurrent_kernel"])
def test_missing_tensor_is_refused(name, path):
    message = f"`{name}` must be a tensor. Received: {name}=None"
    with pytest.raises(TypeError, match=message):
        ops.gru(**{**GOOD["gru"], name: None})
    with pytest.raises(TypeError, match=message):
        call("gru", {**GOOD["gru"], name: None})


def test_tensors_of_other_cells_are_refused(path):
    for cell, name in (
        ("gru", "initial_c"),
        ("lstm", "recurrent_bias"),
        ("simple_rnn", "recurrent_bias"),
    ):
        with pytest.raises(TypeError, match=f"`{name}` must be None: .* of '{cell}'"):
            call(cell, {**GOOD[cell], name: zeros(2, 4)})


def test_states_and_biases_have_the_parts_of_the_cell(path):
    state = zeros(2, 4)
    for wrong in (state, [state], [state] * 3):
        with pytest.raises(
            ValueError, match=r"`initial_state` must be a pair \(h, c\)"
        ):
            ops.lstm(**GOOD["lstm"], initial_state=wrong)
    for wrong in (zeros(12), zeros(1, 12), zeros(3, 12), zeros(2, 12, 1)):
        with pytest.raises(
            ValueError, match=r"`bias` must have shape \(2, 3 \* units\)"
        ):
            ops.gru(**GOOD["gru"], bias=wrong)
    with pytest.raises(ValueError, match=r"`bias` must have .*bias.shape=\(2, 12\)"):
        ops.gru(**GOOD["gru"], bias=zeros(2, 12), reset_after=False)
    tensors = {**GOOD["gru"], "recurrent_bias": zeros(12)}
    message = "`recurrent_bias` must have no place without `reset_after`"
    with pytest.raises(ValueError, match=message):
        call("gru", tensors, reset_after=False)
    with pytest.raises(ValueError, match=message):
        _core.gru_forward(**tensors, reset_after=False)


def test_sparse_tensors_are_refused(path):
    sparse = tf.sparse.from_dense(GOOD["gru"]["inputs"])
    with pytest.raises(
        ValueError, match=r"`inputs` must be a dense tensor: tf\.sparse"
    ):
        ops.gru(**{**GOOD["gru"], "inputs": sparse})
    ragged = tf.RaggedTensor.from_row_lengths(zeros(5, 4), [2, 3])
    with pytest.raises(ValueError, match=r"`mask` must be a dense tensor, x\.to_t"):
        ops.gru(**GOOD["gru"], mask=ragged)


# Of the gradient: what the forward pass returned, and the gradients of its results.
BACKWARD = [
    ({"outputs": zeros(2, 5, 4)}, "`outputs` must have shape (2, 1, 4). Received"),
    ({"kept": zeros(2, 5, 0, dtype="int64")}, "`kept` must have shape (2, 5, "),
    ({"kept": zeros(2, 5, 7)}, "`kept` must have dtype int64"),
    ({"grad_outputs": zeros(2, 4)}, "`grad_outputs` must have shape (2, 1, 4). Rec"),
    ({"grad_last_h": zeros(2, 1, 4)}, "`grad_last_h` must have shape (2, 4). Recei"),
    ({"grad_last_c": zeros(2, 3)}, "`grad_last_c` must have shape (2, 4). Received"),
    ({"grad_last_c": zeros(2, 4, dtype="float64")}, "`grad_last_c` must have dtype f"),
    ({"inputs": zeros(2, 5, 0)}, "`inputs` must have at least one feature"),
    ({"lengths": np.array([1, 6], "int32")}, "`lengths` must be between 0 and the le"),
]


@pytest.mark.parametrize(("changes", "message"), BACKWARD)
def test_the_gradient_checks_again(changes, message):
    outputs, _, _, kept = _core.lstm_forward(**GOOD["lstm"], keep=True)
    tensors = {**GOOD["lstm"], "outputs": outputs, "kept": kept, **changes}
    with pytest.raises(ERRORS, match=re.escape(message)):
        _core.lstm_backward(**tensors)


def test_more_than_can_be_counted_is_refused():
    def huge(*shape):
        return np.broadcast_to(np.float32(0), shape)

    good = GOOD["lstm"]
    for changes, name in (
        ({"inputs": huge(2**30, 2**30, 1), "kernel": zeros(1, 16)}, "inputs"),
        ({"inputs": huge(2**30, 2**20, 3)}, "inputs"),
        (
            {"recurrent_kernel": zeros(2**60, 0), "kernel": zeros(3, 0)},
            "recurrent_kernel",
        ),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must have "):
            _core.lstm_forward(**{**good, **changes})


@pytest.mark.parametrize("path", ["op", "pybind"])
def test_a_zero_beside_any_size_ends_nothing(path):
    """In a process of its own: an empty batch of any number of timesteps, features and
    units, which is counted or refused."""
    code = """
import numpy as np, tensorflow as tf
from hw3tf import ops
done = 0
for k in (0, 9, 20, 30, 31, 40, 50, 57, 58, 59, 60, 61, 62):
    for shape, units in (((0, 2**k, 1), 1), ((0, 1, 1), 1), ((0, 2**k, 3), 2)):
        x, kernel = tf.zeros(shape), tf.zeros((shape[2], 4 * units))
        for sequences in (False, True):
            for run in (ops.lstm, tf.function(ops.lstm)):
                try:
                    with tf.GradientTape() as tape:
                        tape.watch(kernel)
                        got = run(
                            x,
                            kernel,
                            tf.zeros((units, 4 * units)),
                            return_sequences=sequences,
                        )
                    want = (0, shape[1], units) if sequences else (0, units)
                    assert tuple(got.shape) == want, got.shape
                    if k < 31:  # TensorFlow makes no ones of more timesteps
                        assert not np.any(tape.gradient(got, kernel))
                    done += 1
                except (ValueError, tf.errors.InvalidArgumentError) as error:
                    assert k > 40, error
print("done", done > 40)
"""
    assert run_python(code, HW3TF_PATH=path).endswith("done True\n")
