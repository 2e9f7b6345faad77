"""Linear models of words and short phrases: the bars that a network has to clear.
They need scikit-learn (the extra `tutorials`)."""

from typing import TYPE_CHECKING, Any

import numpy as np

from hw3tf._types import RaggedTensor
from hw3tf.course.data.naive_bayes import ORDERS, NaiveBayesFeatures

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


def phrase_logits(
    features: NaiveBayesFeatures,
    train_tokens: RaggedTensor,
    train_labels: np.ndarray,
    test_tokens: RaggedTensor,
    strength: float = 1.0,
) -> np.ndarray:
    """Logits of a log-linear model of words, pairs and triples (NB-SVM).

    A logistic regression with one weight for every n-gram, whose inputs are 0 or the
    n-gram's naive-Bayes log ratio: where the data do not say otherwise, it is naive
    Bayes.

    Args:
        features: `NaiveBayesFeatures`, adapted to the training reviews.
        train_tokens, test_tokens: `tf.RaggedTensor` of ids, `(reviews, None)`.
        train_labels: Integer array, 0 or 1 for every training review.
        strength: Inverse of the regularization. Defaults to 1.

    Returns:
        Float array, one logit per test review.

    Reference:
        - [Wang and Manning, 2012](https://aclanthology.org/P12-2018/)
    """
    from scipy.sparse import csr_matrix, hstack

    def matrix(tokens: RaggedTensor) -> csr_matrix:
        """A row per review, a column per n-gram; each row has length 1."""
        parts = []
        for order in ORDERS:
            column, review, ratio = features.present(tokens, order)
            shape = int(tokens.nrows()), features.table_size(order)
            parts.append(csr_matrix((ratio, (review, column)), shape))
        return _of_length_one(hstack(parts, "csr"))

    classifier = _regression(C=strength, solver="liblinear", dual=True)
    classifier.fit(matrix(train_tokens), train_labels)
    return classifier.decision_function(matrix(test_tokens))


def _of_length_one(matrix: "csr_matrix") -> "csr_matrix":
    from sklearn.preprocessing import normalize

    return normalize(matrix, copy=False)


def _regression(**options: Any) -> "LogisticRegression":
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(**{"max_iter": 500, "random_state": 0, **options})
