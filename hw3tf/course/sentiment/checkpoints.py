"""The best epoch of a training, in a file that is complete at any time."""

import json
import pathlib
from typing import Any, TypeAlias

import keras

from hw3tf.course.tutorial import whole_file

# Of a training: the name of a loss or metric -> its value in every epoch.
History: TypeAlias = dict[str, list[float]]


def best_epoch_in(folder: pathlib.Path, model: str | None = None) -> pathlib.Path:
    """The checkpoint of a run with results in `folder`: BERT's, or that of a network
    that is trained from scratch."""
    return folder / ("best_bert.weights.h5" if model == "bert" else "best.weights.h5")


class BestCheckpoint(keras.callbacks.Callback):
    """Keeps the weights and the state of the optimizer after the best epoch.

    The best epoch is that of the least validation loss. The file is written beside
    its place and renamed when it is whole: an interruption leaves the one before.

    Args:
        path: The file, `*.weights.h5`.
        settings: Dict of numbers and strings, on which the shape of the model and
            the meaning of its weights depend.
        history: Dict of lists, of the epochs before: what `load_checkpoint` returned.

    Attributes:
        history: Dict of lists of floats, one entry per epoch, with those before.

    Example:

    >>> keep = BestCheckpoint("runs/best.weights.h5", {"width": 32})
    >>> model.fit(x, y, validation_data=(u, v), callbacks=[keep])
    """

    def __init__(
        self,
        path: str | pathlib.Path,
        settings: dict[str, Any],
        history: History | None = None,
    ) -> None:
        super().__init__()
        self.path = pathlib.Path(path)
        self.settings = settings
        self.history = {name: list(past) for name, past in (history or {}).items()}

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        losses = self.history["val_loss"]
        if losses[-1] == min(losses):
            self._write()

    def _write(self) -> None:
        import h5py

        with whole_file(self.path) as beside:
            self.model.save_weights(beside)
            with h5py.File(beside, "a") as file:
                about = {"settings": self.settings, "history": self.history}
                file.attrs["hw3tf"] = json.dumps(about)


def load_checkpoint(
    model: keras.Model, path: str | pathlib.Path, settings: dict[str, Any]
) -> History:
    """Loads what `BestCheckpoint` wrote.

    Args:
        model: A compiled model, as the one that was trained.
        path: The file.
        settings: Dict, as the checkpoint's.

    Returns:
        `history` of the checkpoint, up to its best epoch.

    Raises:
        ValueError: If there is no such file, if it is not a checkpoint, or if its
            settings differ; in one line. The model is left as it was.
    """
    import h5py

    path = pathlib.Path(path)
    if not path.exists():
        raise ValueError(f"there is no checkpoint {path}")
    try:
        with h5py.File(path) as file:
            about = json.loads(file.attrs["hw3tf"])
    except (OSError, KeyError) as error:
        raise ValueError(f"{path} is not a checkpoint of this program") from error
    # As JSON keeps them: lists for tuples.
    settings = json.loads(json.dumps(settings))
    for name in sorted(settings.keys() | about["settings"].keys()):
        here, there = settings.get(name), about["settings"].get(name)
        if here != there:
            raise ValueError(f"{path} was made with {name} = {there}, not {here}")
    model.optimizer.build(model.trainable_variables)
    try:
        model.load_weights(path)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is of a model of another shape: {reason}") from error
    return about["history"]
