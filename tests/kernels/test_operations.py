"""The tables of the operations, `hw3tf._core.operations()`, and what is made of them:
parameters, and the TypeErrors of calls that do not fit these."""

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from hw3tf import _core, ops

OPERATIONS = _core.operations()
X = np.ones((2, 5, 4, 3), "float32")
KEYS = np.ones((1, 7, 2, 3), "float32")
VALUES = np.ones((2, 7, 2, 6), "float32")
STEPS, WEIGHTS = np.ones((2, 5, 3), "int32"), np.ones((3, 3), "int32")
SIZES = {"B": 2, "T": 5, "S": 7, "N": 4, "K": 2, "H": 3, "V": 6}
OPTIONAL = {
    "bias": np.zeros((4, 1, 7), "float32"),
    "mask": np.ones((2, 1, 5, 7), "bool"),
    "query_mask": np.ones((2, 5), "bool"),
    "key_mask": np.ones((1, 7), "bool"),
    "query_lengths": np.array([5, 4], "int32"),
    "key_lengths": np.array([7], "int32"),
}


def names(operation, part):
    return [entry["name"] for entry in OPERATIONS[operation][part]]


def fits(entry, x, sizes):
    """Whether an array has the axes of its operand or result."""
    wanted = [sizes[a] if a.isalpha() else int(a) for a in entry["axes"]]
    if entry.get("broadcasts"):
        return np.broadcast_shapes(x.shape, wanted) == tuple(wanted)
    return all(n in (w, 1) for n, w in zip(x.shape, wanted, strict=True))


def test_axes_are_those_of_a_call_that_passes():
    table = OPERATIONS["attention"]
    call = {"query": X, "key": KEYS, "value": VALUES, **OPTIONAL}
    for entry in table["operands"]:
        if entry["name"] in call:
            assert fits(entry, call[entry["name"]], SIZES), entry
    results = _core.attention_forward(**call, scale=0.2)
    assert [x.shape for x in results] == [(2, 5, 4, 6), (2, 4, 5, 2), (2, 4, 5)]
    for entry, x in zip(table["results"], results, strict=True):
        assert x.shape == tuple(SIZES.get(a) or int(a) for a in entry["axes"])
    grads = _core.attention_backward(
        X, KEYS, VALUES, *results[:2], results[0], scale=0.2, **OPTIONAL
    )
    for entry, x in zip(OPERATIONS["attention_grad"]["results"], grads, strict=True):
        assert x.shape == call[entry["like"]].shape
    (states,) = OPERATIONS["integer_rnn"]["results"]
    assert states["axes"] == ["B", "(T)", "U"]
    for sequences, shape in ((False, (2, 3)), (True, (2, 5, 3))):
        last = _core.integer_rnn(STEPS, WEIGHTS, WEIGHTS, return_sequences=sequences)
        assert last.shape == shape


def test_the_gradient_takes_what_its_operation_takes():
    forward, grad = names("attention", "operands"), names("attention_grad", "operands")
    results = ["output", "statistics", "grad_output", "grad_logsumexp"]
    assert grad == forward + results
    own = names("attention_grad", "attributes")
    assert own == [*names("attention", "attributes"), "skip_grad_bias"]
    differentiable = [
        x["name"] for x in OPERATIONS["attention"]["operands"] if x["gradient"]
    ]
    likes = [x["like"] for x in OPERATIONS["attention_grad"]["results"]]
    assert likes == differentiable == ["query", "key", "value", "bias"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_types_are_those_of_the_op(operation):
    assert ops.load_op_library()
    table = OPERATIONS[operation]
    op = op_def_registry.get(table["op"])
    attributes = {x.name: x for x in op.attr}
    for name, elements in table["types"].items():
        allowed = attributes[name].allowed_values.list.type
        assert [tf.as_dtype(x).name for x in allowed] == elements
    inputs = {x.name: x.type_attr or tf.as_dtype(x.type).name for x in op.input_arg}
    for entry in table["operands"]:
        assert inputs.pop(entry["name"]) == entry["type"]
    scalars = [x["name"] for x in table["attributes"] if x["carrier"] == "input"]
    numbers = any(x["carrier"] == "numbers" for x in table["attributes"])
    assert list(inputs) == scalars + ["numbers"] * numbers


@pytest.mark.parametrize(
    ("args", "kwargs", "why"),
    [
        ((X, X), {"scale": 1.0}, "no `value`"),
        ((X, X, X), {}, "no `scale`"),
        ((X, X, X, True, 1.0), {}, "5 positional arguments"),
        ((X, X, X), {"scale": 1.0, "masks": X}, "an unknown `masks`"),
        ((X, X, X), {"scale": 1.0, "query": X}, "`query` twice"),
        ((X, X, X), {"scale": 1.0, "number_bits": []}, "an unknown `number_bits`"),
        ((X, X, None), {"scale": 1.0}, "`value` of the type NoneType"),
        ((X, X, X), {"scale": "1"}, "`scale` of the type str"),
        (
            (X, X, X),
            {"scale": 1.0, "window_before": 1.5},
            "`window_before` of the type",
        ),
        ((X, X, X), {"scale": 1.0, "window_before": 2**63}, "of the type int"),
        ((X, X, X), {"scale": 1.0, "mask": [True]}, "`mask` of the type list"),
    ],
)
def test_arguments_that_do_not_fit_the_parameters_are_type_errors(args, kwargs, why):
    with pytest.raises(TypeError) as caught:
        _core.attention_forward(*args, **kwargs)
    message = str(caught.value)
    assert message.startswith("attention_forward(): incompatible function arguments")
    assert why in message.split("Received: ")[1]
    assert "1. attention_forward(query: numpy.ndarray, " in message


def test_numbers_are_taken_as_python_takes_them():
    """NumPy's numbers and integers, where a float is meant."""
    plain = _core.attention_forward(X, X, X, scale=2.0, window_before=1)
    for scale, window in ((2, np.int8(1)), (np.float32(2), np.int64(1))):
        again = _core.attention_forward(
            X, X, X, np.bool_(True), scale=scale, window_before=window
        )
        np.testing.assert_array_equal(plain[0], again[0])
    keyword = "".join(["sc", "ale"])  # not the object that the compiler interned
    again = _core.attention_forward(X, X, X, **{keyword: 2.0, "window_before": 1})
    np.testing.assert_array_equal(plain[0], again[0])


def test_docstrings_begin_with_the_signature():
    first = _core.attention_forward.__doc__.splitlines()[0]
    assert first.startswith("attention_forward(query: numpy.ndarray, key: ")
    assert "finite_logsumexp: bool = False, *, scale: float, bias: numpy" in first
    assert "window_after: int = -1, soft_cap: float = 0.0, " in first
    assert first.endswith(") -> tuple")
    first = _core.integer_rnn.__doc__.splitlines()[0]
    assert "activation: str = 'none', clip_low: int = 0" in first
    assert first.endswith(") -> numpy.ndarray")


def test_results_have_the_dtype_of_the_query():
    for dtype in (ml_dtypes.bfloat16, "float16", "float64"):
        x = X.astype(dtype)
        real = "float64" if dtype == "float64" else "float32"
        results = _core.attention_forward(x, x, x, scale=1.0)
        assert [r.dtype for r in results] == [x.dtype, real, real]
