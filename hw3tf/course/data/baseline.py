"""Linear models of words and short phrases: the bars that a network has to clear.
They need scikit-learn (the extra `tutorials`)."""

from typing import TYPE_CHECKING, Any

import numpy as np

from hw3tf._types import RaggedTensor

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression


def tfidf_logits(
    train_texts: list[str], train_labels: np.ndarray, test_texts: list[str]
) -> tuple[np.ndarray, int]:
    """Logits of a logistic regression on the words of a text, weighted by TF-IDF.

    Args:
        train_texts, test_texts: Lists of strings.
        train_labels: Integer array, 0 or 1 for every training text.

    Returns:
        Tuple of a float array, one logit per test text, and the number of parameters.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    counter = TfidfVectorizer(sublinear_tf=True)
    counts = counter.fit_transform(train_texts)
    classifier = _regression(C=4.0).fit(counts, train_labels)
    logits = classifier.decision_function(counter.transform(test_texts))
    return logits, counts.shape[1] + 1


def summed_feature_logits(
    train_floats: RaggedTensor, train_labels: np.ndarray, test_floats: RaggedTensor
) -> tuple[np.ndarray, int]:
    """Logits of a logistic regression on sums of `NaiveBayesFeatures`.

    Args:
        train_floats, test_floats: `tf.RaggedTensor`, `(reviews, None, 3)`; those of
            training reviews are to be cross-fitted.
        train_labels: Integer array, 0 or 1 for every training review.

    Returns:
        Tuple of a float array, one logit per test review, and the number of
        parameters.
    """

    def sums(floats: RaggedTensor) -> np.ndarray:
        starts = floats.row_splits.numpy()
        total = np.cumsum(floats.flat_values.numpy(), axis=0, dtype="float64")
        total = np.concatenate([np.zeros((1, total.shape[1])), total])
        lengths = np.maximum(np.diff(starts), 1)[:, None]
        return (total[starts[1:]] - total[starts[:-1]]) / np.sqrt(lengths)

    classifier = _regression().fit(sums(train_floats), train_labels)
    logits = classifier.decision_function(sums(test_floats))
    return logits, train_floats.shape[-1] + 1


# Where the words of an n-gram stand, from its first one; whether it counts anywhere, or
# only near the end, where reviewers conclude. On 5,000 reviews held out, the words,
# pairs and triples that are anywhere get 0.9222, with all of these 0.9267.
_PHRASES = (
    ((0,), None),
    ((0, 1), None),
    ((0, 1, 2), None),
    ((0, 2), None),
    ((0,), 40),
    ((0, 1), 40),
    ((0, 1, 2), 40),
)
# Inverse of the regularization, likewise: 0.9018 with 1, 0.9211 with 16, 0.9222 with
# 64, 0.9234 with 256, which takes three times as long.
_STRENGTH = 64.0


def phrase_logits(
    train_tokens: RaggedTensor,
    train_labels: np.ndarray,
    test_tokens: RaggedTensor,
    strength: float = _STRENGTH,
) -> np.ndarray:
    """Logits of a log-linear model of words and phrases (NB-SVM).

    A logistic regression with one weight for every word, pair, triple, and pair with a
    gap of one word, and one more where a word, pair or triple is among the last 40
    tokens. Its inputs are 0 or the phrase's naive-Bayes log ratio: where the data do
    not say otherwise, it is naive Bayes.

    Args:
        train_tokens, test_tokens: `tf.RaggedTensor` of ids, `(reviews, None)`.
        train_labels: Integer array, 0 or 1 for every training review.
        strength: Inverse of the regularization. Defaults to 64.

    Returns:
        Float array, one logit per test review.

    Reference:
        - [Wang and Manning, 2012](https://aclanthology.org/P12-2018/)
    """
    from scipy.sparse import hstack

    labels = np.asarray(train_labels)
    parts = [_phrases_in_both(train_tokens, test_tokens, *kind) for kind in _PHRASES]
    train, test = (hstack(part, "csr") for part in zip(*parts, strict=True))
    ratios = np.log1p(train[labels == 1].sum(axis=0).A1)
    ratios -= np.log1p(train[labels == 0].sum(axis=0).A1)
    classifier = _regression(C=strength, solver="liblinear", dual=True)
    classifier.fit(_scaled(train, ratios), labels)
    return classifier.decision_function(_scaled(test, ratios))


def log_linear_weights(
    matrices: "list[csr_matrix]",
    ratios: list[np.ndarray],
    labels: np.ndarray,
    strength: float = _STRENGTH,
) -> list[np.ndarray]:
    """What every n-gram adds to the logit of a log-linear model (NB-SVM).

    Args:
        matrices: Per order, 1 where a review has an n-gram: `(reviews, n-grams)`.
        ratios: Per order, the n-grams' naive-Bayes log ratios.
        labels: Integer array, 0 or 1 for every review.
        strength: Inverse of the regularization. Defaults to 64.

    Returns:
        Per order, a float32 array: weight times log ratio, and 0 for n-grams that
        only one review has.
    """
    from scipy.sparse import hstack

    kept = [np.flatnonzero(m.sum(axis=0).A1 >= 2) for m in matrices]
    found = hstack([m[:, k] for m, k in zip(matrices, kept, strict=True)], "csr")
    scale = np.concatenate([r[k] for r, k in zip(ratios, kept, strict=True)])
    classifier = _regression(C=strength, solver="liblinear", dual=True)
    classifier.fit(_scaled(found, scale), labels)
    products = np.split(
        classifier.coef_[0] * scale, np.cumsum([len(k) for k in kept])[:-1]
    )
    weights = [np.zeros(len(r), "float32") for r in ratios]
    for table, k, values in zip(weights, kept, products, strict=True):
        table[k] = values
    return weights


def stacking_weight(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> float:
    """How much the second of two models counts beside the first.

    A logistic regression of the labels on both logits: the ratio of its two weights.

    Args:
        first, second: Float arrays, the models' logits for reviews that neither has
            learned from.
        labels: Integer array, 0 or 1 for every review.

    Returns:
        The weight `w` of `first + w * second`, at least 0.
    """
    fitted = _regression(C=1e3).fit(np.stack([first, second], axis=1), labels)
    one, other = fitted.coef_[0]
    return max(0.0, float(other / one)) if one > 0 else 1.0


def presence_matrix(
    review: np.ndarray, column: np.ndarray, shape: tuple[int, int]
) -> "csr_matrix":
    """Returns a float32 matrix of `shape`, 1 where a review has a column, however
    often."""
    from scipy.sparse import csr_matrix

    pairs = np.unique(review * shape[1] + column)
    ones = np.ones(len(pairs), "float32")
    return csr_matrix((ones, (pairs // shape[1], pairs % shape[1])), shape)


def _phrases_in_both(
    train_tokens: RaggedTensor,
    test_tokens: RaggedTensor,
    offsets: tuple[int, ...],
    last: int | None,
) -> "list[csr_matrix]":
    """Which phrases of one kind the training and the test reviews have; a column for
    each that two training reviews have."""
    found = [_phrases(tokens, offsets, last) for tokens in (train_tokens, test_tokens)]
    pairs = np.unique(np.stack(found[0]), axis=1)
    codes, counts = np.unique(pairs[1], return_counts=True)
    codes = codes[counts >= 2]
    matrices = []
    for tokens, (review, code) in zip((train_tokens, test_tokens), found, strict=True):
        column = np.searchsorted(codes, code)
        known = np.append(codes, -1)[column] == code
        shape = (int(tokens.nrows()), len(codes))
        matrices.append(presence_matrix(review[known], column[known], shape))
    return matrices


def _phrases(
    tokens: RaggedTensor, offsets: tuple[int, ...], last: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Per phrase: the number of its review, and a number for its words."""
    words, review = tokens.flat_values.numpy(), tokens.value_rowids().numpy()
    ends = tokens.row_splits.numpy()[1:][review]
    first = np.arange(len(words))
    there = first + offsets[-1] < ends
    if last is not None:
        there &= first >= ends - last
    first = first[there]
    code = np.zeros(len(first), "int64")
    for offset in offsets:
        # Vocabularies have fewer than 2**20 words, so that no two phrases share one.
        code = (code << 20) + words[first + offset]
    return review[there], code


def _scaled(matrix: "csr_matrix", ratios: np.ndarray) -> "csr_matrix":
    """Log ratios in the place of ones; each row has length 1."""
    from sklearn.preprocessing import normalize

    return normalize(matrix.multiply(ratios.astype("float32")).tocsr(), copy=False)


def _regression(**options: Any) -> "LogisticRegression":
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(**{"max_iter": 500, "random_state": 0, **options})
