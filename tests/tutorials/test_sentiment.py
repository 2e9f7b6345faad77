"""Parts of tutorial 4: training that can be interrupted, results, options."""

import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from hw3tf.course import data, sentiment, tutorial


@dataclass(frozen=True)
class Settings:
    epochs: int = 3
    embed_dim: int = 3
    sizes: tuple = (1, 2)


SETTINGS = Settings()


def compiled_model(units=3):
    keras.utils.set_random_seed(3)
    layers = [keras.Input((4,)), keras.layers.Dense(units), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 30)),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")],
    )
    return model


@pytest.fixture
def batches(rng):
    x = rng.normal(size=(40, 4)).astype("float32")
    y = (x[:, :1] > 0).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(8)


def fit(model, batches, path, epochs=3, resume=False, settings=SETTINGS):
    settings = replace(settings, epochs=epochs)
    return sentiment.fit(model, batches, settings, batches, path, resume)


class _InterruptedAfter(keras.callbacks.Callback):
    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epochs:
            raise KeyboardInterrupt


def interrupted(model, batches, path, epochs, monkeypatch):
    plain = model.fit

    def fit_and_stop(*args, callbacks, **kwargs):
        stop = _InterruptedAfter(epochs)
        return plain(*args, callbacks=[*callbacks, stop], **kwargs)

    monkeypatch.setattr(model, "fit", fit_and_stop)
    with pytest.raises(KeyboardInterrupt):
        fit(model, batches, path)


def test_an_interrupted_training_goes_on_as_if_nothing_had_been(
    batches, tmp_path, monkeypatch, capsys
):
    whole = compiled_model()
    history, seconds = fit(whole, batches, tmp_path / "whole.weights.h5")
    assert len(seconds) == 3

    path = tmp_path / "best.weights.h5"
    interrupted(compiled_model(), batches, path, 2, monkeypatch)
    assert f"The best epoch is kept in {path}; --resume" in capsys.readouterr().out

    resumed = compiled_model()
    again, seconds = fit(resumed, batches, path, resume=True)
    assert len(seconds) == 1
    assert again == history
    assert len(history["val_loss"]) == 3
    for one, other in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best.weights.h5",
        "whole.weights.h5",
    ]


def test_interrupted_in_the_first_epoch_nothing_is_kept(
    batches, tmp_path, monkeypatch, capsys
):
    interrupted(compiled_model(), batches, tmp_path / "a.weights.h5", 0, monkeypatch)
    assert "nothing is kept" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_model_has_the_weights_of_its_best_epoch(batches, tmp_path):
    model, path = compiled_model(), tmp_path / "a.weights.h5"
    model.optimizer.build(model.trainable_variables)
    keeper = sentiment.BestCheckpoint(path, {"seed": 1})
    keeper.set_model(model)
    best = model.get_weights()
    for loss in (0.5, 0.3, 0.4):
        model.set_weights([w + loss for w in best])
        keeper.on_epoch_end(0, {"val_loss": loss, "loss": 1.0})
    again = compiled_model()
    history = sentiment.load_checkpoint(again, path, {"seed": 1})
    assert history == {"val_loss": [0.5, 0.3], "loss": [1.0, 1.0]}
    for one, other in zip(again.get_weights(), best, strict=True):
        np.testing.assert_array_equal(one, other + np.float32(0.3))


def test_checkpoints_that_do_not_fit_are_refused(batches, tmp_path):
    path = tmp_path / "a.weights.h5"
    fit(compiled_model(), batches, path)
    none, other = tmp_path / "none.weights.h5", tmp_path / "other.weights.h5"
    other.write_text("not a checkpoint")
    plain = tmp_path / "plain.weights.h5"
    compiled_model().save_weights(plain)
    cases = [
        (none, SETTINGS, 3, "there is no checkpoint"),
        (other, SETTINGS, 3, "is not a checkpoint"),
        (plain, SETTINGS, 3, "is not a checkpoint"),
        (path, Settings(embed_dim=4), 3, "made with embed_dim = 3, not 4"),
        (path, Settings(sizes=(1, 3)), 3, r"made with sizes = \[1, 2\], not \[1, 3\]"),
        (path, SETTINGS, 5, "of another shape"),
    ]
    for file, settings, units, message in cases:
        with pytest.raises(tutorial.UserError, match=message) as caught:
            fit(compiled_model(units), batches, file, resume=True, settings=settings)
        assert "\n" not in str(caught.value)


def test_without_a_checkpoint_the_last_epoch_counts(batches):
    history, seconds = sentiment.fit(compiled_model(), batches, Settings(epochs=2))
    assert len(history["loss"]) == len(seconds) == 2
    assert "val_loss" not in history


