"""Naive-Bayes log ratios of words and short phrases by themselves."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike

from hw3tf._types import RaggedTensor, Tensor

_PRIME, _FACTOR = 2**31 - 1, 1_000_003  # their product, and a word more, fit int64
ORDERS = (1, 2, 3)


def ngram_buckets(ngram: Sequence[Tensor], num_buckets: int) -> Tensor:
    """Where n-grams stand in a table of `num_buckets` entries.

    Arithmetic on integers alone, so that arrays and tensors give the same.

    Args:
        ngram: List of int64 arrays or tensors of one shape: the ids of the first
            words, of the second ones, and so on.
        num_buckets: Entries of the table.

    Returns:
        Array or tensor of that shape, int64, from 0 to `num_buckets - 1`.

    Example:

    >>> first, second = np.array([7, 7]), np.array([9, 10])
    >>> ngram_buckets([first, second], 1000)
    array([ 30,  31])
    """
    code = 0
    for ids in ngram:
        code = (code * _FACTOR + ids) % _PRIME
    return code % num_buckets


@keras.saving.register_keras_serializable(package="hw3tf")
class NaiveBayesFeatures(keras.layers.Layer):
    """Three floats for every token: what the word, the two and the three words that
    begin there say of the label.

    An n-gram that occurs in p positive and n negative training reviews says
    `ln(p + 1) - ln(n + 1)`. Single words have a table of their own; pairs and triples
    share the entries of a table of `num_buckets` each, by a hash. Beyond the end of a
    review there are words of id 0: that a review ends on a word says something, too.

    The review that a model learns from must not have been counted: it would find its
    own label in its rare phrases. `cross_fitted` gives every training review what the
    other folds say.

    Args:
        vocab_size: Number of token ids.
        num_buckets: Entries of the tables of pairs and triples. Defaults to `2**22`;
            the 25,000 reviews of IMDB have some millions of different triples.
        **kwargs: Passed to `keras.layers.Layer`.

    Call arguments:
        tokens: Integer tensor of shape `(batch, length)`, 0 = padding.

    Returns:
        Float tensor of shape `(batch, length, 3)`, 0 where there is padding.

    Raises:
        ValueError: If `vocab_size` or `num_buckets` is less than 1.

    Example:

    >>> features = NaiveBayesFeatures(vocab_size=10, num_buckets=100)
    >>> tokens = tf.ragged.constant([[2, 3], [4, 3]], dtype="int64")
    >>> features.adapt(tokens, labels=[1, 0])
    >>> features(tokens.to_tensor())[0, 0].numpy().round(2)
    array([0.69, 0.69, 0.69], dtype=float32)

    Reference:
        - [Wang and Manning, 2012](https://aclanthology.org/P12-2018/)
    """

    def __init__(
        self, vocab_size: int, num_buckets: int = 2**22, **kwargs: Any
    ) -> None:
        kwargs.setdefault("trainable", False)
        super().__init__(**kwargs)
        for name, size in (("vocab_size", vocab_size), ("num_buckets", num_buckets)):
            if size < 1:
                raise ValueError(f"`{name}` must be >= 1. Received: {size}")
        self.vocab_size = vocab_size
        self.num_buckets = num_buckets
        self.tables = [
            # Halves: 11 bits for numbers of size 1, and a saved file half as large.
            self.add_weight(
                (self.table_size(order),),
                initializer="zeros",
                trainable=False,
                dtype="float16",
                autocast=False,
                name=f"log_ratios_{order}",
            )
            for order in ORDERS
        ]
        self.built = True

    def table_size(self, order: int) -> int:
        """Entries of the table of n-grams of `order` words."""
        return self.vocab_size if order == 1 else self.num_buckets

    def _rows(self, ngram: Sequence[Tensor]) -> Tensor:
        """Rows of the table of n-grams of one length; single words are their own."""
        return ngram[0] if len(ngram) == 1 else ngram_buckets(ngram, self.num_buckets)

    def adapt(self, tokens: RaggedTensor, labels: ArrayLike) -> None:
        """Counts the n-grams of the training reviews.

        Args:
            tokens: `tf.RaggedTensor` of ids, `(reviews, None)`.
            labels: Integer array, 0 or 1 for every review.
        """
        for order, table in zip(ORDERS, self.tables, strict=True):
            rows, review = self._flat_rows(tokens, order)
            rows, review = _once_per_review(rows, review, self.table_size(order))
            counts = _count(rows, np.asarray(labels)[review], self.table_size(order))
            table.assign(_log_ratio(*counts))

    def cross_fitted(
        self, tokens: RaggedTensor, labels: ArrayLike, folds: int = 8, seed: int = 0
    ) -> RaggedTensor:
        """Features of training reviews, each from counts without its own fold.

        Args:
            tokens: `tf.RaggedTensor` of ids, `(reviews, None)`.
            labels: Integer array, 0 or 1 for every review.
            folds: Number of parts. Defaults to 8.
            seed: Integer, of the random division into folds.

        Returns:
            `tf.RaggedTensor` of float32, `(reviews, None, 3)`.

        Raises:
            ValueError: If `folds` is less than 2.
        """
        if folds < 2:
            raise ValueError(f"`folds` must be >= 2. Received: {folds}")
        labels = np.asarray(labels)
        fold = np.random.default_rng(seed).permutation(len(labels)) % folds
        floats = np.empty((len(tokens.flat_values), len(ORDERS)), "float32")
        for column, order in enumerate(ORDERS):
            every, review = self._flat_rows(tokens, order)
            size = self.table_size(order)
            rows, of = _once_per_review(every, review, size)
            total = _count(rows, labels[of], size)
            for k in range(folds):
                counted, asked = fold[of] == k, fold[review] == k
                own = _count(rows[counted], labels[of[counted]], size)
                at = every[asked]
                others = [t[at] - o[at] for t, o in zip(total, own, strict=True)]
                floats[asked, column] = _log_ratio(*others)
        return tokens.with_flat_values(floats)

    def of_ragged(self, tokens: RaggedTensor) -> RaggedTensor:
        """As a call, for a `tf.RaggedTensor` of any number of reviews.

        Returns:
            `tf.RaggedTensor` of float32, `(reviews, None, 3)`.
        """
        tables = [np.float32(table.numpy()) for table in self.tables]
        floats = [
            table[self._flat_rows(tokens, order)[0]]
            for order, table in zip(ORDERS, tables, strict=True)
        ]
        return tokens.with_flat_values(np.stack(floats, axis=1))

    def present(
        self, tokens: RaggedTensor, order: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which n-grams of `order` words the reviews have, each once.

        Args:
            tokens: `tf.RaggedTensor` of ids, `(reviews, None)`.
            order: 1, 2 or 3.

        Returns:
            Tuple of three arrays of one length, sorted by review: the n-gram's row in
            its table, the number of the review, the n-gram's log ratio.
        """
        rows, review = self._flat_rows(tokens, order)
        rows, review = _once_per_review(rows, review, self.table_size(order))
        return rows, review, np.float32(self.tables[order - 1].numpy())[rows]

    def call(self, tokens: Tensor) -> Tensor:
        ops = keras.ops
        words = ops.cast(tokens, "int64")
        ngram, floats = [], []
        for table in self.tables:
            ngram.append(words)
            floats.append(ops.take(table, self._rows(ngram)))
            words = ops.pad(words[:, 1:], [[0, 0], [0, 1]])
        there = ops.cast(ops.not_equal(tokens, 0), "float32")
        return ops.cast(ops.stack(floats, axis=-1), "float32") * there[:, :, None]

    def _flat_rows(
        self, tokens: RaggedTensor, order: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Per token, of all reviews in a row: its n-gram's row, its review."""
        words = tokens.flat_values.numpy()
        review = tokens.value_rowids().numpy()
        ngram = [words]
        for _ in range(order - 1):
            words = np.append(words[1:], 0)
            words[np.append(np.diff(review) > 0, True)] = 0  # beyond the last word
            ngram.append(words)
        return self._rows(ngram), review

    def compute_output_shape(
        self, tokens_shape: Sequence[int | None]
    ) -> tuple[int | None, ...]:
        return (*tokens_shape, len(ORDERS))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["vocab_size"] = self.vocab_size
        config["num_buckets"] = self.num_buckets
        return config


def _once_per_review(
    rows: np.ndarray, review: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """An n-gram counts once in a review: pairs (row, review) without repetitions."""
    pairs = np.unique(review * size + rows)
    return pairs % size, pairs // size


def _count(rows: np.ndarray, labels: np.ndarray, size: int) -> list[np.ndarray]:
    """How many positive, how many negative reviews have each n-gram."""
    return [np.bincount(rows[labels == y], minlength=size) for y in (1, 0)]


def _log_ratio(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    return np.log1p(positive) - np.log1p(negative)
