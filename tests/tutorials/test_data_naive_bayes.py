"""Log ratios of n-grams, against counting with dictionaries."""

import collections
import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from hw3tf.course import data
from hw3tf.course.data.naive_bayes import ngram_buckets

VOCABULARY = 7
LENGTHS = (5, 0, 1, 9, 2, 5, 3, 8, 1, 4)
# So many buckets that the few n-grams here do not share any.
BUCKETS = 10_007


@pytest.fixture
def reviews(rng):
    """Tokens, one of the reviews empty, and labels."""
    tokens = [rng.integers(1, VOCABULARY, n).tolist() for n in LENGTHS]
    ragged = tf.RaggedTensor.from_row_lengths(
        np.int64(list(itertools.chain(*tokens))), np.int64(LENGTHS)
    )
    return ragged, np.arange(len(tokens)) % 2


def ngrams(tokens, order):
    """The n-gram that begins at each position; 0 beyond the end."""
    padded = [*tokens, 0, 0]
    return [tuple(padded[i : i + order]) for i in range(len(tokens))]


def expected(asked, tokens, labels):
    """Floats of the reviews `asked`, counted on the others or on all."""
    rows = []
    for order in (1, 2, 3):
        counts = collections.Counter()
        for review, label in zip(tokens, labels, strict=True):
            counts.update((gram, label) for gram in set(ngrams(review, order)))
        rows.append(
            [
                math.log(counts[gram, 1] + 1) - math.log(counts[gram, 0] + 1)
                for gram in ngrams(asked, order)
            ]
        )
    return np.array(rows, "float32").T


def adapted(reviews, buckets=BUCKETS):
    features = data.NaiveBayesFeatures(VOCABULARY, buckets)
    features.adapt(*reviews)
    return features


def test_no_ngrams_of_these_tests_share_a_bucket():
    pairs = np.array(list(itertools.product(range(VOCABULARY), repeat=2))).T
    triples = np.array(list(itertools.product(range(VOCABULARY), repeat=3))).T
    assert len(set(ngram_buckets(list(pairs), BUCKETS))) == VOCABULARY**2
    assert len(set(ngram_buckets(list(triples), BUCKETS))) == VOCABULARY**3


def test_buckets_are_used_evenly_by_the_largest_vocabulary(rng):
    """n keys thrown into n buckets leave 1/e of them empty, give or take 0.002."""
    words = rng.integers(0, 30_000, (3, 100_000))
    used = len(np.unique(ngram_buckets(list(words), 100_000)))
    assert abs(used / 100_000 - (1 - math.exp(-1))) < 0.01
    assert ngram_buckets(list(words), 100).min() >= 0


def test_floats_are_log_ratios_of_counted_reviews(reviews):
    features = adapted(reviews)
    tokens, labels = reviews
    floats = features.of_ragged(tokens)
    for asked, found in zip(tokens.to_list(), floats, strict=True):
        if asked:
            # Tables hold halves: 11 bits.
            np.testing.assert_allclose(
                found, expected(asked, tokens.to_list(), labels), rtol=2**-11
            )


@pytest.mark.parametrize("learned", [False, True])
def test_the_layer_says_the_same_in_batches_and_nothing_of_padding(reviews, learned):
    features = data.NaiveBayesFeatures(VOCABULARY, 50, learned)
    features.adapt(*reviews)
    tokens, _ = reviews
    dense = features(tokens.to_tensor())
    np.testing.assert_array_equal(dense, features.of_ragged(tokens).to_tensor())
    assert not dense[1].numpy().any()


def test_cross_fitted_floats_come_from_the_other_folds(reviews):
    tokens, labels = reviews
    features = data.NaiveBayesFeatures(VOCABULARY, BUCKETS)
    # As many folds as reviews: each is judged by all the others.
    found = features.cross_fitted(tokens, labels, folds=len(labels))
    rows = tokens.to_list()
    for i, asked in enumerate(rows):
        if asked:
            others = rows[:i] + rows[i + 1 :], np.delete(labels, i)
            np.testing.assert_allclose(
                found[i], expected(asked, *others), rtol=1e-6, atol=1e-7
            )


def test_cross_fitting_hides_the_own_label(rng):
    """A word that one review has tells its label, if that review was counted."""
    own = tf.ragged.constant([[i, 1] for i in range(2, 42)], dtype="int64")
    labels = np.arange(40) % 2
    features = data.NaiveBayesFeatures(50, 1000)
    features.adapt(own, labels)
    assert (
        np.sign(features.of_ragged(own).to_tensor()[:, 0, 0]) == 2 * labels - 1
    ).all()
    floats = features.cross_fitted(own, labels, folds=8, seed=1)
    assert not floats.to_tensor()[:, 0, 0].numpy().any()


