"""The process of one library: `harness.py recurrence.layers.worker`."""

import libraries.worker
from recurrence.layers import cases
from recurrence.layers.peers import JUDGE, PEERS


class Worker(libraries.worker.Worker):
    def __init__(self, library, threads):
        super().__init__(cases, PEERS | JUDGE, library, threads)