SIZES = SimpleNamespace(
    model="transformer", batch_size=32, embed_dim=32, num_heads=2, num_layers=1,
    attention="fused", seed=0, vocab_size=50, sequence_length=20, max_reviews=None,
    held_out=2,
)  # fmt: skip


def test_memory_grows_with_the_square_of_the_length_for_keras_only():
    fused = np.array([sentiment.memory_of_a_step(SIZES, n) for n in (0, 1000, 2000)])
    keras_too = SimpleNamespace(**{**vars(SIZES), "attention": "keras"})
    other = np.array(
        [sentiment.memory_of_a_step(keras_too, n) for n in (0, 1000, 2000)]
    )
    assert np.diff(fused, 2) == 0
    assert np.diff(other, 2) > 32 * 2 * 1000**2 * 2 * 4


def test_too_little_memory_is_one_line(monkeypatch):
    monkeypatch.setattr(tutorial, "available_memory", lambda: 2**30)
    tokens = tf.ragged.constant([[1] * 9, [2]], dtype="int64")
    floats = tf.ragged.constant([[[0.0] * 3] * 9, [[0.0] * 3]], ragged_rank=1)
    sentiment.training_batches(tokens, [0, 1], floats, SIZES)
    many = SimpleNamespace(**{**vars(SIZES), "batch_size": 10**6})
    message = (
        r"--batch-size 1000000 with reviews of 9 tokens \(--sequence-length\) needs"
    )
    with pytest.raises(
        tutorial.UserError, match=f"{message} about .* 1.0 GiB are free"
    ):
        sentiment.training_batches(tokens, [0, 1], floats, many)


def test_available_memory_is_known_here():
    found = tutorial.available_memory()
    assert found is None or 2**20 < found < 2**50
    assert 50 < tutorial.peak_memory() < 10**7


@pytest.fixture
def reviews():
    texts = [
        f"word{i} and so on, it was {'good' if i % 2 else 'bad'}" for i in range(9)
    ]
    labels = np.arange(9, dtype="int32") % 2
    return data.Reviews("imdb", "made up", texts, labels, texts[:4], labels[:4])


def test_reviews_are_divided_at_random_and_none_is_in_both_parts(reviews):
    (used, labels), (kept, _) = sentiment.divide(reviews, SIZES, 3)
    assert sorted(used + kept) == sorted(reviews.train_texts)
    assert len(kept) == 3
    assert [("good" in t) == y for t, y in zip(used, labels, strict=True)] == [True] * 6
    few = SimpleNamespace(**{**vars(SIZES), "max_reviews": 3, "seed": 1})
    (used, _), (kept, _) = sentiment.divide(reviews, few, 1)
    assert (len(used), len(kept)) == (2, 1)
    with pytest.raises(tutorial.UserError, match="--max-reviews 3 leaves nothing"):
        sentiment.divide(reviews, few, 3)
    one = SimpleNamespace(**{**vars(SIZES), "max_reviews": 1})
    message = "--max-reviews 1 leaves 1 to train on, all with the same label"
    with pytest.raises(tutorial.UserError, match=message):
        sentiment.divide(reviews, one, 0)


def test_a_short_run_is_tested_on_reviews_drawn_at_random():
    reviews = data.load_reviews("sample")
    few = reviews.tested_on(300, seed=1)
    rows = [reviews.test_texts.index(text) for text in few.test_texts]
    assert len(set(rows)) == 300
    assert min(rows) < 300 < 1500 < max(rows)
    np.testing.assert_array_equal(few.test_labels, reviews.test_labels[rows])
    np.testing.assert_array_equal(few.test_hard, reviews.test_hard[rows])
    assert few.train_texts is reviews.train_texts
    assert reviews.tested_on(300, seed=1).test_texts == few.test_texts
    assert reviews.tested_on(300, seed=2).test_texts != few.test_texts
    assert reviews.tested_on(len(reviews.test_texts)) is reviews


def test_all_batches_are_made_by_what_training_reviews_say(reviews):
    tokenizer, features, training, validation, test = sentiment.load(reviews, SIZES)
    assert "word8" in tokenizer.get_vocabulary()
    (tokens, floats), _ = next(iter(training))
    assert tokens.shape[0] == len(reviews.train_texts) - SIZES.held_out
    # Cross-fitted: not what the layer says, which has counted these reviews.
    assert (floats.numpy() != features(tokens).numpy()).any()
    assert sum(len(y) for _, y in validation) == SIZES.held_out
    (tokens, floats), labels = next(iter(test))
    np.testing.assert_array_equal(tokens, tokenizer(reviews.test_texts))
    np.testing.assert_array_equal(floats, features(tokens))
    np.testing.assert_array_equal(labels, reviews.test_labels)


