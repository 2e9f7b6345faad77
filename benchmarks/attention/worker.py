"""The process of one library of attention/run.py: `harness.py attention.worker`."""

import libraries.worker
from attention import cases
from attention.peers import PEERS


class Worker(libraries.worker.Worker):
    def __init__(self, library, threads):
        super().__init__(cases, PEERS, library, threads)
