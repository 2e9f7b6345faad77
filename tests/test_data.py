"""Reviews, sample and batches. IMDB itself is read only where it is prepared."""

import time

import keras
import numpy as np
import pytest

from hw3tf import data

FIRST_REVIEW = (
    "there is a train , a dog and a letter . the score is by somebody new . "
    "the plot is not superb , it is tedious . we talked about the acting afterwards ."
)


def test_sample_is_the_same_every_time():
    one, other = data.sample_reviews(50, seed=3), data.sample_reviews(50, seed=3)
    assert one[0] == other[0]
    np.testing.assert_array_equal(one[1], other[1])
    assert data.sample_reviews(50, seed=4)[0] != one[0]
    # The text itself: a change of the generator changes what people measured.
    assert data.sample_reviews(1, seed=0)[0][0] == FIRST_REVIEW


def test_sample_is_balanced():
    texts, labels, hard = data.sample_reviews(1000, seed=0, hard_share=0.6)
    assert len(texts) == 1000
    assert hard.sum() == 600
    assert labels[hard].mean() == labels[~hard].mean() == 0.5


def test_counting_words_fails_on_the_hard_part_only():
    """Measured: 0.51 and 1.00. 0.55 is 3.7 standard errors above chance."""
    sample = data.load_reviews("sample")
    right = data.bag_of_words_predictions(sample) == sample.test_labels
    assert right[sample.test_hard].mean() < 0.55
    assert right[~sample.test_hard].mean() > 0.95


@pytest.mark.parametrize(
    ("arguments", "message"), [((-1,), "num_reviews"), ((5, 0, 1.5), "hard_share")]
)
def test_sample_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.sample_reviews(*arguments)


@pytest.mark.filterwarnings("default")
def test_without_network_auto_takes_the_sample_and_says_so(no_network):
    start = time.monotonic()
    found = data.load_reviews("auto", timeout=1)
    assert time.monotonic() - start < 10
    assert found.name == "sample"
    assert "IMDB cannot be loaded: TimeoutError: no answer from" in found.origin
    assert "\n" not in found.origin


@pytest.mark.filterwarnings("default")
def test_without_network_imdb_is_an_error_with_the_remedy(no_network):
    with pytest.raises(RuntimeError, match="TFDS_DATA_DIR"):
        data.load_reviews("imdb", timeout=1)


def test_unknown_source_is_refused():
    with pytest.raises(ValueError, match="'auto', 'imdb' or 'sample'"):
        data.load_reviews("mnist")


@pytest.mark.filterwarnings("default")
def test_imdb_is_read_through_tfds(monkeypatch, tmp_path):
    """A small data set of the same name and form stands for the 84 MB."""
    import tensorflow_datasets as tfds

    with tfds.testing.mock_data(num_examples=7):
        builder = tfds.builder("imdb_reviews")
        monkeypatch.setattr(type(builder), "is_prepared", lambda self: True)
        found = data.load_reviews("imdb")
    assert found.name == "imdb"
    assert len(found.train_texts) == len(found.train_labels) == 7
    assert isinstance(found.test_texts[0], str)
    assert set(found.test_labels) <= {0, 1}


@pytest.fixture
def tokenizer():
    tokenizer = data.ReviewTokenizer(vocab_size=50, sequence_length=6)
    tokenizer.adapt(["a b c d e f g h i j"] * 2 + ["it's 10, Really!<br />"])
    return tokenizer


def words(tokenizer, ids):
    vocabulary = tokenizer.get_vocabulary()
    return [str(vocabulary[i]) for i in ids]


def test_tokenizer_keeps_words_and_marks(tokenizer):
    ids = tokenizer(["It's 10,<br /><br />REALLY! ~"])[0]
    assert words(tokenizer, ids) == ["it's", "10", ",", "really", "!"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a b c d e f g h i j", "a b g h i j"),  # a third of 6, and two thirds
        ("a b c d e f g", "a b d e f g"),
        ("a b c d e f", "a b c d e f"),
        ("a b c", "a b c"),
        ("a", "a"),
    ],
)
def test_long_reviews_keep_head_and_tail(text, kept, tokenizer):
    assert words(tokenizer, tokenizer([text])[0]) == kept.split()


def test_unknown_words_and_empty_reviews_are_tokens(tokenizer):
    ids = tokenizer(["zebra a", ""])
    assert ids.shape == (2, 2)
    assert ids[0, 0] == 1
    assert not ids[1].numpy().any()


@pytest.mark.parametrize("sizes", [(2, 5), (5, 0)])
def test_tokenizer_refuses_sizes_that_hold_nothing(sizes):
    with pytest.raises(ValueError, match="must be >="):
        data.ReviewTokenizer(*sizes)


def test_tokenizer_is_saved_with_its_vocabulary(tokenizer, tmp_path):
    texts = keras.Input((), dtype="string")
    model = keras.Model(texts, tokenizer(texts))
    model.save(tmp_path / "tokenizer.keras")
    loaded = keras.models.load_model(tmp_path / "tokenizer.keras")
    import tensorflow as tf

    batch = tf.constant(["a b zebra", "j"])
    np.testing.assert_array_equal(loaded(batch), model(batch))


def test_batches_hold_every_review_once(tokenizer):
    texts = ["a", "a b", "a b c d e", "j i h", "b b"]
    batches = data.review_batches(
        tokenizer, texts, [0, 1, 0, 1, 1], batch_size=2, shuffle_seed=0, bucket=2
    )
    for _ in range(2):
        seen = []
        for tokens, labels in batches.as_numpy_iterator():
            assert len(tokens) <= 2
            lengths = (tokens != 0).sum(axis=1)
            assert tokens.shape[1] == lengths.max()
            assert lengths.max() - lengths.min() < 2
            seen += [
                (" ".join(words(tokenizer, row[row != 0])), int(label))
                for row, label in zip(tokens, labels, strict=True)
            ]
        assert sorted(seen) == sorted(zip(texts, [0, 1, 0, 1, 1], strict=True))


def test_batches_without_shuffling_keep_the_order(tokenizer):
    batches = data.review_batches(tokenizer, ["a b", "c", "d e f"], batch_size=2)
    rows = [words(tokenizer, r[r != 0]) for b in batches.as_numpy_iterator() for r in b]
    assert rows == [["a", "b"], ["c"], ["d", "e", "f"]]


def test_batches_shuffle_anew_in_every_epoch_the_same_in_every_run(tokenizer):
    def epochs():
        batches = data.review_batches(
            tokenizer, list("abcdefghij"), range(10), batch_size=10, shuffle_seed=1
        )
        return [next(batches.as_numpy_iterator())[1].tolist() for _ in range(2)]

    assert epochs() == epochs()


@pytest.mark.parametrize(
    ("texts", "labels", "message"), [([], None, "texts"), (["a"], [1, 0], "labels")]
)
def test_batches_refuse_what_does_not_fit(texts, labels, message, tokenizer):
    with pytest.raises(ValueError, match=f"`{message}` must"):
        data.review_batches(tokenizer, texts, labels)
