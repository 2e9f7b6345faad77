"""Film reviews with their sentiment: IMDB through TensorFlow Datasets, or the
generated sample."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hw3tf.course.data.network import read_prepared
from hw3tf.course.data.sample import sample_reviews
from hw3tf.course.tutorial import UserError

_IMDB_URL = "http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
_SAMPLE_TRAIN, _SAMPLE_TEST, _SAMPLE_UNLABELLED = 6000, 2000, 6000


@dataclass(frozen=True)
class Reviews:
    """Texts and labels of a training and a test set.

    Attributes:
        name: `"imdb"` or `"sample"`.
        origin: One line: where the data come from, and why.
        train_texts, test_texts: Lists of strings.
        train_labels, test_labels: int32 arrays; 1 = positive.
        test_hard: Boolean array, which test reviews need composition; None for
            IMDB, where nobody knows.
        unlabelled_texts: List of strings, further reviews without labels; empty unless
            they were asked for.
    """

    name: str
    origin: str
    train_texts: list
    train_labels: np.ndarray
    test_texts: list
    test_labels: np.ndarray
    test_hard: np.ndarray | None = None
    unlabelled_texts: list = field(default_factory=list)

    def tested_on(self, number: int, seed: int = 0) -> "Reviews":
        """The same with `number` of the test reviews, drawn at random; with all of
        them, in their order, if there are no more."""
        if number >= len(self.test_texts):
            return self
        rows = np.random.default_rng(seed).permutation(len(self.test_texts))[:number]
        hard = self.test_hard
        if hard is not None:
            hard = hard[rows]
        return replace(
            self,
            test_texts=[self.test_texts[row] for row in rows],
            test_labels=self.test_labels[rows],
            test_hard=hard,
        )


def load_reviews(
    source: str = "auto", timeout: float = 6.0, unlabelled: bool = False
) -> Reviews:
    """Loads film reviews.

    Args:
        source: `"imdb"`: the Large Movie Review Dataset (Maas et al., ACL 2011),
            25,000 training and 25,000 test reviews, from `TFDS_DATA_DIR` or
            downloaded by TensorFlow Datasets with its progress bar. `"sample"`:
            8,000 generated reviews. `"auto"` (the default): IMDB where it is
            prepared or can be downloaded, otherwise the sample.
        timeout: Seconds to wait for an answer of the server of IMDB.
        unlabelled: Whether to load reviews without labels, too: the 50,000 of IMDB's
            split `unsupervised`, or 6,000 generated ones. Defaults to False.

    Returns:
        `hw3tf.course.data.Reviews`.

    Raises:
        ValueError: If `source` is none of the three.
        UserError: If `source="imdb"` and IMDB cannot be had, with the remedy, for
            instance the folder to delete; a RuntimeError.
    """
    if source not in ("auto", "imdb", "sample"):
        raise ValueError(
            f"`source` must be 'auto', 'imdb' or 'sample'. Received: {source!r}"
        )
    if source == "sample":
        return _load_sample("asked for", unlabelled)
    try:
        return _load_imdb(timeout, unlabelled)
    except UserError as error:
        if source == "imdb":
            raise UserError(f"{error}, or pass `--data sample`.") from error
        return _load_sample(str(error), unlabelled)


def _load_sample(why: str, unlabelled: bool) -> Reviews:
    train_texts, train_labels, _ = sample_reviews(_SAMPLE_TRAIN, seed=1)
    test_texts, test_labels, test_hard = sample_reviews(_SAMPLE_TEST, seed=2)
    more = sample_reviews(_SAMPLE_UNLABELLED, seed=3)[0] if unlabelled else []
    return Reviews(
        "sample",
        f"{_SAMPLE_TRAIN} + {_SAMPLE_TEST} generated reviews ({why})",
        train_texts,
        train_labels,
        test_texts,
        test_labels,
        test_hard,
        more,
    )


def _load_imdb(timeout: float, unlabelled: bool) -> Reviews:
    splits = ("train", "test", "unsupervised") if unlabelled else ("train", "test")
    found, where = read_prepared(
        "imdb_reviews",
        _IMDB_URL,
        84,
        timeout,
        lambda builder: [_read(builder, split) for split in splits],
    )
    (texts, labels), (test_texts, test_labels) = found[:2]
    origin = f"25,000 + 25,000 IMDB reviews, {where}"
    more = found[2][0] if unlabelled else []
    return Reviews("imdb", origin, texts, labels, test_texts, test_labels, None, more)


def _read(builder: Any, split: str) -> tuple[list[str], np.ndarray]:
    """Texts and labels of a split."""
    dataset = builder.as_dataset(split=split, as_supervised=True)
    texts, labels = [], []
    for text, label in dataset.batch(1000).as_numpy_iterator():
        texts += [t.decode("utf-8") for t in text]
        labels.append(label)
    return texts, np.concatenate(labels).astype("int32")