@pytest.mark.parametrize("model", ["bag", "naive_bayes"])
def test_linear_models_learn_what_words_say(model):
    reviews = data.load_reviews("sample")
    few = {"model": model, "max_reviews": 1500, "sequence_length": 200}
    few["vocab_size"] = 1000
    results = sentiment.run_linear(reviews, SimpleNamespace(**{**vars(SIZES), **few}))
    # The easy three tenths, and of the others one half.
    assert 0.55 < results["accuracy"] < 0.75
    assert results["hard_accuracy"] < 0.6
    assert results["seconds"] > 0
    assert results["parameters"] > 3


@pytest.mark.parametrize("model", ["bag", "naive_bayes"])
def test_linear_models_judge_texts(model, reviews, capsys):
    few = SimpleNamespace(**{**vars(SIZES), "model": model})
    asked = ["a good word0", "it was bad", "zebra !"]
    results = sentiment.run_linear(reviews, few, asked)
    plain = sentiment.run_linear(reviews, few)
    assert results["accuracy"] == plain["accuracy"]
    assert "probabilities" not in plain
    good, bad, _ = results["probabilities"]
    assert bad < 0.5 < good
    lines = capsys.readouterr().out.splitlines()[-4:-1]
    assert lines[0] == f"positive ({good:.3f})  a good word0"
    assert lines[1] == f"negative ({bad:.3f})  it was bad"
    assert lines[2].startswith("no known word (0.")


def test_texts_are_judged_in_words(capsys):
    sentiment.print_judged(
        "abcd", [0.9, 0.1, 0.5004, 0.5004], [True, True, True, False]
    )
    assert capsys.readouterr().out.splitlines() == [
        "positive (0.900)  a",
        "negative (0.100)  b",
        "undecided (0.500)  c",
        "no known word (0.500)  d",
    ]
    assert sentiment.judge_texts([], np.zeros(0)) == {}
    found = sentiment.judge_texts(["a"], np.array([np.log(3)]))
    np.testing.assert_allclose(found["probabilities"], [0.75])
    assert capsys.readouterr().out == "positive (0.750)  a\n"


def start(tmp_path, *arguments):
    defaults = SimpleNamespace(
        model="transformer", attention="fused", preset="p", sequence_length=5,
        embed_dim=32, num_heads=2, num_layers=1, epochs=2, batch_size=8,
        max_reviews=None,
    )  # fmt: skip
    arguments = ["--out", str(tmp_path), *arguments]
    sentiment.check_start(sentiment.parse_arguments(arguments, defaults))


def test_what_cannot_work_is_told_before_the_work(tmp_path, monkeypatch):
    start(tmp_path, "--save", str(tmp_path / "a.keras"))
    with pytest.raises(tutorial.UserError, match=r"--save .*h5 must be .* \.keras$"):
        start(tmp_path, "--save", str(tmp_path / "a.h5"))
    monkeypatch.setenv("TF_CONFIG", "{")
    with pytest.raises(tutorial.UserError, match="`TF_CONFIG` must be JSON"):
        start(tmp_path)
    monkeypatch.delenv("TF_CONFIG")
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(tutorial.UserError, match=r"pip install 'hw3tf\[bert\]'"):
        start(tmp_path, "--model", "bert")
    (tmp_path / "exported").touch()
    with pytest.raises(tutorial.UserError, match="exported is a file, and a folder"):
        start(tmp_path)


def test_phrases_find_what_words_do_not():
    """Whether two words stand in this order or in the other."""
    order = np.arange(200) % 2
    rng = np.random.default_rng(0)
    tokens = np.full((200, 12), 2)
    for row, first in zip(tokens, order, strict=True):
        at = rng.choice([1, 4, 7])
        row[at : at + 2] = (3, 4) if first else (4, 3)
    tokens = tf.RaggedTensor.from_tensor(tokens.astype("int64"))
    logits = data.phrase_logits(tokens[:100], order[:100], tokens[100:])
    np.testing.assert_array_equal(logits > 0, order[100:] == 1)


@pytest.mark.parametrize("first", [3, 43])
def test_phrases_near_the_end_count_by_themselves(first):
    """The same word praises among the last 40 tokens, and blames before."""
    labels = np.arange(60) % 2
    tokens = np.full((60, 90), 2)
    for row, label in zip(tokens, labels, strict=True):
        row[88 if label else first] = 7
        row[0] = 7
    tokens = tf.RaggedTensor.from_tensor(tokens.astype("int64"))
    logits = data.phrase_logits(tokens[:40], labels[:40], tokens[40:])
    np.testing.assert_array_equal(logits > 0, labels[40:] == 1)


