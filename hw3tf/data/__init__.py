"""The data sets of the tutorials, and the way from text to batches."""

from hw3tf.data.baseline import bag_of_words_predictions
from hw3tf.data.reviews import Reviews, load_reviews
from hw3tf.data.sample import sample_reviews
from hw3tf.data.text import ReviewTokenizer, review_batches

__all__ = [
    "ReviewTokenizer",
    "Reviews",
    "bag_of_words_predictions",
    "load_reviews",
    "review_batches",
    "sample_reviews",
]
