"""Batches of token ids from review texts."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from hw3tf._types import Dataset, RaggedTensor, Tensor

_TOKEN = r"\d+/\d+|[a-z0-9]+(?:'[a-z]+)?|[!?.]"


@keras.saving.register_keras_serializable(package="hw3tf")
def standardize_review(texts: Tensor) -> Tensor:
    """Lowercases, drops HTML line breaks, and keeps words, marks out of ten such as
    `8/10`, and `! ? .`, a space before each. Everything else goes."""
    import tensorflow as tf

    texts = tf.strings.lower(texts)
    texts = tf.strings.regex_replace(texts, r"<br\s*/?>", " ")
    # Each token with all that stands before it; what follows the last has none.
    texts = tf.strings.regex_replace(texts, rf"(?s).*?({_TOKEN})", r" \1")
    return tf.strings.regex_replace(texts, r"[^a-z0-9!?.]+$", "")


@keras.saving.register_keras_serializable(package="hw3tf")
class ReviewTokenizer(keras.layers.Layer):
    """Turns review texts into token ids of a fixed vocabulary.

    Long reviews keep their first third and their last two thirds of
    `sequence_length`: reviewers conclude at the end.

    Args:
        vocab_size: Largest number of ids, with 0 = padding and 1 = unknown.
        sequence_length: Largest number of tokens of a review.
        **kwargs: Passed to `keras.layers.Layer`.

    Call arguments:
        texts: String tensor of shape `(batch,)` or `(batch, 1)`, or a list of
            strings.

    Returns:
        Integer tensor of shape `(batch, length)`, padded with 0, where `length`
        is that of the longest review of the batch, at least 1 and at most
        `sequence_length`.

    Raises:
        ValueError: If `vocab_size` or `sequence_length` is too small to hold
            anything.

    Example:

    >>> tokenizer = ReviewTokenizer(vocab_size=100, sequence_length=8)
    >>> tokenizer.adapt(["A fine film!", "A dull film."])
    >>> tokenizer(["a dull film"]).shape
    TensorShape([1, 3])
    """

    def __init__(self, vocab_size: int, sequence_length: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if vocab_size < 3:
            raise ValueError(f"`vocab_size` must be >= 3. Received: {vocab_size}")
        if sequence_length < 1:
            raise ValueError(
                f"`sequence_length` must be >= 1. Received: {sequence_length}"
            )
        self.vocab_size = vocab_size
        self.sequence_length = sequence_length
        self.vectorization = keras.layers.TextVectorization(
            max_tokens=vocab_size, standardize=standardize_review, ragged=True
        )

    def adapt(self, texts: Sequence[str]) -> None:
        """Fits the vocabulary: the most frequent words of `texts`, which are to
        be the training set and nothing else."""
        import tensorflow as tf

        self.vectorization.adapt(tf.data.Dataset.from_tensor_slices(texts).batch(1024))

    def __call__(self, texts: Tensor | Sequence[str]) -> Tensor:
        """Takes a list of strings too, where other layers want tensors."""
        if isinstance(texts, (list, tuple)):
            texts = keras.ops.convert_to_tensor(texts, dtype="string")
        return super().__call__(texts)

    def build(self, texts_shape: Sequence[int | None] | None = None) -> None:
        self.built = True  # the vocabulary comes from `adapt` or from a file

    def get_vocabulary(self) -> list[str]:
        """List of tokens; the index is the id."""
        return [str(token) for token in self.vectorization.get_vocabulary()]

    def call(self, texts: Tensor) -> Tensor:
        import tensorflow as tf

        ids = self.tokenize(texts).to_tensor()
        # A review without a word is padding, but it is there.
        return tf.pad(ids, [[0, 0], [0, tf.maximum(0, 1 - tf.shape(ids)[1])]])

    def tokenize(
        self, texts: Tensor | Sequence[str], at_once: int = 1024
    ) -> RaggedTensor:
        """As `call`, but gives a `tf.RaggedTensor`, without padding.

        A list is worked off in parts of `at_once` texts.
        """
        import tensorflow as tf

        if isinstance(texts, (list, tuple)):
            starts = range(0, max(len(texts), 1), at_once)
            parts = [
                self.tokenize(tf.constant(texts[i : i + at_once], "string"))
                for i in starts
            ]
            return tf.concat(parts, axis=0)
        ids = self.vectorization(tf.reshape(texts, [-1]))
        head = self.sequence_length // 3
        tail = self.sequence_length - head
        lengths = tf.cast(ids.row_lengths(), "int32")
        # A short review has no middle to leave out: its tail begins at its head.
        skip = tf.maximum(lengths - tail, tf.minimum(lengths, head))
        positions = tf.ragged.range(lengths)
        keep = tf.logical_or(positions < head, positions >= tf.expand_dims(skip, 1))
        return tf.ragged.boolean_mask(ids, keep)

    def knows(self, texts: Sequence[str]) -> np.ndarray:
        """Whether each text has a word of the vocabulary: a boolean array."""
        return np.any(self(texts).numpy() > 1, axis=1)

    def compute_output_spec(self, texts: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor((texts.shape[0], None), "int64")

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["vocab_size"] = self.vocab_size
        config["sequence_length"] = self.sequence_length
        return config


def review_batches(
    tokens: RaggedTensor,
    labels: Sequence[int] | np.ndarray | None = None,
    features: RaggedTensor | None = None,
    batch_size: int = 32,
    shuffle_seed: int | None = None,
) -> Dataset:
    """Batches of reviews of similar length, as a `tf.data.Dataset`.

    Within a batch, reviews are padded with 0 to the longest.

    Args:
        tokens: `tf.RaggedTensor` of shape `(reviews, None)`, from
            `ReviewTokenizer.tokenize`.
        labels: Integer array, one per review, or None.
        features: `tf.RaggedTensor` of shape `(reviews, None, size)`, `size` floats
            for every token, or None.
        batch_size: Reviews per batch.
        shuffle_seed: Integer: a new order in every epoch, the same in every run;
            the reviews of 40 batches are sorted by length before they are cut into
            batches, and the batches shuffled. None keeps the order of the reviews.

    Returns:
        Dataset of `(tokens, labels)`, or of `tokens` without labels: int64
        tensors of shape `(batch, length)` and float32 of shape `(batch,)`. With
        features, `(tokens, features)` takes the place of `tokens`.

    Raises:
        ValueError: If there are no reviews, or another number of labels.

    Example:

    >>> tokenizer = ReviewTokenizer(vocab_size=100, sequence_length=8)
    >>> tokenizer.adapt(["A fine film!", "A dull film."])
    >>> tokens = tokenizer.tokenize(["a dull film", "fine"])
    >>> [x.shape for x, y in review_batches(tokens, [0, 1])]
    [TensorShape([2, 3])]
    """
    import tensorflow as tf

    count = int(tokens.nrows())
    if not count:
        raise ValueError("`tokens` must hold at least one review. Received: none")
    if labels is not None and len(labels) != count:
        raise ValueError(
            f"`labels` must have one entry per review, {count}. Received: {len(labels)}"
        )
    starts = tokens.row_splits.numpy()
    lengths = np.diff(starts)
    values = tokens.flat_values.numpy()
    floats = None if features is None else features.flat_values.numpy()
    targets = (
        np.zeros(count, "float32") if labels is None else np.asarray(labels, "float32")
    )
    seeds = itertools.count(0 if shuffle_seed is None else shuffle_seed * 1000)

    def batches() -> Iterator[Any]:
        seed = None if shuffle_seed is None else next(seeds)
        for rows in _batch_rows(lengths, batch_size, seed):
            there = np.arange(max(lengths[rows].max(), 1)) < lengths[rows, None]
            source = np.concatenate([np.arange(starts[r], starts[r + 1]) for r in rows])
            x = np.zeros(there.shape, "int64")
            x[there] = values[source]
            if floats is not None:
                padded = np.zeros((*there.shape, floats.shape[1]), "float32")
                padded[there] = floats[source]
            inputs = x if floats is None else (x, padded)
            yield inputs if labels is None else (inputs, targets[rows])

    spec = tf.TensorSpec((None, None), "int64")
    if floats is not None:
        spec = (spec, tf.TensorSpec((None, None, floats.shape[1]), "float32"))
    if labels is not None:
        spec = (spec, tf.TensorSpec((None,), "float32"))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=spec)
    known = tf.data.experimental.assert_cardinality(-(-count // batch_size))
    return dataset.apply(known).prefetch(4)


def _batch_rows(
    lengths: np.ndarray, batch_size: int, seed: int | None
) -> list[np.ndarray]:
    """Arrays of row numbers, one per batch."""
    if seed is None:
        order = np.arange(len(lengths))
        return np.split(order, range(batch_size, len(lengths), batch_size))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(lengths))
    chunk = 40 * batch_size
    for i in range(0, len(order), chunk):
        part = order[i : i + chunk]
        order[i : i + chunk] = part[np.argsort(lengths[part], kind="stable")]
    batches = np.split(order, range(batch_size, len(lengths), batch_size))
    return [batches[i] for i in rng.permutation(len(batches))]
