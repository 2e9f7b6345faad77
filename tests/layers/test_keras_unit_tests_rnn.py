"""Keras's own unit tests of its recurrent layers, from the installed package, on ours.

All tests in the modules that use these layers run, and each tells whether it reached
the kernel.
"""

import pytest
from keras_unit_tests import keras_tests

import hw3tf

# Their check of training fits a generator, and Keras warns of that.
pytestmark = pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")

OURS = {name: getattr(hw3tf.layers, name) for name in ("LSTM", "GRU", "SimpleRNN")}

# Tests that look at arguments and options, and let nothing go through time.
WITHOUT_A_CALL = {
    "test_fused_gru_eligibility",
    "test_fused_lstm_eligibility",
    "test_keeps_use_cudnn",
    "test_session",
    "test_torch_cudnn",  # of another backend, and skipped
}

LSTMTest = keras_tests("rnn.lstm_test", **OURS)
GRUTest = keras_tests("rnn.gru_test", **OURS)
SimpleRNNTest = keras_tests("rnn.simple_rnn_test", **OURS)
BidirectionalTest = keras_tests("rnn.bidirectional_test", **OURS)


@pytest.fixture(autouse=True)
def _on_the_kernel(request, rnn_calls):
    """After each of their tests: the kernel was called, where anything was."""
    yield
    if request.cls is not None:
        name = request.node.originalname or request.node.name
        expected = not any(name.startswith(x) for x in WITHOUT_A_CALL)
        assert bool(rnn_calls) == expected, name
