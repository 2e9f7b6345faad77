"""Tests that run on Keras's other backends, each in a process of its own:

    KERAS_BACKEND=jax pytest tests/backends

`pytest` runs them so, too (tests/release/test_backends.py).
"""

import os

BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")
# Nothing here is for TensorFlow, whose tests are in the other folders.
collect_ignore_glob = [] if BACKEND == "jax" else ["test_*.py"]
