"""Small grey images in ten classes: Fashion-MNIST and MNIST through TensorFlow
Datasets, or the digits that come with scikit-learn."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hw3tf.course.data.network import read_prepared
from hw3tf.course.tutorial import UserError, require_package

# A file of each server, to ask whether it answers.
_URLS = {
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    "t10k-labels-idx1-ubyte.gz",
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/"
    "t10k-labels-idx1-ubyte.gz",
}
_MEGABYTES = {"fashion_mnist": 30, "mnist": 12}
# What `load_images` takes.
SOURCES = ("auto", *_URLS, "digits")
_DIGITS_TEST = 450  # of 1,797


@dataclass(frozen=True)
class Images:
    """Images and labels of a training and a test set.

    Attributes:
        name: `"fashion_mnist"`, `"mnist"` or `"digits"`.
        origin: One line: where the data come from, and why.
        class_names: Tuple of ten strings; a label is an index into it.
        train_images, test_images: uint8 arrays `(number, 28, 28)`, 0 = background.
        train_labels, test_labels: int32 arrays `(number,)`.
    """

    name: str
    origin: str
    class_names: tuple
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_images(source: str = "auto", timeout: float = 6.0) -> Images:
    """Loads small grey images in ten classes.

    Args:
        source: `"fashion_mnist"` (Xiao et al., 2017) or `"mnist"` (LeCun et al.,
            1998): 60,000 training and 10,000 test images, from `TFDS_DATA_DIR` or
            downloaded by TensorFlow Datasets with its progress bar. `"digits"`: the
            1,797 handwritten digits of scikit-learn, 1,347 of them for training,
            enlarged from 8 x 8 to 20 x 20 pixels in a frame of 4, which is how MNIST
            frames its own. `"auto"` (the default): Fashion-MNIST where it is prepared
            or can be downloaded, otherwise the digits.
        timeout: Seconds to wait for an answer of the server.

    Returns:
        `hw3tf.course.data.Images`.

    Raises:
        ValueError: If `source` is none of the four.
        UserError: If a data set that was asked for by name cannot be had, or the
            package that brings it, with the remedy; a RuntimeError.

    Example:

    >>> images = load_images("digits")
    >>> images.train_images.shape, images.test_images.shape
    ((1347, 28, 28), (450, 28, 28))
    """
    if source not in SOURCES:
        known = ", ".join(map(repr, SOURCES))
        raise ValueError(f"`source` must be one of {known}. Received: {source!r}")
    if source == "digits":
        return _load_digits("asked for")
    name = "fashion_mnist" if source == "auto" else source
    try:
        return _load_prepared(name, timeout)
    except UserError as error:
        if source == "auto":
            return _load_digits(str(error))
        raise UserError(f"{error}, or pass `--data digits`.") from error


def _load_prepared(name: str, timeout: float) -> Images:
    megabytes = _MEGABYTES[name]
    parts, where = read_prepared(name, _URLS[name], megabytes, timeout, _read)
    names, *arrays = parts
    counts = f"{len(arrays[0]):,} + {len(arrays[2]):,}"
    return Images(name, f"{counts} images of {name}, {where}", names, *arrays)


def _read(builder: Any) -> list:
    """The classes' names; images and labels of the training set, then of the test
    set."""
    parts: list = [tuple(builder.info.features["label"].names)]
    for split in ("train", "test"):
        dataset = builder.as_dataset(split=split, as_supervised=True)
        batches = list(dataset.batch(1000).as_numpy_iterator())
        parts.append(np.concatenate([images[..., 0] for images, _ in batches]))
        parts.append(np.concatenate([y for _, y in batches]).astype("int32"))
    return parts


def _load_digits(why: str) -> Images:
    require_package("sklearn")
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = _enlarge(digits.images), digits.target.astype("int32")
    # Mixed: the writers come one after the other, and the last ones are hard to read.
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[_DIGITS_TEST:], order[:_DIGITS_TEST]
    return Images(
        "digits",
        f"{len(train):,} + {len(test):,} digits of scikit-learn ({why})",
        tuple(str(name) for name in digits.target_names),
        images[train],
        labels[train],
        images[test],
        labels[test],
    )


def _enlarge(images: np.ndarray, size: int = 20, frame: int = 4) -> np.ndarray:
    """8 x 8 pixels of 0..16 -> 28 x 28 of 0..255, by linear interpolation."""
    small = images.shape[1]
    # Pixel i of the large image lies there in the small one, whose ends go on.
    place = np.clip((np.arange(size) + 0.5) * small / size - 0.5, 0, small - 1)
    weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(small)))
    large = np.rint(weights @ images @ weights.T * (255 / 16)).astype("uint8")
    return np.pad(large, ((0, 0), (frame, frame), (frame, frame)))


def shift_images(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """Moves images by whole pixels; what comes in is background, 0.

    Args:
        images: Array `(number, rows, columns)`.
        down, right: Pixels; negative ones move up and left.

    Returns:
        Array of the same shape.

    Example:

    >>> shift_images(np.array([[[1, 2], [3, 4]]]), down=1, right=0)
    array([[[0, 0],
            [1, 2]]])
    """
    margin = max(abs(down), abs(right))
    frame = np.pad(images, ((0, 0), (margin, margin), (margin, margin)))
    frame = frame[:, margin - down :, margin - right :]
    return frame[:, : images.shape[1], : images.shape[2]]
