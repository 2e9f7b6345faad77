"""Training in several processes, on this machine or on many, through `TF_CONFIG`."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Sequence

import keras

from hw3tf._types import Dataset, Strategy, Tensor


class WorkerError(RuntimeError):
    """A worker has failed.

    Attributes:
        status: Its exit status; negative if a signal has ended it.
    """

    def __init__(self, index: int, status: int) -> None:
        super().__init__(f"worker {index} failed with exit status {status}")
        self.status = status


def this_worker() -> int | None:
    """The index of this process among the workers of `TF_CONFIG`; 0 is the chief.

    Returns:
        An integer, or None if there is no `TF_CONFIG`.

    Raises:
        ValueError: If `TF_CONFIG` is not the JSON that TensorFlow expects of a worker.

    Example:

    >>> hw3tf.course.data.this_worker() is None
    True
    """
    config = os.environ.get("TF_CONFIG")
    if not config:
        return None
    try:
        found = json.loads(config)
        index, workers = found["task"]["index"], found["cluster"]["worker"]
        kind = found["task"]["type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "`TF_CONFIG` must be JSON with `cluster.worker`, `task.type` and "
            f"`task.index`. Received: {config!r}"
        ) from error
    if kind != "worker" or index not in range(len(workers)):
        raise ValueError(
            "`TF_CONFIG` must name a task of type 'worker' whose index is one of "
            f"its {len(workers)} workers. Received: {config!r}"
        )
    return index


def worker_strategy() -> Strategy:
    """The `tf.distribute.Strategy` that `TF_CONFIG` asks for.

    Call it before TensorFlow computes anything.

    Returns:
        `MultiWorkerMirroredStrategy` if there is a `TF_CONFIG`, which waits until all
        workers are there; otherwise the default strategy, which changes nothing.
    """
    import tensorflow as tf

    if this_worker() is None:
        return tf.distribute.get_strategy()
    return tf.distribute.MultiWorkerMirroredStrategy()


def fit_worker(
    model: keras.Model, dataset: Dataset, epochs: int
) -> dict[str, list[float]]:
    """Trains on this worker's part of every batch, in step with the others.

    Keras 3.15's `fit` fails under `MultiWorkerMirroredStrategy`, with any layers.

    Args:
        model: A compiled `keras.Model`, made in the scope of `worker_strategy()`.
        dataset: `tf.data.Dataset` of `(inputs, labels)`, the same on every worker;
            inputs are a tensor or a tuple of some. A batch with fewer entries than
            there are workers is left out.
        epochs: Passes over the data set.

    Returns:
        Dict with `"loss"`, the mean of all workers per epoch, and `"seconds"`, both
        lists.
    """
    import tensorflow as tf

    strategy, index = tf.distribute.get_strategy(), this_worker()
    count = strategy.num_replicas_in_sync

    def replica(x: Tensor, y: Tensor) -> Tensor:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True)) / count
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        return loss

    @tf.function(reduce_retracing=True)
    def step(x: Tensor, y: Tensor) -> Tensor:
        return strategy.reduce("SUM", strategy.run(replica, args=(x, y)), axis=None)

    history: dict[str, list[float]] = {"loss": [], "seconds": []}
    for _ in range(epochs):
        start, losses = time.perf_counter(), []
        for x, y in dataset:
            if len(y) >= count:
                own = tf.nest.map_structure(lambda rows: rows[index::count], x)
                losses.append(float(step(own, y[index::count, None])))
        history["loss"].append(sum(losses) / len(losses))
        history["seconds"].append(time.perf_counter() - start)
    return history


def run_workers(count: int, command: list[str]) -> None:
    """Runs a command in `count` processes of this machine, each with its `TF_CONFIG`.

    They talk over free ports of the loopback address. What the chief prints goes where
    the output of this process goes; of the others, only what they write to standard
    error.

    Args:
        count: Number of processes, at least 1.
        command: List of strings, as for `subprocess.run`.

    Raises:
        ValueError: If `count` is less than 1.
        WorkerError: If a process fails; the others are ended.

    Example:

    >>> hw3tf.course.data.run_workers(2, ["true"])
    """
    if count < 1:
        raise ValueError(f"`count` must be at least 1. Received: {count}")
    cluster = {"worker": [f"127.0.0.1:{port}" for port in _free_ports(count)]}
    workers = []
    try:
        for index in range(count):
            task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
            output = None if index == 0 else subprocess.DEVNULL
            environment = os.environ | {"TF_CONFIG": json.dumps(task)}
            workers.append(subprocess.Popen(command, env=environment, stdout=output))
        _wait_for_all(workers)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _wait_for_all(workers: Sequence[subprocess.Popen]) -> None:
    """Until all have ended well; a worker whose partner died would wait for ever."""
    waiting = dict(enumerate(workers))
    while waiting:
        for index, worker in list(waiting.items()):
            try:
                code = worker.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue
            if code:
                raise WorkerError(index, code)
            del waiting[index]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
