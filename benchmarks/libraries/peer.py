"""What a program asks of a library, in the library's own process."""

import importlib
import importlib.metadata

import numpy as np


def load(peers, name, threads):
    """The library with that name, which may use so many threads.

    Args:
        peers: Name -> (module, class).
    """
    module, kind = peers[name]
    return getattr(importlib.import_module(module), kind)(threads)


class Peer:
    """A library. Its class imports it when it is made, so that every process holds
    one.

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
        done: the output, and gradients if the case trains. An `InARow` is timed by its
        row."""
        raise NotImplementedError

    def to_numpy(self, outputs):
        """Its outputs as arrays, in the order and the layouts of the cases."""
        return [np.asarray(x) for x in outputs]

    def note(self):
        """Something the table should say about how it was computed."""
        return ""
