"""The data sets of the tutorials, and the way from text to batches."""

from hw3tf.course.data.baseline import (
    phrase_logits,
    stacking_weight,
    summed_feature_logits,
    tfidf_logits,
)
from hw3tf.course.data.images import Images, load_images, shift_images
from hw3tf.course.data.naive_bayes import NaiveBayesFeatures
from hw3tf.course.data.reviews import Reviews, load_reviews
from hw3tf.course.data.sample import DECISIVE_WORDS, sample_reviews
from hw3tf.course.data.text import ReviewTokenizer, review_batches
from hw3tf.course.data.vectors import word_vectors
from hw3tf.course.data.workers import (
    WorkerError,
    fit_worker,
    run_workers,
    this_worker,
    worker_strategy,
)

__all__ = [
    "DECISIVE_WORDS",
    "Images",
    "NaiveBayesFeatures",
    "ReviewTokenizer",
    "Reviews",
    "WorkerError",
    "fit_worker",
    "load_images",
    "load_reviews",
    "phrase_logits",
    "review_batches",
    "run_workers",
    "sample_reviews",
    "shift_images",
    "stacking_weight",
    "summed_feature_logits",
    "tfidf_logits",
    "this_worker",
    "word_vectors",
    "worker_strategy",
]
