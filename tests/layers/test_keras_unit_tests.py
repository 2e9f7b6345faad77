"""Keras's own unit tests of its attention layers, from the installed package, on ours.

Their modules are loaded anew, and in these copies the name of the layer stands for
ours. All tests in them run, and each tells whether it reached the kernel.
"""

import keras
import pytest
from keras_unit_tests import keras_tests

import hw3tf

# `test_lora` does what Keras warns of, which is an error in our tests.
pytestmark = [
    pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict"),
    pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer"),
]

# Tests that look at arguments, shapes or weights, and let nothing attend.
WITHOUT_A_CALL = {
    "test_dtype_policy_map",
    "test_flash_attention_with_errors",
    "test_initializer",
    "test_invalid_scalar_args_rejected",
    "test_mha_constraints",
    "test_multi_head_attention_output_shape_error",
    "test_session",
    "test_shape_mismatch_error",
    "test_sliding_window_serialization",
    "test_sliding_window_validation",
    "test_symbolic_shape_with_return_attention_scores",
    "test_symbolic_shape_without_return_attention_scores",
}
if keras.backend.backend() == "tensorflow":  # where Keras has no flash attention
    WITHOUT_A_CALL.add("test_basics_with_flash_attention")


MultiHeadAttentionTest = keras_tests(
    "attention.multi_head_attention_test",
    MultiHeadAttention=hw3tf.layers.MultiHeadAttention,
)
GroupedQueryAttentionTest = keras_tests(
    "attention.grouped_query_attention_test",
    GroupedQueryAttention=hw3tf.layers.GroupQueryAttention,
)


@pytest.fixture(autouse=True)
def _on_the_kernel(request, kernel_calls):
    """After each of their tests: the kernel was called, where anything was."""
    yield
    if request.cls is not None:
        name = request.node.originalname or request.node.name
        expected = not any(name.startswith(x) for x in WITHOUT_A_CALL)
        assert bool(kernel_calls) == expected, name
