"""The two rows of the table that need no network."""

import time

from hw3tf import data
from hw3tf.sentiment.batches import divide, prepare
from hw3tf.sentiment.results import judge


def run_linear(reviews, settings):
    """Trains and tests logistic regression: `settings.model` says on what.

    Args:
        reviews: `hw3tf.data.Reviews`.
        settings: With `model`: `"bag"`, the words of a review, by TF-IDF, or
            `"naive_bayes"`, the sums of its `NaiveBayesFeatures`; and what `divide`
            and `prepare` want.

    Returns:
        Dict with `accuracy`, perhaps `hard_accuracy`, `seconds`, `parameters`.
    """
    start = time.perf_counter()
    (texts, labels), _ = divide(reviews, settings, 0)
    if settings.model == "bag":
        logits, size = data.tfidf_logits(texts, labels, reviews.test_texts)
    else:
        tokenizer, features, _, floats = prepare(texts, labels, settings)
        test = features.of_ragged(tokenizer.tokenize(reviews.test_texts))
        logits, size = data.summed_feature_logits(floats, labels, test)
    results = {"seconds": time.perf_counter() - start, "parameters": size}
    return results | judge(reviews, logits)
