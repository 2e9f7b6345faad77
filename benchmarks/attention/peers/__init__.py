"""Exact attention on the CPU by eight libraries: one small class each.

A class imports its library when it is made, so that every process holds one. Each
gets its inputs in the layout that it likes best, before the clock starts; where it
has several ways to compute a case, all are tried and the quickest is measured.
"""

import importlib
import importlib.metadata

import numpy as np

# name -> (module, class)
PEERS = {
    "hw3tf": ("attention.peers.tensorflow", "Hw3tf"),
    "hw3tf-core": ("attention.peers.tensorflow", "Hw3tfCore"),
    "torch": ("attention.peers.torch", "Torch"),
    "onnxruntime": ("attention.peers.runtimes", "OnnxRuntime"),
    "openvino": ("attention.peers.runtimes", "OpenVino"),
    "jax": ("attention.peers.jax", "Jax"),
    "keras": ("attention.peers.tensorflow", "Keras"),
    "keras-xla": ("attention.peers.tensorflow", "KerasXla"),
}


def load(name, threads):
    """The library with that name, which may use so many threads."""
    module, kind = PEERS[name]
    return getattr(importlib.import_module(module), kind)(threads)


class Peer:
    """What the worker asks of a library.

    Args:
        threads: Threads to use, set through the library's own means.
    """

    packages = ()

    def versions(self):
        return {name: importlib.metadata.version(name) for name in self.packages}

    def refuses(self, case):
        """Why the library cannot compute the case; empty if it can."""
        return ""

    def ways(self, case):
        """Names of the ways to compute it."""
        return [""]

    def prepare(self, case, inputs, way):
        """A function of no arguments that computes the case and returns when it is
        done: the output, and the gradients of query, key and value if it trains.
        An `InARow` is timed by its row."""
        raise NotImplementedError

    def to_numpy(self, outputs):
        """Its outputs in layout (B, T, N, H)."""
        return [np.asarray(x) for x in outputs]

    def note(self):
        """Something the table should say about how it was computed."""
        return ""


def heads_first(x):
    return np.ascontiguousarray(x.swapaxes(1, 2))


def keys_taking_part(case):
    """The padding mask in its smallest form, (B, S); None if nothing is padded."""
    if case.lengths is None:
        return None
    return np.arange(case.sizes[2]) < case.lengths[:, None]
