"""Tests that run on Keras's other backends, each in a process of its own:

    KERAS_BACKEND=jax pytest tests/backends
    KERAS_BACKEND=torch pytest tests/backends

`pytest -m slow tests/release/test_backends.py` runs both so, as CI does.
"""

import os

BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")
# Nothing here is for TensorFlow, whose tests are in the other folders.
if BACKEND == "torch":
    collect_ignore_glob = ["test_jax*.py"]
elif BACKEND == "jax":
    collect_ignore_glob = ["test_torch*.py"]
else:
    collect_ignore_glob = ["test_*.py"]
