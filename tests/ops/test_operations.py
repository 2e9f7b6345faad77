"""The description of the operations that Python reads, against ops and functions."""

import inspect

import pytest
import tensorflow as tf

from hw3tf import _core, ops, reference
from hw3tf.ops.attention.options import NUMBERS, AttentionOptions
from hw3tf.ops.fronts.reference import names_taken
from hw3tf.ops.operations import ATTENTION, INTEGER_RNN, RNN, RNN_GRAD
from hw3tf.ops.rnn.options import RnnOptions
from hw3tf.reference.rnn import GATES

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
        *((operation, f"hw3tf_{cell}", ()) for cell, operation in RNN.items()),
        *((operation, f"hw3tf_{cell}_grad", ()) for cell, operation in RNN.items()),
        *(
            (operation, f"hw3tf_{cell}_grad", ())
            for cell, operation in RNN_GRAD.items()
        ),
    ],
)
def test_operands_are_the_first_inputs_of_the_op_in_order(operation, op, more):
    names = [*(x.name for x in operation.operands), *more]
    assert inputs_of(op)[: len(names)] == names


def test_required_operands_come_first_and_those_with_gradients_before_others():
    for operation in (ATTENTION, INTEGER_RNN, *RNN.values()):
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


@pytest.mark.parametrize("cell", RNN)
def test_results_of_a_recurrent_layer_are_the_outputs_of_its_op(cell):
    columns = 4 * GATES[cell]
    graph = tf.Graph()
    with graph.as_default():
        shapes = (2, 3, 5), (5, columns), (4, columns)
        getattr(ops, cell)(*(tf.zeros(shape, "float64") for shape in shapes))
    operation = RNN[cell]
    (op,) = (o for o in graph.get_operations() if o.type == operation.op)
    # What follows from attributes is open in the shape function, S is set in Python.
    sizes = {"B": 2, "T": 3, "U": 4, "S": 1, "Q": None}
    for result, output in zip(operation.results.values(), op.outputs, strict=True):
        assert output.shape.as_list() == [sizes[axis] for axis in result.axes]
        assert output.dtype == DTYPES.get(result.type, result.type)
    assert sorted(RnnOptions().attributes(cell)) == sorted(
        x["name"] for x in operation.attributes if x["name"] != "keep"
    )
    of_gradient = RNN_GRAD[cell]
    names = [name.removeprefix("grad_") for name in of_gradient.results]
    assert tuple(names) == operation.with_gradient


@pytest.mark.parametrize(
    ("operation", "functions"),
    [
        (ATTENTION, (reference.dot_product_attention, ops.dot_product_attention)),
        (INTEGER_RNN, (reference.integer_rnn, ops.integer_rnn)),
        *((operation, (reference.rnn,)) for operation in RNN.values()),
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
        *((getattr(_core, f"{cell}_forward"), RNN[cell]) for cell in RNN),
        *((getattr(_core, f"{cell}_backward"), RNN_GRAD[cell]) for cell in RNN),
    ):
        for operand in operation.operands:
            assert f"{operand.name}: " in function.__doc__


def test_options_have_the_optional_operands_in_order():
    fields = [name for name in vars(AttentionOptions()) if name != "dropout_seed"]
    names = [x.name for x in ATTENTION.optional]
    assert fields[-len(names) :] == names


OPTIONS = AttentionOptions(
    scale=0.3,
    is_causal=True,
    attn_logits_soft_cap=5.0,
    sliding_window=7,
    dropout_rate=0.25,
)
BY_FRONTS = {"finite_logsumexp", "dropout_seed", "number_bits"}  # set by fronts


def test_options_are_attributes_of_the_kernels_and_come_back():
    """The gradient of a gradient reads them from the op."""
    names = {x["name"] for x in ATTENTION.attributes}
    assert set(OPTIONS.attributes) == names - BY_FRONTS
    assert set(NUMBERS) < set(OPTIONS.attributes)
    assert AttentionOptions.of_attributes(OPTIONS.attributes) == OPTIONS
    plain = AttentionOptions(scale=1.0)
    assert AttentionOptions.of_attributes(plain.attributes) == plain


def test_every_option_reaches_the_scores_that_are_returned():
    """They are built once more in pure Keras, beside the kernel."""
    taken = [*names_taken(reference.attention_logits)]
    taken += names_taken(reference.visible_keys)
    elsewhere = ["query_splits", "key_splits", "dropout_rate", "dropout_seed"]
    assert sorted(taken + elsewhere) == sorted(AttentionOptions.__dataclass_fields__)


def test_node_of_a_functional_model_refuses_an_unknown_option():
    with pytest.raises(TypeError, match=r"options .* must be .*Received: \['window'\]"):
        ops.DotProductAttention(scale=1.0, window=3)
