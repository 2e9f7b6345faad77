# %% [markdown]
r"""# Sentiment of film reviews

*Can a small Transformer, trained from nothing, tell whether a reviewer liked the film?*

Run time: 4 min on 2 CPU cores, `--quick` 1 min. Download: 84 MB or none.

A Transformer encoder reads a review and says whether its author liked the film. Its
attention runs on hw3tf's C++ kernel, forward and backward: no matrix of length $\times$
length scores is built, so memory grows with the length of the reviews, not with its
square.

The data are the 50,000 IMDB reviews of Maas et al. (2011), or, where they cannot be
had, generated reviews in which the words alone say nothing: *great* and *dull* both
occur, and the frame around them decides which one counts.

Claims, checked by `check_claims()` when the script ends:

1. IMDB: at least 0.88 of the 25,000 test reviews are classified correctly (with
   `--quick`, a minute of training: 0.75).
2. Sample: at least 0.95 of the hard test reviews (`--quick`: 0.90), on which counting
   words reaches at most 0.60.
3. "Justice League is terrible. I hated it." is negative, "Avengers was great!!" is
   positive.
4. The saved model and the exported one give the probabilities of the trained one.

```
python tutorials/04_imdb_sentiment.py --text "Not bad at all."
```

`--workers 2` trains in two processes, each on its half of every batch; several
machines do the same with a `TF_CONFIG` each.
"""

# %%
import argparse
import pathlib
import sys
import time
from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow as tf

import hw3tf
from hw3tf.tutorial import (
    UserError,
    argument_parser,
    prepare_folder,
    print_summary,
    run,
)

EXAMPLES = ("Justice League is terrible. I hated it.", "Avengers was great!!")


@dataclass(frozen=True)
class Settings:
    """What can be changed; the defaults meet the claims."""

    attention: str = "fused"
    sequence_length: int = 512
    vocab_size: int = 30_000
    embed_dim: int = 32
    num_heads: int = 2
    num_layers: int = 1
    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 1e-3
    dropout: float = 0.3
    word_dropout: float = 0.3
    seed: int = 0
    max_reviews: int | None = None  # of the training set; None = all


# The generated reviews have few words, all of them frequent: nothing to forget.
FOR_THE_SAMPLE = {"learning_rate": 3e-3, "dropout": 0.1, "word_dropout": 0.05}
QUICK = {"max_reviews": 6000, "learning_rate": 3e-3}


# %% [markdown]
# ## The data
#
# The vocabulary is fitted on the training reviews alone. Reviews of similar length
# share a batch, so that little of it is padding. In training, some words are
# replaced by "unknown": otherwise the model remembers the rare ones.


