"""Reviews, sample and batches. IMDB itself is read only where it is prepared."""

import collections
import re
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from hw3tf.course import data
from hw3tf.course.data import sample as sample_module
from hw3tf.course.data.text import standardize_review

FIRST_REVIEW = (
    "we talked about the acting afterwards . i saw it on a tuesday . you will have "
    "heard of the tedious acting by now . in the end acting counts more than the "
    "rest . the script is by somebody new . you will have heard of the moving plot "
    "by now ."
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
    """0.55 is 3.7 standard errors above chance."""
    sample = data.load_reviews("sample")
    texts = sample.train_texts, sample.train_labels, sample.test_texts
    logits, _ = data.tfidf_logits(*texts)
    right = (logits > 0) == sample.test_labels
    assert right[sample.test_hard].mean() < 0.55
    assert right[~sample.test_hard].mean() > 0.95


def hard_windows(size):
    """For every window of `size` words: labels of the hard reviews that have it."""
    texts, labels, _ = data.sample_reviews(4000, seed=5, hard_share=1.0)
    found = collections.defaultdict(list)
    for text, label in zip(texts, labels, strict=True):
        tokens = text.split()
        for window in {tuple(tokens[i : i + size]) for i in range(len(tokens))}:
            found[window].append(label)
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_no_window_of_a_hard_review_says_anything(size):
    """Shares of positive reviews are those of fair coins, or nearer to one half, as
    labels are balanced: their squared distances from it, in standard errors, have a
    mean of at most 1. A window that told the label would be 20 or more."""
    often = [labels for labels in hard_windows(size).values() if len(labels) >= 20]
    squares = [(np.mean(x) - 0.5) ** 2 * 4 * len(x) for x in often]
    assert len(often) > 50
    assert np.mean(squares) < 1.2


def test_what_decides_stands_beyond_the_reach_of_windows():
    texts, _, _ = data.sample_reviews(2000, seed=6, hard_share=1.0)
    telling = set(sample_module.POSITIVE) | set(sample_module.NEGATIVE)
    deciding = {"alone", "counts", "decides"}
    for text in texts:
        tokens = text.split()
        told = [i for i, word in enumerate(tokens) if word in telling]
        (decides,) = [i for i, word in enumerate(tokens) if word in deciding]
        assert len(told) == 2
        assert min(abs(decides - i) for i in told) > sample_module.REACH + 1


def test_a_hard_review_is_what_is_said_of_the_thing_that_decides():
    """Read by rule: the word beside the thing that is named as what counts."""
    texts, labels, _ = data.sample_reviews(500, seed=7, hard_share=1.0)
    for text, label in zip(texts, labels, strict=True):
        tokens = text.split()
        words = {
            tokens[i + 1]: word in sample_module.POSITIVE
            for i, word in enumerate(tokens)
            if word in sample_module.POSITIVE + sample_module.NEGATIVE
        }
        for i, word in enumerate(tokens):
            if word in ("alone", "counts", "decides"):
                assert words[tokens[i - 1]] == label


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
    assert "imdb_reviews cannot be loaded: it is not in" in found.origin
    assert "there is no answer from" in found.origin
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
    """A small data set of the same name and form replaces the 84 MB."""
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
    assert words(tokenizer, ids) == ["it's", "10", "really", "!"]


@pytest.mark.parametrize(
    "text",
    [
        "A <br /><br>masterpiece: 8/10, no 7/8/9. I'd say 10/10!!",
        "'Tis 'quoted', dogs' O'Brien's and/or 1980's ... really?",
        "line\nbreaks\tand  Ünïcödé -- *stars* _under_ (brackets) ~",
        "~ : / '",
        "",
    ],
)
def test_tokens_are_those_of_a_regular_expression(text):
    plain = re.sub(r"<br\s*/?>", " ", text.lower())
    expected = re.findall(r"\d+/\d+|[a-z0-9]+(?:'[a-z]+)?|[!?.]", plain, re.A)
    found = standardize_review(np.array([text])).numpy()[0].decode().split()
    assert found == expected


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
    assert tokenizer([""]).numpy().tolist() == [[0]]


def test_many_texts_are_tokenized_in_parts(tokenizer):
    texts = ["a b c", "", "d", "e f", "zebra"]
    whole = tokenizer.tokenize(texts)
    assert tokenizer.tokenize(texts, at_once=2).to_list() == whole.to_list()
    assert whole.to_list()[1] == []


@pytest.mark.parametrize("sizes", [(2, 5), (5, 0)])
def test_tokenizer_refuses_sizes_that_hold_nothing(sizes):
    with pytest.raises(ValueError, match="must be >="):
        data.ReviewTokenizer(*sizes)


def test_tokenizer_is_saved_with_its_vocabulary(tokenizer, tmp_path):
    texts = keras.Input((), dtype="string")
    model = keras.Model(texts, tokenizer(texts))
    model.save(tmp_path / "tokenizer.keras")
    loaded = keras.models.load_model(tmp_path / "tokenizer.keras")
    batch = tf.constant(["a b zebra", "j"])
    np.testing.assert_array_equal(loaded(batch), model(batch))


def test_batches_hold_every_review_once(tokenizer):
    texts = ["a", "a b", "a b c d e", "j i h", "b b"] * 5
    labels = np.arange(25) % 2
    tokens = tokenizer.tokenize(texts)
    floats = tf.cast(tokens, "float32")
    floats = floats.with_flat_values(tf.stack([floats.flat_values] * 3, axis=1))
    batches = data.review_batches(tokens, labels, floats, batch_size=2, shuffle_seed=0)
    assert len(batches) == 13
    for _ in range(2):
        seen = []
        for (x, f), y in batches.as_numpy_iterator():
            assert len(x) <= 2
            lengths = (x != 0).sum(axis=1)
            assert x.shape[1] == lengths.max()
            np.testing.assert_array_equal(f, np.stack([x] * 3, axis=2))
            rows = [" ".join(words(tokenizer, row[row != 0])) for row in x]
            seen += zip(rows, y.astype(int).tolist(), strict=True)
        assert sorted(seen) == sorted(zip(texts, labels.tolist(), strict=True))


def test_batches_hold_reviews_of_similar_length(rng):
    lengths = rng.integers(1, 400, 2000)
    tokens = tf.RaggedTensor.from_row_lengths(np.ones(lengths.sum(), "int64"), lengths)
    padded = 0
    firsts = []
    for x in data.review_batches(tokens, batch_size=16, shuffle_seed=0):
        padded += x.shape[0] * x.shape[1]
        firsts.append(x.shape[1])
    # In random order, the longest of 16 would make it 1.9 times as much.
    assert padded < 1.05 * lengths.sum()
    assert firsts != sorted(firsts)


def test_batches_without_shuffling_keep_the_order(tokenizer):
    tokens = tokenizer.tokenize(["a b", "c", "d e f"])
    batches = data.review_batches(tokens, batch_size=2)
    rows = [words(tokenizer, r[r != 0]) for b in batches.as_numpy_iterator() for r in b]
    assert rows == [["a", "b"], ["c"], ["d", "e", "f"]]


def test_batches_shuffle_anew_in_every_epoch_the_same_in_every_run(tokenizer):
    tokens = tokenizer.tokenize(list("abcdefghij"))

    def epochs():
        batches = data.review_batches(tokens, range(10), batch_size=10, shuffle_seed=1)
        return [next(batches.as_numpy_iterator())[1].tolist() for _ in range(2)]

    first, second = epochs()
    assert first != second
    assert epochs() == [first, second]


def test_batches_refuse_what_does_not_fit(tokenizer):
    tokens = tokenizer.tokenize(["a"])
    with pytest.raises(ValueError, match="`labels` must have one entry per review, 1"):
        data.review_batches(tokens, [1, 0])
    with pytest.raises(ValueError, match="`tokens` must hold at least one review"):
        data.review_batches(tokens[:0])
