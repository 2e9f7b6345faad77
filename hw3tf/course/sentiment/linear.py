"""The two models of the table without a neural network."""

import re
import time
from collections.abc import Iterable, Sequence
from typing import Any

from hw3tf.course import data
from hw3tf.course.sentiment.batches import divide, prepare
from hw3tf.course.sentiment.results import judge, judge_texts


def run_linear(
    reviews: data.Reviews, settings: Any, asked: Sequence[str] = ()
) -> dict[str, Any]:
    """Trains and tests logistic regression: `settings.model` says on what.

    Args:
        reviews: `hw3tf.course.data.Reviews`.
        settings: With `model`: `"bag"`, the words of a review, by TF-IDF, or
            `"naive_bayes"`, the sums of its `NaiveBayesFeatures`; and what `divide`
            and `prepare` want.
        asked: Texts to judge as well. Defaults to none.

    Returns:
        Dict with `accuracy`, perhaps `hard_accuracy`, `seconds`, `parameters`, and
        `probabilities` of the texts that were asked, if there are some.
    """
    start = time.perf_counter()
    (texts, labels), _ = divide(reviews, settings, 0)
    number = len(reviews.test_texts)
    test = [*reviews.test_texts, *asked]
    if settings.model == "bag":
        logits, size = data.tfidf_logits(texts, labels, test)
        seen = {word for text in texts for word in _words(text)} if asked else set()
        known: Iterable[bool] = [not seen.isdisjoint(_words(text)) for text in asked]
    else:
        tokenizer, features, _, floats = prepare(texts, labels, settings)
        found = features.of_ragged(tokenizer.tokenize(test))
        logits, size = data.summed_feature_logits(floats, labels, found)
        known = tokenizer.knows(asked) if asked else []
    results = {"seconds": time.perf_counter() - start, "parameters": size}
    results |= judge(reviews, logits[:number])
    return results | judge_texts(asked, logits[number:], known)


def _words(text: str) -> list[str]:
    """As scikit-learn finds them."""
    return re.findall(r"\b\w\w+\b", text.lower())
