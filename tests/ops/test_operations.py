"""What Python reads of the description of the operations, against ops and functions."""

import inspect

import pytest
import tensorflow as tf

from hw3tf import _core, ops, reference
from hw3tf.ops.attention.options import AttentionOptions
from hw3tf.ops.operations import ATTENTION, INTEGER_RNN

ATTRIBUTES = ("dropout_seed", "numbers")  # inputs of the op that are no operands
DTYPES = {"T": "float64", "Real": "float64"}


def inputs_of(name):
    return list(inspect.signature(getattr(ops.load_op_library(), name)).parameters)


@pytest.mark.parametrize(
    ("operation", "op", "more"),
    [
        (ATTENTION, "hw3tf_attention", ATTRIBUTES),
        (ATTENTION, "hw3tf_attention_grad", ATTRIBUTES),
        (INTEGER_RNN, "hw3tf_integer_rnn", ()),
        (INTEGER_RNN, "hw3tf_integer_rnn_sequence", ()),
    ],
)
def test_operands_are_the_first_inputs_of_the_op_in_order(operation, op, more):
    names = [*(x.name for x in operation.operands), *more]
    assert inputs_of(op)[: len(names)] == names


def test_required_operands_come_first_and_those_with_gradients_before_others():
    for operation in (ATTENTION, INTEGER_RNN):
        assert operation.required + operation.optional == operation.operands
        names = tuple(x.name for x in operation.operands)
        assert names[: len(operation.with_gradient)] == operation.with_gradient


def test_results_are_the_outputs_of_the_op():
    graph = tf.Graph()
    with graph.as_default():
        x = tf.zeros([2, 3, 2, 4], "float64")
        ops.dot_product_attention(x, x, x)
    (op,) = (o for o in graph.get_operations() if o.type == "Hw3tfAttention")
    sizes = dict(zip("BTNH", x.shape, strict=True)) | {"S": 3, "K": 2, "V": 4, "2": 2}
    outputs = dict(zip(ATTENTION.results, op.outputs, strict=True))
    for name, result in ATTENTION.results.items():
        assert outputs[name].shape == [sizes[axis] for axis in result.axes], name
        assert outputs[name].dtype == DTYPES[result.type]
    by_input = dict(zip(inputs_of("hw3tf_attention"), op.inputs, strict=False))
    for operand in ATTENTION.optional:
        dtype = DTYPES.get(operand.type, operand.type)
        assert by_input[operand.name].dtype == dtype, operand.name


@pytest.mark.parametrize(
    ("operation", "functions"),
    [
        (ATTENTION, (reference.dot_product_attention, ops.dot_product_attention)),
        (INTEGER_RNN, (reference.integer_rnn, ops.integer_rnn)),
    ],
)
def test_functions_have_the_operands_as_parameters(operation, functions):
    wanted = {x.name for x in operation.operands} - {"query_splits", "key_splits"}
    for function in functions:
        assert wanted <= set(inspect.signature(function).parameters)


def test_module_takes_the_operands_by_name():
    for function, operation in (
        (_core.attention_forward, ATTENTION),
        (_core.attention_backward, ATTENTION),
        (_core.integer_rnn, INTEGER_RNN),
    ):
        for operand in operation.operands:
            assert f"{operand.name}: " in function.__doc__


def test_options_have_the_optional_operands_in_order():
    fields = [name for name in vars(AttentionOptions()) if name != "dropout_seed"]
    names = [x.name for x in ATTENTION.optional]
    assert fields[-len(names) :] == names