def test_folds_depend_on_the_seed(reviews):
    features = data.NaiveBayesFeatures(VOCABULARY, BUCKETS)
    one, same, other = (
        features.cross_fitted(*reviews, folds=2, seed=s).flat_values for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.any(one.numpy() != other.numpy())


def test_learned_weights_count_once_in_a_review(rng):
    """A weight of a phrase that occurs again is 0; sums over a review are the logits of
    the log-linear model but for its scale and bias."""
    tokens, labels = of_two_kinds(rng, 60)
    features = data.NaiveBayesFeatures(VOCABULARY, BUCKETS, learned=True)
    features.adapt(tokens, labels)
    floats = features.of_ragged(tokens)
    for asked, found in zip(tokens.to_list(), floats, strict=True):
        for order in (1, 2, 3):
            seen = set()
            for gram, weight in zip(
                ngrams(asked, order), found[:, 2 + order].numpy(), strict=True
            ):
                assert weight == 0 or gram not in seen
                seen.add(gram)
    sums = np.array([np.sum(f[:, 3:]) for f in floats])
    assert np.mean((sums > np.median(sums)) == (labels == 1)) > 0.95


def of_two_kinds(rng, count):
    """Reviews in which 3 4 praises and 4 3 blames, among words that say nothing."""
    labels = np.arange(count) % 2
    rows = []
    for label in labels:
        row = rng.choice([1, 2, 5, 6], 8).tolist()
        row[3:5] = (3, 4) if label else (4, 3)
        rows.append(row)
    return tf.ragged.constant(rows, dtype="int64"), labels


def test_learned_weights_heed_that_words_come_together(rng):
    """Naive Bayes counts 3 4 as what it is, and its words for nothing; so does the
    model: the pair has by far the largest weight."""
    tokens, labels = of_two_kinds(rng, 200)
    features = data.NaiveBayesFeatures(VOCABULARY, BUCKETS, learned=True)
    features.adapt(tokens, labels)
    words = features(np.int64([[3, 4], [4, 3]])).numpy()
    assert words[0, 0, 4] > 0 > words[1, 0, 4]
    assert abs(words[0, 0, 3]) < 0.2 * words[0, 0, 4]


def test_cross_fitted_weights_come_from_the_other_folds(rng):
    """A word of one review alone, which tells its label, has no weight there."""
    tokens, labels = of_two_kinds(rng, 40)
    alone = tf.ragged.constant([[10 + i] for i in range(40)], dtype="int64")
    tokens = tf.concat([tokens, alone, alone], axis=1)
    features = data.NaiveBayesFeatures(60, BUCKETS, learned=True)
    features.adapt(tokens, labels)
    floats = features.cross_fitted(tokens, labels, folds=4).to_tensor().numpy()
    assert not floats[:, 8, 3].any()
    signs = np.sign(floats[:, 3, 4]) == 2 * labels - 1
    assert signs.all()


def test_folds_are_reported_as_they_are_filled(reviews):
    seen = []

    def progress(items, what):
        for item in items:
            yield item
            seen.append(what)

    features = data.NaiveBayesFeatures(VOCABULARY, BUCKETS)
    features.cross_fitted(*reviews, folds=3, progress=progress)
    assert seen == ["counting phrases"] * 3


@pytest.mark.parametrize("learned", [False, True])
def test_tables_are_saved_and_work_in_graphs(reviews, learned, tmp_path):
    features = data.NaiveBayesFeatures(VOCABULARY, BUCKETS, learned)
    features.adapt(*reviews)
    tokens = reviews[0].to_tensor()
    inputs = keras.Input((None,), dtype="int64")
    model = keras.Model(inputs, features(inputs))
    assert model.output_shape == (None, None, 6 if learned else 3)
    assert not model.trainable_weights
    model.save(tmp_path / "features.keras")
    model.export(tmp_path / "exported", verbose=False)
    loaded = keras.models.load_model(tmp_path / "features.keras")
    exported = tf.saved_model.load(tmp_path / "exported")
    for function in (loaded, exported.serve, tf.function(features)):
        np.testing.assert_array_equal(function(tokens), features(tokens))


@pytest.mark.parametrize("sizes", [(0, 5), (5, 0)])
def test_sizes_that_hold_nothing_are_refused(sizes):
    with pytest.raises(ValueError, match="must be >= 1"):
        data.NaiveBayesFeatures(*sizes)


def test_one_fold_is_refused(reviews):
    with pytest.raises(ValueError, match="`folds` must be >= 2"):
        data.NaiveBayesFeatures(VOCABULARY).cross_fitted(*reviews, folds=1)
