"""Training that reports its time, keeps its best epoch, and can resume from it."""

import pathlib
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import keras
import numpy as np

from hw3tf._types import Dataset
from hw3tf.course import data
from hw3tf.course.sentiment.checkpoints import BestCheckpoint, History, load_checkpoint
from hw3tf.course.tutorial import UserError


class _TrainingTime(keras.callbacks.Callback):
    """Seconds of training per epoch, without the validation."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.stop: float | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.start, self.stop = time.perf_counter(), None

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.stop = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.seconds.append((self.stop or time.perf_counter()) - self.start)


def fit(
    model: keras.Model,
    training: Dataset,
    settings: Any,
    validation: Dataset | None = None,
    checkpoint: pathlib.Path | None = None,
    resume: bool = False,
) -> tuple[History, list[float]]:
    """Trains a compiled model; as one of several workers, too.

    With a checkpoint, the model has the weights of its best epoch at the end, that of
    the least validation loss.

    Args:
        model: A compiled `keras.Model` with the metric `accuracy`.
        training: `tf.data.Dataset` of `(inputs, labels)`.
        settings: Dataclass that a checkpoint must agree with; its `epochs` are the
            passes over the training set, those before a checkpoint included.
        validation: As `training`, or None.
        checkpoint: File of the best epoch, `*.weights.h5`, or None. Needs `validation`.
        resume: Whether to go on from `checkpoint`, if one is given.

    Returns:
        Tuple: dict of lists, one entry per epoch, and a list of the seconds that the
        epochs of this call took.

    Raises:
        UserError: If there is no such checkpoint, or one that does not fit.
        KeyboardInterrupt: At Ctrl-C, after it was said where the best epoch is.
    """
    if data.this_worker() is not None:
        history = data.fit_worker(model, training, settings.epochs)
        return history, history.pop("seconds")
    timer, history = _TrainingTime(), {}
    if resume and checkpoint:
        try:
            history = load_checkpoint(model, checkpoint, asdict(settings))
        except ValueError as error:
            raise UserError(f"--resume: {error}") from error
    keeper = checkpoint and BestCheckpoint(checkpoint, asdict(settings), history)
    try:
        fitted = model.fit(
            training,
            validation_data=validation,
            epochs=settings.epochs,
            initial_epoch=len(history.get("loss", [])),
            callbacks=[timer, *([keeper] if keeper else [])],
            shuffle=False,  # the data set does
            verbose="auto",
        )
    except KeyboardInterrupt:
        if keeper and keeper.history:
            print(
                f"\nThe best epoch is kept in {checkpoint}; --resume goes on from it."
            )
        else:
            print("\nNo epoch was finished, nothing is kept.")
        raise
    if not keeper:
        return fitted.history, timer.seconds
    model.load_weights(checkpoint)
    return keeper.history, timer.seconds


def predict(
    model: keras.Model, batches: Dataset, callbacks: Sequence[Any] = ()
) -> np.ndarray:
    """Logits of a classifier, one per review, as a float array.

    Args:
        model: `keras.Model` with one logit per review.
        batches: `tf.data.Dataset` of its inputs, without labels.
        callbacks: Of `keras.Model.predict`.
    """
    # In a tuple of their own: Keras takes the second of two for labels.
    inputs = batches.map(lambda *parts: (parts if len(parts) > 1 else parts[0],))
    return model.predict(inputs, verbose=0, callbacks=list(callbacks))[:, 0]


def memory_of_a_step(settings: Any, length: int) -> float:
    """Bytes that training takes, roughly: the program with its data, what a step keeps
    for its backward pass, and Keras's matrices of scores, if it is Keras's attention.

    Args:
        settings: With `batch_size`, `embed_dim`, `num_heads`, `num_layers`,
            `attention`.
        length: Tokens of the longest review.
    """
    tokens = settings.batch_size * length
    kept = 100 * settings.embed_dim * (1 + settings.num_layers)
    if settings.attention == "keras":
        kept += 16 * settings.num_heads * settings.num_layers * length
    return 1.0e9 + tokens * kept
