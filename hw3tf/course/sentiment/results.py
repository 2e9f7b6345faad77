"""Results of a trained classifier: its accuracy, its errors, and its attention."""

import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike

from hw3tf._types import Tensor
from hw3tf.course.data import NaiveBayesFeatures, Reviews, ReviewTokenizer
from hw3tf.course.tutorial import whole_file


def judge(reviews: Reviews, logits: ArrayLike) -> dict[str, float]:
    """Prints and returns the accuracy on the test reviews.

    Args:
        reviews: `hw3tf.course.data.Reviews`.
        logits: Float array, one per test review.

    Returns:
        Dict with `accuracy`, and `hard_accuracy` if it is known which are hard.
    """
    right = (np.asarray(logits) > 0) == (reviews.test_labels == 1)
    results = {"accuracy": float(right.mean())}
    if reviews.test_hard is not None:
        results["hard_accuracy"] = float(right[reviews.test_hard].mean())
    words = (f"{name.replace('_', ' ')} {rate:.4f}" for name, rate in results.items())
    print(f"test, {len(right)} reviews: {', '.join(words)}")
    return results


def print_judged(
    texts: Sequence[str],
    probabilities: Iterable[float],
    known: Iterable[bool] | None = None,
) -> None:
    """Prints what a model says of texts.

    Args:
        texts: The texts.
        probabilities: That each of them is positive.
        known: Whether the model knows a word of each of them. None, the default, if
            it knows all words.
    """
    known = [True] * len(texts) if known is None else known
    for text, p, knows in zip(texts, probabilities, known, strict=True):
        name = "undecided"
        if f"{p:.3f}" != "0.500":
            name = "positive" if p > 0.5 else "negative"
        if not knows:
            name = "no known word"
        print(f"{name} ({p:.3f})  {text}")


def judge_texts(
    texts: Sequence[str], logits: np.ndarray, known: Iterable[bool] | None = None
) -> dict[str, np.ndarray]:
    """Prints what a model says of texts, as `print_judged`, from their logits.

    Returns:
        Dict with `probabilities`, or without anything if there are no texts.
    """
    probabilities = 1 / (1 + np.exp(-np.asarray(logits, "float64")))
    print_judged(texts, probabilities, known)
    return {"probabilities": probabilities} if len(texts) else {}


def save_and_compare(
    sentiment: keras.Model,
    texts: list[str],
    saved: pathlib.Path,
    exported: pathlib.Path,
) -> dict[str, Any]:
    """Writes a model in both formats, and compares what comes back.

    Both are written beside their places and renamed when they are whole.

    Args:
        sentiment: `keras.Model`, strings `(batch,)` -> probabilities `(batch, 1)`.
        texts: List of strings.
        saved: The `.keras` file.
        exported: The folder for `tf.saved_model`.

    Returns:
        Dict: `probabilities`, one per text, and `saved_difference` and
        `exported_difference`, the largest that were found.
    """
    import tensorflow as tf

    with whole_file(saved) as beside:
        sentiment.save(beside)
    exported = pathlib.Path(exported)
    beside = exported.with_name(f".part.{exported.name}")
    sentiment.export(beside, verbose=False)
    shutil.rmtree(exported, ignore_errors=True)
    os.replace(beside, exported)

    def probabilities(function: Callable[[Tensor], Tensor]) -> np.ndarray:
        return np.asarray(function(tf.constant(texts)))[:, 0]

    results: dict[str, Any] = {"probabilities": probabilities(sentiment)}
    reloaded = tf.saved_model.load(exported)  # its function does not keep it alive
    loaded = keras.models.load_model(saved), reloaded.serve
    for name, function in zip(("saved", "exported"), loaded, strict=True):
        difference = np.abs(probabilities(function) - results["probabilities"])
        results[f"{name}_difference"] = float(difference.max())
    return results


def attention_weights(
    text: str,
    tokenizer: ReviewTokenizer,
    features: NaiveBayesFeatures,
    model: keras.Model,
) -> tuple[np.ndarray, list[str]]:
    """What the last attention layer of a classifier looks at.

    Args:
        text: A string.
        tokenizer, features: The layers before the classifier.
        model: The classifier; its attention layers are named `attention_layer_...`.

    Returns:
        The weights, `(num_heads, length, length)`, and the `length` words.
    """
    tokens = tokenizer([text])
    attention = [x for x in model.layers if x.name.startswith("attention_layer")][-1]
    x = keras.Model(model.inputs, attention.input[0])([tokens, features(tokens)])
    _, weights = attention(x, x, return_attention_scores=True)
    vocabulary = tokenizer.get_vocabulary()
    return np.asarray(weights[0]), [vocabulary[i] for i in tokens[0]]


def print_mistakes(reviews: Reviews, logits: ArrayLike, shown: int = 2) -> None:
    """Prints the mistakes that a model is surest of.

    Args:
        reviews: `hw3tf.course.data.Reviews`.
        logits: Float array, one per test review.
        shown: Mistakes of either kind to print. Defaults to 2.
    """
    logits, positive = np.asarray(logits), reviews.test_labels == 1
    right = (logits > 0) == positive
    for kind, sign in ((False, 1), (True, -1)):
        rows = np.flatnonzero(~right & (positive == kind))
        for row in rows[np.argsort(-sign * logits[rows])][:shown]:
            truth = "positive" if positive[row] else "negative"
            text = " ".join(reviews.test_texts[row].split())
            shortened = text if len(text) < 300 else f"{text[:140]} ... {text[-140:]}"
            print(f"{truth}, but logit {logits[row]:+.1f}: {shortened}")


def num_words(reviews: Reviews) -> np.ndarray:
    """Returns an integer array: how many words each test review has."""
    return np.array([len(text.split()) for text in reviews.test_texts])
