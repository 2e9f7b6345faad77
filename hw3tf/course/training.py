"""Training that more than one tutorial does: for a number of seconds, and so that it
can be interrupted."""

import math
import pathlib
import sys
import time
import zipfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from hw3tf.course.tutorial import UserError, prepare_folder, whole_file

# A step counts for so many seconds at most: a machine may sleep in the middle of one.
_LONGEST_STEP = 1.0
# What NumPy raises for files that it has not written, or not to their end.
_NO_CHECKPOINT = (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile)


def learning_rate_at(progress: float, largest: float, warmup: float = 0.1) -> float:
    """The learning rate after a share of the training time: a straight line from 0 to
    `largest`, then half a cosine back to 0.

    Args:
        progress: The share of the time that has passed, 0..1.
        largest: The largest learning rate.
        warmup: The share of the time that the straight line takes. Defaults to 0.1.

    Example:

    >>> [round(learning_rate_at(t, 0.01), 3) for t in (0.05, 0.1, 0.55, 1)]
    [0.005, 0.01, 0.005, 0.0]
    """
    if progress < warmup:
        return largest * progress / warmup
    return largest * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


class TimeBudget(keras.callbacks.Callback):
    """Ends training after a number of seconds and sets the learning rate by time.

    Only steps of training count, each for one second at most. Validation does not, nor
    the first step of a call of `fit`, in which TensorFlow builds the graph.

    >>> budget = TimeBudget(60, 1e-3, validate=lambda model: 0.0)
    >>> budget.fit(model, x, y, batch_size=128)  # doctest: +SKIP

    Args:
        seconds: The time to train for.
        learning_rate: The largest learning rate, see `learning_rate_at`.
        validate: Function of the model that returns its accuracy on held out data.
        num_validations: How often it is called, at equal distances; the last time at
            the end. Defaults to 10.
        checkpoint: `.npz` file that keeps the best state so far, and in the end the
            last one. None, the default, keeps none.
        purpose: Text that says what is trained: the progress bar shows it, and the
            checkpoint is restored only for the same.

    Attributes:
        elapsed: Seconds trained so far.
        curve: List of pairs `(seconds, accuracy)`, one per validation.
        saved: The pair that the checkpoint holds, or None.
    """

    def __init__(
        self,
        seconds: float,
        learning_rate: float,
        validate: Callable[[keras.Model], float],
        num_validations: int = 10,
        checkpoint: str | pathlib.Path | None = None,
        purpose: str = "",
    ) -> None:
        super().__init__()
        if seconds <= 0:
            raise ValueError(f"`seconds` must be > 0. Received: {seconds}")
        self.seconds, self.learning_rate = seconds, learning_rate
        self.validate, self.num_validations = validate, num_validations
        self.checkpoint = checkpoint and pathlib.Path(checkpoint)
        self.purpose = purpose
        self.elapsed = 0.0
        self.curve: list[tuple[float, float]] = []
        self.saved: tuple[float, float] | None = None
        self._shown: int | None = None
        self._steps = 0

    @property
    def done(self) -> bool:
        """Whether the time is over."""
        return self.elapsed >= self.seconds

    def fit(
        self,
        model: keras.Model,
        x: np.ndarray,
        y: np.ndarray,
        batch_size: int,
        resume: bool = False,
    ) -> None:
        """Trains `model`, compiled, until the time is over; it may be so already.

        Args:
            model: A compiled `keras.Model`.
            x, y: Arrays of examples.
            batch_size: Examples per step.
            resume: Whether to go on from the checkpoint, if there is one.

        Raises:
            UserError: If the checkpoint is of another purpose, has other shapes, or
                cannot be written.
            KeyboardInterrupt: Passed on, after a line that says where the best state
                is.
        """
        if self.checkpoint:
            prepare_folder(self.checkpoint.parent)
        if resume:
            try:
                self.restore(model)
            except ValueError as error:
                raise UserError(f"--resume: {error}") from error
        try:
            if not self.done:  # the clock ends it, not the number of epochs
                options = {"epochs": 10**6, "verbose": 0, "callbacks": [self]}
                model.fit(x, y, batch_size, **options)
        except KeyboardInterrupt:
            if self.checkpoint and self.saved:
                text = "\nBest so far: accuracy {:.4f} after {:.0f} s, in {}. {}"
                seconds, accuracy = self.saved
                how = "--resume goes on from there."
                print(text.format(accuracy, seconds, self.checkpoint, how))
            raise

    def check_checkpoint(self) -> None:
        """Checks, before hours of work, whether the checkpoint can be restored.

        Raises:
            UserError: If there is one, of another purpose or damaged.
        """
        try:
            self._read_checkpoint()
        except ValueError as error:
            raise UserError(f"--resume: {error}") from error

    def _read_checkpoint(self) -> tuple[list, list] | None:
        """The arrays and the curve of the checkpoint; None if there is none."""
        if not (self.checkpoint and self.checkpoint.exists()):
            return None
        try:
            # Opened here: NumPy leaves a file open that it cannot read.
            with open(self.checkpoint, "rb") as opened, np.load(opened) as file:
                purpose = str(file["purpose"])
                arrays = [file[f"v{i}"] for i in range(len(file.files) - 2)]
                curve = [(float(t), float(a)) for t, a in file["curve"]]
        except _NO_CHECKPOINT as error:
            raise ValueError(
                f"{self.checkpoint} is not a checkpoint of this program; delete it"
            ) from error
        if purpose != self.purpose:
            raise ValueError(
                f"checkpoint {self.checkpoint} is of {purpose}, not of {self.purpose}"
            )
        return arrays, curve

    def restore(self, model: keras.Model) -> bool:
        """Puts the model, compiled, where its checkpoint was. Returns whether there
        is one.

        Raises:
            ValueError: If it is of another purpose, has other shapes or is damaged.
        """
        found = self._read_checkpoint()
        if found is None:
            return False
        arrays, curve = found
        model.optimizer.build(model.trainable_variables)
        variables = _state(model)
        shapes = [x.shape for x in arrays]
        if shapes != [tuple(v.shape) for v in variables]:
            raise ValueError(
                f"checkpoint {self.checkpoint} does not fit: {self.purpose} has "
                f"{len(variables)} arrays, the file {len(arrays)} or other shapes"
            )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        self.curve, self.saved = curve, curve[-1]
        self.elapsed = curve[-1][0]
        return True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._steps = 0

    def on_train_batch_begin(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        now = learning_rate_at(
            min(1.0, self.elapsed / self.seconds), self.learning_rate
        )
        self.model.optimizer.learning_rate = now
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        spent = time.perf_counter() - self.start
        if self._steps:  # or a training of 2 s would spend most of them on the graph
            self.elapsed += min(spent, _LONGEST_STEP)
        self._steps += 1
        due = self.seconds * (len(self.curve) + 1) / self.num_validations
        if self.elapsed >= min(due, self.seconds):
            point = self.elapsed, float(self.validate(self.model))
            # At the end, it stands for those that long steps have left out.
            missing = self.num_validations - len(self.curve) if self.done else 1
            self.curve += [point] * max(1, missing)
            self._keep_best()
        self._show()
        self.model.stop_training = self.done

    def _show(self) -> None:
        """A progress bar of seconds; in a file, its last state alone."""
        watched = sys.stdout.isatty() or "ipykernel" in sys.modules
        permille = min(1000, int(1000 * self.elapsed / self.seconds))
        if not self.done and (not watched or permille == self._shown):
            return
        self._shown = permille
        unicode = str(sys.stdout.encoding).lower().startswith("utf")
        bar = f"{('━' if unicode else '=') * (permille // 50):20}"
        accuracy = f", accuracy {self.curve[-1][1]:.4f}" if self.curve else ""
        text = (
            f"{self.purpose} {bar} {self.elapsed:.1f} of {self.seconds:g} s{accuracy}"
        )
        print(
            f"\r{text}" if watched else text, end="\n" if self.done else "", flush=True
        )

    def _keep_best(self) -> None:
        best = max(accuracy for _, accuracy in self.curve)
        if not (self.done or self.curve[-1][1] == best):
            return
        self.saved = self.curve[-1]
        if self.checkpoint:
            variables = enumerate(_state(self.model))
            arrays: dict[str, Any] = {f"v{i}": np.array(v) for i, v in variables}
            with whole_file(self.checkpoint) as beside, open(beside, "wb") as file:
                np.savez(file, purpose=self.purpose, curve=self.curve, **arrays)


def _state(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]


def seconds_per_step(
    model: keras.Model, x: np.ndarray, y: np.ndarray, rounds: int = 5
) -> float:
    """Returns the median time of a training step, once the graph is built.

    Args:
        model: A compiled `keras.Model`; it is trained.
        x, y: One batch.
        rounds: Steps that are measured. Defaults to 5.
    """
    times = []
    for _ in range(rounds + 3):  # the first ones build the graph and warm it up
        start = time.perf_counter()
        model.train_on_batch(x, y)
        times.append(time.perf_counter() - start)
    return float(np.median(times[3:]))
