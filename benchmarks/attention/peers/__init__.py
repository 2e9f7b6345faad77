"""Exact attention on the CPU by eight libraries: one small class each.

Each gets its inputs in the layout that it likes best, before the clock starts; where
it has several ways to compute a case, all are tried and the quickest is measured.
Outputs are the output and the gradients of query, key and value, in layout (B, T, N,
H).
"""

import numpy as np

# name -> (module, class)
PEERS = {
    "hw3tf": ("attention.peers.tensorflow", "Hw3tf"),
    "hw3tf-core": ("attention.peers.tensorflow", "Hw3tfCore"),
    "hw3tf-jax": ("attention.peers.jax", "Hw3tfJax"),
    "hw3tf-torch": ("attention.peers.torch", "Hw3tfTorch"),
    "torch": ("attention.peers.torch", "Torch"),
    "onnxruntime": ("attention.peers.runtimes", "OnnxRuntime"),
    "openvino": ("attention.peers.runtimes", "OpenVino"),
    "jax": ("attention.peers.jax", "Jax"),
    "keras": ("attention.peers.tensorflow", "Keras"),
    "keras-xla": ("attention.peers.tensorflow", "KerasXla"),
}


def heads_first(x):
    return np.ascontiguousarray(x.swapaxes(1, 2))


def keys_taking_part(case):
    """The padding mask in its smallest form, (B, S); None if nothing is padded."""
    if case.lengths is None:
        return None
    return np.arange(case.sizes[2]) < case.lengths[:, None]
