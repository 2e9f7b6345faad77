"""Batches of reviews: the split for training, and the vocabulary fitted to it."""

import functools
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from hw3tf._types import Dataset, RaggedTensor
from hw3tf.course import data
from hw3tf.course.sentiment.training import memory_of_a_step
from hw3tf.course.tutorial import UserError, require_memory


def divide(
    reviews: data.Reviews, settings: Any, held_out: int
) -> list[tuple[list[str], np.ndarray]]:
    """Training reviews, and `held_out` of them kept from training.

    Args:
        reviews: `hw3tf.course.data.Reviews`.
        settings: With `seed`, which decides the random division, and `max_reviews`,
            how many to use in all; None = all.
        held_out: Number of reviews.

    Returns:
        Two tuples `(texts, labels)`.

    Raises:
        UserError: If nothing would be left to train on, or only one label.
    """
    order = np.random.default_rng(settings.seed).permutation(len(reviews.train_texts))
    order = order[: settings.max_reviews]
    if len(order) <= held_out:
        raise UserError(
            f"--max-reviews {len(order)} leaves nothing to train on: {held_out} are "
            "kept for validation"
        )
    kept, used = np.split(order, [held_out])
    if len(set(reviews.train_labels[used])) < 2:
        raise UserError(
            f"--max-reviews {len(order)} leaves {len(used)} to train on, all with the "
            "same label"
        )
    return [
        ([reviews.train_texts[i] for i in rows], reviews.train_labels[rows])
        for rows in (used, kept)
    ]


def prepare(
    texts: list[str], labels: np.ndarray, settings: Any, **options: Any
) -> tuple[data.ReviewTokenizer, data.NaiveBayesFeatures, RaggedTensor, RaggedTensor]:
    """Fits the tokenizer and the word counts to training reviews.

    Args:
        texts: List of strings.
        labels: Integer array, 0 or 1 for every text.
        settings: With `vocab_size`, `sequence_length`, and `model`: for
            `"naive_bayes"`, no weights are learned.
        **options: Passed to `NaiveBayesFeatures.cross_fitted`.

    Returns:
        Tuple: the `ReviewTokenizer`, the `NaiveBayesFeatures`, and the reviews'
        tokens and cross-fitted floats, both ragged.
    """
    tokenizer = data.ReviewTokenizer(
        settings.vocab_size, settings.sequence_length, name="tokenizer"
    )
    tokenizer.adapt(texts)
    tokens = tokenizer.tokenize(texts)
    learned = settings.model != "naive_bayes"
    features = data.NaiveBayesFeatures(
        settings.vocab_size, learned=learned, name="naive_bayes"
    )
    features.adapt(tokens, labels)
    return (
        tokenizer,
        features,
        tokens,
        features.cross_fitted(tokens, labels, **options),
    )


def training_batches(
    tokens: RaggedTensor, labels: np.ndarray, floats: RaggedTensor, settings: Any
) -> Dataset:
    """Batches of reviews of similar length, in random order.

    Args:
        tokens, floats: Ragged, from `prepare`.
        labels: Integer array.
        settings: With `batch_size`, `seed`, and what `memory_of_a_step` wants.

    Returns:
        `tf.data.Dataset` of `((tokens, floats), labels)`.

    Raises:
        UserError: If a training step would not fit into memory.
    """
    longest = int(np.max(tokens.row_lengths()))
    require_memory(
        memory_of_a_step(settings, longest),
        f"--batch-size {settings.batch_size} with reviews of {longest} tokens "
        "(--sequence-length)",
    )
    return data.review_batches(
        tokens, labels, floats, settings.batch_size, shuffle_seed=settings.seed
    )


@dataclass(frozen=True)
class Corpus:
    """Reviews as models read them.

    Attributes:
        reviews: `hw3tf.course.data.Reviews`.
        texts, labels: Those of the training reviews that are used.
        tokenizer, features: The layers that were fitted to them.
        tokens, floats: What the layers make of them, both ragged; the floats are
            cross-fitted.
    """

    reviews: data.Reviews
    texts: list[str]
    labels: np.ndarray
    tokenizer: data.ReviewTokenizer
    features: data.NaiveBayesFeatures
    tokens: RaggedTensor
    floats: RaggedTensor

    def training_batches(self, settings: Any) -> Dataset:
        """Returns batches of `((tokens, floats), labels)`, as `training_batches`."""
        return training_batches(self.tokens, self.labels, self.floats, settings)

    @functools.cached_property
    def test_batches(self) -> Dataset:
        """Batches of `(tokens, floats)` of the test reviews, in their order."""
        tokens = self.tokenizer.tokenize(self.reviews.test_texts)
        floats = self.features.of_ragged(tokens)
        return data.review_batches(tokens, None, floats)


def make_corpus(reviews: data.Reviews, settings: Any, **options: Any) -> Corpus:
    """Fits tokenizer and phrases to all training reviews, none held out.

    Args:
        reviews: `hw3tf.course.data.Reviews`.
        settings: With what `divide` and `prepare` want.
        **options: Passed to `NaiveBayesFeatures.cross_fitted`.

    Returns:
        The `Corpus`.
    """
    (texts, labels), _ = divide(reviews, settings, 0)
    fitted = prepare(texts, labels, settings, **options)
    return Corpus(reviews, texts, labels, *fitted)


def load(reviews: data.Reviews, settings: Any) -> tuple[Any, ...]:
    """All that a network needs.

    Args:
        reviews: `hw3tf.course.data.Reviews`.
        settings: With `held_out`, and what `divide`, `prepare` and `training_batches`
            want.

    Returns:
        Tuple: tokenizer, features, and batches: for training, of the reviews held out
        (validation), of the test reviews in their order.
    """
    (texts, labels), validation = divide(reviews, settings, settings.held_out)
    tokenizer, features, tokens, floats = prepare(texts, labels, settings)
    batches = [training_batches(tokens, labels, floats, settings)]
    for texts, labels in (validation, (reviews.test_texts, reviews.test_labels)):
        tokens = tokenizer.tokenize(texts)
        floats = features.of_ragged(tokens)
        batches.append(data.review_batches(tokens, labels, floats))
    return tokenizer, features, *batches


def start_from_unlabelled(
    model: keras.Model,
    tokenizer: data.ReviewTokenizer,
    reviews: data.Reviews,
    settings: Any,
) -> None:
    """Lets a classifier begin with word vectors that all reviews but those of the test
    set have made, those without labels, too.

    Args:
        model: From `build_classifier`. Its word vectors are replaced.
        tokenizer: `ReviewTokenizer` that was fitted to the training reviews.
        reviews: `hw3tf.course.data.Reviews` with `unlabelled_texts`.
        settings: With `embedded_words`, `embed_dim`, `seed`.
    """
    texts = [*reviews.train_texts, *reviews.unlabelled_texts]
    print(f"Word vectors of {len(texts):,} reviews", flush=True)
    words = model.get_layer("words")
    vectors = data.word_vectors(
        tokenizer.tokenize(texts),
        settings.embedded_words,
        settings.embed_dim,
        seed=settings.seed,
    )
    # Words that were not counted keep their random vectors, of this size.
    first = keras.ops.convert_to_numpy(words.embeddings)
    scaled = vectors * first.std()
    counted = np.any(vectors != 0, axis=1, keepdims=True)
    words.embeddings.assign(np.where(counted, scaled, first))
