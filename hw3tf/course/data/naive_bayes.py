"""Numbers of words and short phrases by themselves: naive-Bayes log ratios, and the
weights of a log-linear model."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike

from hw3tf._types import RaggedTensor, Tensor
from hw3tf.course.data.baseline import log_linear_weights, presence_matrix

_PRIME, _FACTOR = 2**31 - 1, 1_000_003  # their product, and a word more, fit int64
ORDERS = (1, 2, 3)

Progress = Callable[[Sequence[Any], str], Iterable[Any]]


def _silent(items: Sequence[Any], what: str) -> Iterable[Any]:
    return items


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

    With `learned`, there are three more: the n-gram's weight in a log-linear model
    (NB-SVM), which heeds that n-grams are not independent. Each counts once in a
    review, so its further occurrences have 0.

    The review that a model learns from must not have been counted: it would find its
    own label in its rare phrases. `cross_fitted` gives every training review what the
    other folds say.

    Args:
        vocab_size: Number of token ids.
        num_buckets: Entries of the tables of pairs and triples. Defaults to `2**22`;
            the 25,000 reviews of IMDB have some millions of different triples.
        learned: Whether to add the weights of a log-linear model. `adapt` and
            `cross_fitted` need scikit-learn then (the extra `tutorials`). Defaults to
            False.
        **kwargs: Passed to `keras.layers.Layer`.

    Call arguments:
        tokens: Integer tensor of shape `(batch, length)`, 0 = padding.

    Returns:
        Float tensor of shape `(batch, length, 3)`, or `(batch, length, 6)` with
        `learned`; 0 where there is padding.

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
        self,
        vocab_size: int,
        num_buckets: int = 2**22,
        learned: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("trainable", False)
        super().__init__(**kwargs)
        for name, size in (("vocab_size", vocab_size), ("num_buckets", num_buckets)):
            if size < 1:
                raise ValueError(f"`{name}` must be >= 1. Received: {size}")
        self.vocab_size = vocab_size
        self.num_buckets = num_buckets
        self.learned = learned
        kinds = ("log_ratios", "weights") if learned else ("log_ratios",)
        self.tables = [
            # Halves: 11 bits for numbers of size 1, and a saved file half as large.
            self.add_weight(
                (self.table_size(order),),
                initializer="zeros",
                trainable=False,
                dtype="float16",
                autocast=False,
                name=f"{kind}_{order}",
            )
            for kind in kinds
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
        """Counts the n-grams of the training reviews, and learns their weights.

        Args:
            tokens: `tf.RaggedTensor` of ids, `(reviews, None)`.
            labels: Integer array, 0 or 1 for every review.
        """
        matrices = [self._matrix(tokens, order) for order in ORDERS]
        for table, values in zip(
            self.tables, self._values(matrices, np.asarray(labels)), strict=True
        ):
            table.assign(values)

    def cross_fitted(
        self,
        tokens: RaggedTensor,
        labels: ArrayLike,
        folds: int = 8,
        seed: int = 0,
        progress: Progress = _silent,
    ) -> RaggedTensor:
        """Features of training reviews, each from counts without its own fold.

        Args:
            tokens: `tf.RaggedTensor` of ids, `(reviews, None)`.
            labels: Integer array, 0 or 1 for every review.
            folds: Number of parts. Defaults to 8.
            seed: Integer, of the random division into folds.
            progress: Function of a list and of what is done with it, in words. It
                yields the list, and reports. By default, it does not report.

        Returns:
            `tf.RaggedTensor` of float32, `(reviews, None, 3)`, or `(reviews, None, 6)`
            with `learned`.

        Raises:
            ValueError: If `folds` is less than 2.
        """
        if folds < 2:
            raise ValueError(f"`folds` must be >= 2. Received: {folds}")
        labels = np.asarray(labels)
        fold = np.random.default_rng(seed).permutation(len(labels)) % folds
        matrices = [self._matrix(tokens, order) for order in ORDERS]
        found = [self._flat_rows(tokens, order) for order in ORDERS]
        review = found[0][1]
        floats = np.empty((len(review), len(self.tables)), "float32")

        def fill(k: int) -> None:
            others, asked = fold != k, fold[review] == k
            tables = self._values([m[others] for m in matrices], labels[others])
            floats[asked] = self._look_up(
                tables, [(rows[asked], of[asked]) for rows, of in found]
            )

        # scikit-learn leaves Python's lock while it fits.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            filled = [pool.submit(fill, k) for k in range(folds)]
            for fold_filled in progress(filled, "counting phrases"):
                fold_filled.result()
        return tokens.with_flat_values(floats)

    def of_ragged(self, tokens: RaggedTensor) -> RaggedTensor:
        """As a call, for a `tf.RaggedTensor` of any number of reviews.

        Returns:
            `tf.RaggedTensor` of float32, `(reviews, None, 3)`, or `(reviews, None, 6)`
            with `learned`.
        """
        tables = [np.float32(table.numpy()) for table in self.tables]
        found = [self._flat_rows(tokens, order) for order in ORDERS]
        return tokens.with_flat_values(self._look_up(tables, found))

    def _matrix(self, tokens: RaggedTensor, order: int) -> Any:
        """Which n-grams of `order` words the reviews have, as a sparse matrix."""
        rows, review = self._flat_rows(tokens, order)
        return presence_matrix(
            review, rows, (int(tokens.nrows()), self.table_size(order))
        )

    def _values(self, matrices: list[Any], labels: np.ndarray) -> list[np.ndarray]:
        """What the tables hold after the reviews that `matrices` are of."""
        ratios = [
            np.log1p(m[labels == 1].sum(axis=0).A1)
            - np.log1p(m[labels == 0].sum(axis=0).A1)
            for m in matrices
        ]
        if not self.learned:
            return ratios
        return ratios + log_linear_weights(matrices, ratios, labels)

    def _look_up(
        self, tables: list[np.ndarray], found: list[tuple[np.ndarray, np.ndarray]]
    ) -> np.ndarray:
        """Floats (tokens, tables). `found`: what `_flat_rows` says of each order."""
        columns = [table[rows] for table, (rows, _) in zip(tables, found, strict=False)]
        for table, (rows, review) in zip(tables[len(ORDERS) :], found, strict=False):
            _, first = np.unique(review * len(table) + rows, return_index=True)
            weights = np.zeros(len(rows), table.dtype)
            weights[first] = table[rows[first]]
            columns.append(weights)
        return np.stack(columns, axis=1)

    def call(self, tokens: Tensor) -> Tensor:
        ops = keras.ops
        words = ops.cast(tokens, "int64")
        ngram, rows = [], []
        for _ in ORDERS:
            ngram.append(words)
            rows.append(self._rows(ngram))
            words = ops.pad(words[:, 1:], [[0, 0], [0, 1]])
        floats = [
            ops.cast(ops.take(table, at), "float32")
            for table, at in zip(self.tables, rows, strict=False)
        ]
        for table, at in zip(self.tables[len(ORDERS) :], rows, strict=False):
            weights = ops.cast(ops.take(table, at), "float32")
            floats.append(ops.where(_is_first(at), weights, 0.0))
        there = ops.cast(ops.not_equal(tokens, 0), "float32")
        return ops.stack(floats, axis=-1) * there[:, :, None]

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
        return (*tokens_shape, len(self.tables))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["vocab_size"] = self.vocab_size
        config["num_buckets"] = self.num_buckets
        config["learned"] = self.learned
        return config


def _is_first(rows: Tensor) -> Tensor:
    """Whether no earlier position of its line has the same number: (batch, length)."""
    ops = keras.ops
    length = ops.cast(ops.shape(rows)[1], "int64")
    # Number and position in one integer: sorted, equal numbers stand together.
    both = ops.sort(rows * length + ops.arange(length, dtype="int64"), axis=1)
    number, position = both // length, both % length
    differs = ops.not_equal(number[:, 1:], number[:, :-1])
    differs = ops.pad(differs, [[0, 0], [1, 0]], constant_values=True)
    return ops.take_along_axis(differs, ops.argsort(position, axis=1), axis=1)