# %%
def load(reviews, settings):
    """Returns the tokenizer and the training, validation and test batches."""
    order = np.random.default_rng(settings.seed).permutation(len(reviews.train_texts))
    order = order[: settings.max_reviews]
    held_out, used = np.split(order, [len(order) // 20])
    tokenizer = hw3tf.data.ReviewTokenizer(
        settings.vocab_size, settings.sequence_length, name="tokenizer"
    )
    train_texts = [reviews.train_texts[i] for i in used]
    tokenizer.adapt(train_texts)

    def drop_words(tokens, label):
        dropped = tf.random.uniform(tf.shape(tokens)) < settings.word_dropout
        return tf.where(dropped & (tokens > 0), tf.ones_like(tokens), tokens), label

    training = hw3tf.data.review_batches(
        tokenizer,
        train_texts,
        reviews.train_labels[used],
        settings.batch_size,
        shuffle_seed=settings.seed,
    ).map(drop_words)
    validation = hw3tf.data.review_batches(
        tokenizer,
        [reviews.train_texts[i] for i in held_out],
        reviews.train_labels[held_out],
    )
    test = hw3tf.data.review_batches(tokenizer, reviews.test_texts, reviews.test_labels)
    return tokenizer, training, validation, test


# %% [markdown]
# ## The model
#
# With queries $Q$, keys $K$ and values $V$, $T$ rows of $n$ numbers each, a head
# computes
#
# $$\operatorname{softmax}\left(\frac{Q K^\top}{\sqrt n}\right) V$$
#
# The matrix in the middle has $T^2$ entries: for 32 reviews of 2,048 words and 2 heads
# 1 GiB, and training keeps it, its gradient and what dropout made of it. The kernel
# visits the keys tile by tile, keeps for every query only the largest score, the sum of
# the exponentials and the weighted sum of the values so far, and computes the tiles
# anew for the gradient. What it keeps grows with $T$.
#
# The model: embeddings; a convolution that lets each word see its two neighbours;
# blocks of attention and feed-forward layers, each after a normalization and beside a
# residual connection (pre-norm: Xiong et al., 2020); pooling over the words that are
# there. The mask says which they are. Nothing of size length x length is made of it:
# the kernel skips what it hides.


# %%
def build_model(settings):
    """Returns the classifier: token ids (batch, length) -> logits (batch, 1)."""
    layers, ops, dim = keras.layers, keras.ops, settings.embed_dim
    attention_layer = {
        "fused": hw3tf.layers.MultiHeadAttention,
        "keras": layers.MultiHeadAttention,
    }[settings.attention]

    tokens = keras.Input((None,), dtype="int64", name="tokens")
    mask = ops.not_equal(tokens, 0)
    there = ops.cast(mask, "float32")[:, :, None]
    embedded = hw3tf.layers.TokenAndPositionEmbedding(
        settings.vocab_size, settings.sequence_length, dim, mask_zero=False
    )(tokens)
    x = layers.Dropout(settings.dropout)(embedded) * there
    x = x + layers.Conv1D(dim, 3, padding="same", activation="relu")(x)
    for i in range(settings.num_layers):
        y = layers.LayerNormalization(epsilon=1e-5)(x)
        y = attention_layer(
            settings.num_heads, dim // settings.num_heads, name=f"attention_layer_{i}"
        )(y, y, query_mask=mask, value_mask=mask)
        x = x + layers.Dropout(settings.dropout)(y)
        y = layers.LayerNormalization(epsilon=1e-5)(x)
        y = layers.Dense(2 * dim, activation="relu")(y)
        x = x + layers.Dropout(settings.dropout)(layers.Dense(dim)(y))
    x = layers.LayerNormalization(epsilon=1e-5)(x)
    mean = layers.GlobalAveragePooling1D()(x, mask=mask)
    largest = ops.max(x + 100.0 * (there - 1.0), axis=1)
    words = 4.0 * layers.GlobalAveragePooling1D()(embedded, mask=mask)
    pooled = layers.Concatenate()([mean, largest, words])
    logits = layers.Dense(1, name="logits")(layers.Dropout(0.5)(pooled))
    return keras.Model(tokens, logits, name="classifier")


# %% [markdown]
# ## Training


# %%
class TrainingTime(keras.callbacks.Callback):
    """Seconds of training per epoch, without the validation."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_test_begin(self, logs=None):
        self.seconds.append(time.perf_counter() - self.start)


def compile_model(model, optimizer="adam"):
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.05),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")],
    )


def train(model, training, validation, num_reviews, settings):
    """Fits the model; returns (history, seconds per epoch)."""
    steps = settings.epochs * num_reviews // settings.batch_size
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=steps - steps // 20,
        alpha=0.05,
        warmup_target=settings.learning_rate,
        warmup_steps=steps // 20,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.01, beta_2=0.98)
    compile_model(model, optimizer)
    if hw3tf.data.this_worker() is not None:
        history = hw3tf.data.fit_worker(model, training, settings.epochs)
        return history, history.pop("seconds")
    timer = TrainingTime()
    history = model.fit(
        training,
        validation_data=validation,
        epochs=settings.epochs,
        callbacks=[timer],
        verbose="auto",
    )
    return history.history, timer.seconds


def with_tokenizer(tokenizer, model):
    """The whole way: strings -> probabilities that the review is positive."""
    texts = keras.Input((), dtype="string", name="texts")
    outputs = keras.layers.Activation("sigmoid")(model(tokenizer(texts)))
    return keras.Model(texts, outputs, name="sentiment")


def probabilities(sentiment, texts):
    return sentiment(tf.constant(list(texts)))[:, 0].numpy()


def attention_weights(model, tokens):
    """Weights of the last block for one review: (num_heads, length, length)."""
    attention = [x for x in model.layers if x.name.startswith("attention_layer")][-1]
    inputs = keras.Model(model.input, attention.input[0])(tokens)
    _, scores = attention(inputs, inputs, return_attention_scores=True)
    return scores[0].numpy()


def draw_attention(tokenizer, model, text, path):
    tokens, vocabulary = tokenizer([text]), tokenizer.get_vocabulary()
    words = [vocabulary[i] for i in tokens[0]]
    hw3tf.plots.plot_attention(attention_weights(model, tokens), words, path)


def judge_hard_reviews(reviews, logits):
    """The share of them that the model gets right, and that counting words does."""
    hard, truth = reviews.test_hard, reviews.test_labels == 1
    counted = hw3tf.data.bag_of_words_predictions(reviews) == 1
    results = {
        "hard_accuracy": float(np.mean((logits > 0)[hard] == truth[hard])),
        "hard_accuracy_of_counting": float(np.mean(counted[hard] == truth[hard])),
    }
    print("hard reviews: {:.4f}, by counting words: {:.4f}".format(*results.values()))
    return results


def save_and_compare(sentiment, texts, saved, exported):
    """Saves the model to a file and exports it to a folder; by how much the
    probabilities of either, loaded again, differ."""
    sentiment.save(saved)
    sentiment.export(exported, verbose=False)
    judged = probabilities(sentiment, texts)
    loaded, served = keras.models.load_model(saved), tf.saved_model.load(exported)
    return {
        f"{name}_difference": float(np.abs(probabilities(f, texts) - judged).max())
        for name, f in (("saved", loaded), ("exported", served.serve))
    }


# %% [markdown]
# ## The claims


# %%
def check_claims(results, quick):
    """Raises AssertionError if the run contradicts the text above."""
    if results["data"] == "imdb":
        assert results["accuracy"] >= (0.75 if quick else 0.88), results
    else:
        assert results["hard_accuracy"] >= (0.90 if quick else 0.95), results
        assert results["hard_accuracy_of_counting"] <= 0.60, results
    negative, positive = results["examples"]
    assert negative < 0.5 < positive, results
    assert results["saved_difference"] < 1e-5, results
    assert results["exported_difference"] < 1e-5, results
    print("All claims hold.")


# %% [markdown]
# ## Conclusion
#
# A block of attention of width 32, trained for three minutes on two cores, is right on
# 88.7 % of reviews it has never seen (mean of three seeds). On real reviews single
# words already say most of it: a logistic regression on words comes as far. The
# generated reviews, on which counting words is a coin toss, show what attention adds:
# from everywhere, the heads look at the word that decides.
#
# ## Exercises
#
# 1. Train with `--attention keras`. What changes: the accuracy, the time, the memory?
#    Double `--sequence-length` and ask again.
# 2. Take the attention block out of `build_model`. What is lost on IMDB, and what on
#    the sample (`--data sample`)?
# 3. The pooling takes the mean, the largest and the mean of the words. Which of the
#    three can be left out on which of the two data sets?
#
# ## References
#
# - A. Maas et al., [Learning word vectors for sentiment
#   analysis](https://aclanthology.org/P11-1015/), 2011: the reviews.
# - A. Vaswani et al., [Attention is all you
#   need](https://arxiv.org/abs/1706.03762), 2017.
# - R. Xiong et al., [On layer normalization in the Transformer
#   architecture](https://arxiv.org/abs/2002.04745), 2020: before, not after.
# - T. Dao, [FlashAttention-2](https://arxiv.org/abs/2307.08691), 2023: no matrix of
#   scores.


# %%
def positive(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return int(text)


def parse_arguments(argv):
    parser = argument_parser(
        "Train a Transformer to tell the sentiment of film reviews.",
        out="runs/imdb_sentiment",
        quick="fewer and shorter reviews: one minute",
        seed="of weights, order and dropout",
    )
    add, default = parser.add_argument, Settings()
    add(
        "--data",
        choices=["auto", "imdb", "sample"],
        default="auto",
        help="auto: IMDB if it is prepared or can be downloaded, else the sample",
    )
    add(
        "--attention",
        choices=["fused", "keras"],
        default=default.attention,
        help="hw3tf's layer or Keras's own",
    )
    for name, what in [
        ("sequence_length", "longest review, in tokens"),
        ("embed_dim", "size of the vectors"),
        ("num_heads", "attention heads; divides embed-dim"),
        ("num_layers", "Transformer blocks"),
        ("epochs", "passes over the training set"),
        ("batch_size", "reviews per step"),
    ]:
        flag = f"--{name.replace('_', '-')}"
        add(flag, type=positive, default=getattr(default, name), help=what)
    add("--workers", type=positive, default=1, help="processes that share the training")
    add("--text", action="append", default=[], help="a review to judge; repeatable")
    add("--save", type=pathlib.Path, help="the .keras file; default: in --out")
    args = parser.parse_args(argv)
    if args.embed_dim % args.num_heads:
        parser.error(
            f"--num-heads {args.num_heads} does not divide --embed-dim {args.embed_dim}"
        )
    return args


def settings_of(args):
    known = {k: v for k, v in vars(args).items() if k in Settings.__dataclass_fields__}
    settings = replace(Settings(), **known)
    if args.quick:
        shorter = min(args.sequence_length, 160)
        settings = replace(settings, sequence_length=shorter, **QUICK)
    return settings


def main(argv=None):
    args = parse_arguments(argv)
    if args.workers > 1 and hw3tf.data.this_worker() is None:
        command = [sys.executable, __file__, *(sys.argv[1:] if argv is None else argv)]
        return hw3tf.data.run_workers(args.workers, command)
    strategy = hw3tf.data.worker_strategy()
    settings = settings_of(args)
    keras.utils.set_random_seed(settings.seed)

    prepare_folder(args.out)
    try:
        reviews = hw3tf.data.load_reviews(args.data)
    except RuntimeError as error:
        raise UserError(error) from error
    print(f"Data: {reviews.name} - {reviews.origin}")
    if reviews.name == "sample":
        settings = replace(settings, **FOR_THE_SAMPLE)
    tokenizer, training, validation, test = load(reviews, settings)
    num_reviews = len(reviews.train_texts[: settings.max_reviews]) * 19 // 20
    print(f"Training on {num_reviews} reviews, attention: {settings.attention}")
    with strategy.scope():
        model = build_model(settings)
        history, seconds = train(model, training, validation, num_reviews, settings)
    if hw3tf.data.this_worker():  # one is enough to test and to write
        return None
    if hw3tf.data.this_worker() is not None:  # a model that asks no other worker
        weights, model = model.get_weights(), build_model(settings)
        model.set_weights(weights)
        compile_model(model)
    if "val_loss" in history:
        hw3tf.plots.plot_learning_curves(history, args.out / "learning_curves.png")
    print(
        f"{np.mean(seconds):.1f} s per epoch, "
        f"{num_reviews / np.mean(seconds):.0f} reviews per second"
    )
    results = {"data": reviews.name, "seconds_per_epoch": float(np.mean(seconds))}

    print(f"Test on {len(reviews.test_texts)} reviews")
    results["loss"], results["accuracy"] = model.evaluate(test, verbose="auto")
    print(f"test accuracy {results['accuracy']:.4f}, loss {results['loss']:.4f}")
    if reviews.test_hard is not None:
        logits = model.predict(test.map(lambda x, y: x), verbose=0)[:, 0]
        results |= judge_hard_reviews(reviews, logits)

    sentiment = with_tokenizer(tokenizer, model)
    texts = [*EXAMPLES, *args.text]
    judged = probabilities(sentiment, texts)
    for text, p in zip(texts, judged, strict=True):
        print(f"{'positive' if p > 0.5 else 'negative'} ({p:.3f})  {text}")
    results["examples"] = [float(p) for p in judged[:2]]
    short = min((t for t in reviews.test_texts if len(t) > 80), key=len)
    draw_attention(tokenizer, model, short, args.out / "attention.png")

    saved = args.save or args.out / "sentiment.keras"
    results |= save_and_compare(sentiment, texts, saved, args.out / "exported")
    print(f"Pictures and models are in {args.out}, the model in {saved}")
    check_claims(results, args.quick)
    print_summary("04_imdb_sentiment", results)
    return results


if __name__ == "__main__":
    run(main)
