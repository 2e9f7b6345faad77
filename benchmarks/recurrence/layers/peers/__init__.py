"""LSTM, GRU and simple RNN on the CPU by eight libraries: one small class each.

Each gets its inputs in the layout that it likes best, before the clock starts, and
Keras's weights in its own order of gates; where it has several ways to compute a case,
all are tried and the quickest is measured. `to_numpy` brings results back: outputs, the
gradient of the inputs, and of each layer and direction those of kernel, recurrent
kernel and bias, as Keras has them.
"""

import numpy as np

# name -> (module, class)
PEERS = {
    "hw3tf": ("recurrence.layers.peers.tensorflow", "Hw3tf"),
    "hw3tf-core": ("recurrence.layers.peers.tensorflow", "Hw3tfCore"),
    "hw3tf-jax": ("recurrence.layers.peers.jax", "Hw3tfJax"),
    "torch": ("recurrence.layers.peers.torch", "Torch"),
    "onnxruntime": ("recurrence.layers.peers.runtimes", "OnnxRuntime"),
    "openvino": ("recurrence.layers.peers.runtimes", "OpenVino"),
    "jax": ("recurrence.layers.peers.jax", "Jax"),
    "keras": ("recurrence.layers.peers.tensorflow", "Keras"),
    "keras-xla": ("recurrence.layers.peers.tensorflow", "KerasXla"),
}
# Of the program, not of the table: all others must compute what it does.
JUDGE = {"judge": ("recurrence.layers.peers.tensorflow", "Judge")}


def time_first(x):
    """(B, T, ...) as (T, B, ...) and back."""
    return np.ascontiguousarray(x.swapaxes(0, 1))


def in_order(x, order):
    """The gates of the last axis in another order: `order[i]` is the old place of the
    gate that comes to place i."""
    gates = np.split(x, len(order), axis=-1)
    return np.concatenate([gates[i] for i in order], axis=-1)