def test_the_better_model_has_the_larger_weight(rng):
    labels = np.arange(4000) % 2
    signal = 2.0 * labels - 1
    good = signal + rng.normal(size=4000)
    bad = signal + 3 * rng.normal(size=4000)
    # Of independent normal errors, the best weight is the ratio of the variances.
    assert data.stacking_weight(good, bad, labels) == pytest.approx(1 / 9, abs=0.05)
    assert data.stacking_weight(bad, good, labels) == pytest.approx(9, rel=0.4)
    assert data.stacking_weight(good, -signal, labels) == 0


def test_word_vectors_put_words_of_the_same_company_together(rng):
    """2 and 3 stand beside 4 alone, 5 and 6 beside 7 alone."""
    pairs = [(int(rng.choice(a)), b) for a, b in [((2, 3), 4), ((5, 6), 7)] * 200]
    tokens = tf.ragged.constant(pairs, dtype="int64")
    vectors = data.word_vectors(tokens, num_words=9, dim=3)
    assert vectors.shape == (9, 3)
    assert vectors.dtype == np.float32
    assert not vectors[[0, 1, 8]].any()
    assert np.std(vectors[2:8]) == pytest.approx(1, rel=1e-5)
    unit = vectors[2:8] / np.linalg.norm(vectors[2:8], axis=1, keepdims=True)
    likeness = unit @ unit.T
    assert likeness[0, 1] > 0.9
    assert likeness[3, 4] > 0.9
    assert likeness[0, 3] < 0.5


@pytest.mark.parametrize(
    ("tokens", "dim", "message"),
    [([[2], [3]], 2, "two known words near"), ([[2, 3]], 9, "`dim` must be from 1 to")],
)
def test_word_vectors_need_words_together(tokens, dim, message):
    with pytest.raises(ValueError, match=message):
        data.word_vectors(tf.ragged.constant(tokens, dtype="int64"), 9, dim)


def test_a_net_begins_with_vectors_of_all_reviews_but_those_of_the_test(monkeypatch):
    reviews = data.load_reviews("sample", unlabelled=True)
    assert len(reviews.unlabelled_texts) == 6000
    assert not data.load_reviews("sample").unlabelled_texts
    settings = sentiment.settings_for(reviews, embedded_words=100, embed_dim=8)
    tokenizer = data.ReviewTokenizer(100, 50)
    tokenizer.adapt(reviews.train_texts[:500])
    model = sentiment.build_classifier(settings)
    before = model.get_layer("words").embeddings.numpy()
    seen = []
    plain = data.word_vectors

    def word_vectors(tokens, *arguments, **options):
        seen.append(int(tokens.nrows()))
        return plain(tokens, *arguments, **options)

    monkeypatch.setattr(data, "word_vectors", word_vectors)
    sentiment.start_from_unlabelled(model, tokenizer, reviews, settings)
    after = model.get_layer("words").embeddings.numpy()
    assert seen == [12_000]
    np.testing.assert_array_equal(after[:2], before[:2])  # padding and unknown
    assert (after[2:90] != before[2:90]).any(axis=1).all()
    assert 0.5 < after[2:90].std() / before.std() < 2


def test_results_are_judged_and_mistakes_shown(reviews, capsys):
    logits = np.array([-1.0, 2.0, 3.0, -4.0])
    assert sentiment.judge(reviews, logits) == {"accuracy": 0.5}
    hard = np.array([True, False, True, False])
    sample = data.Reviews(**{**vars(reviews), "test_hard": hard})
    assert sentiment.judge(sample, logits)["hard_accuracy"] == 0.5
    many = np.tile(logits, 5)
    texts, labels = reviews.test_texts * 5, np.tile(reviews.test_labels, 5)
    reviews = data.Reviews(
        "imdb", "", reviews.train_texts, reviews.train_labels, texts, labels
    )
    capsys.readouterr()
    sentiment.print_mistakes(reviews, many, shown=1)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("negative, but logit +3.0: word2 and")
    assert printed[1].startswith("positive, but logit -4.0: word3 and")
    assert sentiment.num_words(reviews)[:2].tolist() == [7, 7]


def test_numbers_are_there_only_if_they_were_given():
    defaults = SimpleNamespace(
        model="transformer", attention="fused", preset="p", sequence_length=5,
        embed_dim=32, num_heads=2, num_layers=1, epochs=2, batch_size=8,
        max_reviews=None,
    )  # fmt: skip
    args = sentiment.parse_arguments(["--epochs", "7"], defaults)
    assert args.epochs == 7
    assert not {"batch_size", "model", "attention"} & vars(args).keys()
