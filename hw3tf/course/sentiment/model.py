"""The classifier of tutorial 4: its settings, its parts, how it is trained."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras

import hw3tf
from hw3tf._types import Dataset, Tensor
from hw3tf.course import data


@dataclass(frozen=True)
class Settings:
    """What can be changed.

    Attributes:
        model: What mixes the words: `"transformer"`, `"gru"`, `"lstm"`, or a model of
            another kind, `"bag"`, `"naive_bayes"`, `"bert"`.
        attention: `"fused"` and `"keras"` take hw3tf's layers or Keras's, recurrent
            ones, too; with `"none"`, nothing mixes the words.
        positions: Whether to add a learned vector for every position.
        convolution: Whether each word sees its two neighbours.
        phrases: Whether the model gets the numbers of words, pairs and triples.
        sequence_length: Longest review, in tokens.
        vocab_size: Words that are counted in phrases.
        embedded_words: The most frequent of them, which get a vector.
        embed_dim, num_heads, num_layers: Size of the vectors, heads of attention,
            Transformer blocks.
        epochs, batch_size, learning_rate: Of the training.
        dropout, pooled_dropout, word_dropout: Shares of the features, the pooled
            features and the words that are left out in training.
        max_pool: Whether to pool by the maximum, too.
        seed: Integer, of everything random.
        held_out: Training reviews for validation.
        max_reviews: Training reviews to use; None = all.
        preset: Of BERT: a name or a folder.
    """

    model: str = "transformer"
    attention: str = "fused"
    positions: bool = False
    convolution: bool = True
    phrases: bool = True
    sequence_length: int = 512
    vocab_size: int = 100_000
    embedded_words: int = 30_000
    embed_dim: int = 32
    num_heads: int = 2
    num_layers: int = 1
    epochs: int = 2
    batch_size: int = 32
    learning_rate: float = 2e-3
    dropout: float = 0.1
    pooled_dropout: float = 0.5
    word_dropout: float = 0.3
    max_pool: bool = False
    seed: int = 0
    held_out: int = 1000
    max_reviews: int | None = None
    preset: str = "bert_base_en_uncased"


# What `NaiveBayesFeatures` says of a token: three log ratios, three learned weights.
NUM_FLOATS = 6

# The generated reviews have few words, all of them frequent: nothing to forget.
NO_DROPOUT = {"dropout": 0.0, "pooled_dropout": 0.0, "word_dropout": 0.0}
FOR_THE_SAMPLE = {"epochs": 4, "learning_rate": 3e-3, **NO_DROPOUT}
QUICK = {"max_reviews": 6000, "held_out": 300, "sequence_length": 160}
FOR_BERT = {"batch_size": 16, "learning_rate": 1e-3, "epochs": 1}


def settings_for(reviews: data.Reviews, **values: Any) -> Settings:
    """Returns the settings that suit the data, with `values` in the place of some."""
    defaults = FOR_THE_SAMPLE if reviews.name == "sample" else {}
    return replace(Settings(), **{**defaults, **values})


def transformer_block(
    x: Tensor,
    mask: Tensor,
    num_heads: int,
    dropout: float = 0.0,
    fused: bool = True,
    name: str | None = None,
) -> Tensor:
    """Attention and a feed-forward layer, each after a normalization and beside a
    residual connection (pre-norm).

    Args:
        x: Float tensor of shape `(batch, length, dim)`.
        mask: Boolean tensor of shape `(batch, length)`, false at padding.
        num_heads: Heads of attention; it divides `dim`.
        dropout: Share of the features that training leaves out. Defaults to 0.
        fused: Whether the attention is hw3tf's layer (the default) or Keras's.
        name: Of the attention layer.

    Returns:
        Float tensor of the shape of `x`.

    Reference:
        - [Xiong et al., 2020](https://arxiv.org/abs/2002.04745)
    """
    layers = keras.layers
    dim = x.shape[-1]
    source = hw3tf.layers if fused else layers
    attention = source.MultiHeadAttention(num_heads, dim // num_heads, name=name)
    y = layers.LayerNormalization(epsilon=1e-5)(x)
    y = attention(y, y, query_mask=mask, value_mask=mask)
    x = x + layers.Dropout(dropout)(y)
    y = layers.LayerNormalization(epsilon=1e-5)(x)
    y = layers.Dense(2 * dim, activation="relu")(y)
    return x + layers.Dropout(dropout)(layers.Dense(dim)(y))


def mix_words(x: Tensor, mask: Tensor, settings: Settings) -> Tensor:
    """Lets each word see others: by attention, by a recurrent net that reads from both
    ends, or not at all."""
    fused = settings.attention == "fused"
    if settings.attention == "none":
        return x
    if settings.model in ("gru", "lstm"):
        source = hw3tf.layers if fused else keras.layers
        kind = source.GRU if settings.model == "gru" else source.LSTM
        layer = kind(settings.embed_dim // 2, return_sequences=True)
        y = keras.layers.Bidirectional(layer)(x, mask=mask)
        return x + keras.layers.Dropout(settings.dropout)(y)
    for number in range(settings.num_layers):
        name = f"attention_layer_{number}"
        x = transformer_block(
            x, mask, settings.num_heads, settings.dropout, fused, name
        )
    return x


def embed(tokens: Tensor, settings: Settings) -> Tensor:
    """A vector per word. In training, whole words are left out: otherwise the model
    remembers the rare ones."""
    layers, ops = keras.layers, keras.ops
    known = ops.where(tokens < settings.embedded_words, tokens, 1)
    # Adam moves all weights by similar steps; scaling the embeddings by 0.5 halves
    # theirs.
    normal = keras.initializers.RandomNormal(stddev=0.2)
    words = layers.Embedding(
        settings.embedded_words, settings.embed_dim, normal, name="words"
    )(known)
    words = layers.Dropout(settings.word_dropout, noise_shape=(None, None, 1))(words)
    if settings.positions:
        table = layers.Embedding(
            settings.sequence_length, settings.embed_dim, normal, name="positions"
        )
        words = words + table(ops.cumsum(ops.ones_like(tokens), axis=1) - 1)
    return 0.5 * words


Block = Callable[[Tensor, Tensor, float], Tensor]


def build_classifier(settings: Settings, block: Block | None = None) -> keras.Model:
    """Returns the classifier.

    Args:
        settings: With `model` `"transformer"`, `"gru"` or `"lstm"`.
        block: What lets the words see each other: a function of the vectors `(batch,
            length, dim)`, the mask `(batch, length)` and the dropout's rate, which
            returns vectors. None, the default, for what `settings` say.

    Returns:
        `keras.Model`: token ids `(batch, length)` and the phrases' numbers `(batch,
        length, 6)` -> logits `(batch, 1)`.

    Example:

    >>> model = build_classifier(Settings(embedded_words=50, embed_dim=8))
    >>> model.output_shape
    (None, 1)
    """
    layers, ops, dim = keras.layers, keras.ops, settings.embed_dim
    tokens = keras.Input((None,), dtype="int64", name="tokens")
    floats = keras.Input((None, NUM_FLOATS), name="floats")
    mask = ops.not_equal(tokens, 0)
    there = ops.cast(mask, "float32")[:, :, None]
    length = ops.maximum(ops.sum(there, axis=1), 1.0)

    embedded = embed(tokens, settings)
    if settings.phrases:
        phrases = layers.Dense(dim, use_bias=False, name="phrases")(floats)
        embedded = embedded + 0.3 * phrases
    embedded = embedded * there
    x = layers.Dropout(settings.dropout)(embedded)
    if settings.convolution:
        x = x + layers.Conv1D(dim, 3, padding="same", activation="relu")(x)
    if block is None:
        x = mix_words(x, mask, settings)
    else:
        x = block(x, mask, settings.dropout)
    x = layers.LayerNormalization(epsilon=1e-5, name="features")(x) * there

    pooled = [ops.sum(x, axis=1) / length, 4.0 * ops.sum(embedded, axis=1) / length]
    if settings.max_pool:
        pooled.append(ops.max(x + 100.0 * (there - 1.0), axis=1))
    pooled = layers.Dropout(settings.pooled_dropout)(layers.Concatenate()(pooled))
    if settings.phrases:
        summed = 0.3 * ops.sum(floats, axis=1) / ops.sqrt(length)
        pooled = layers.Concatenate()([pooled, summed])
    logits = layers.Dense(1, name="logits")(pooled)
    return keras.Model([tokens, floats], logits, name="classifier")


def compile_classifier(model: keras.Model, training: Dataset, settings: Any) -> None:
    """AdamW with a warm-up and a cosine to almost nothing; no decay of word vectors.

    Args:
        model: `keras.Model` with one logit per review.
        training: Batches of the training reviews; their number sets the schedule.
        settings: With `epochs` and `learning_rate`.
    """
    steps = settings.epochs * len(training)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=max(steps - steps // 20, 1),
        alpha=0.05,
        warmup_target=settings.learning_rate,
        warmup_steps=steps // 20,
    )
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=0.01, beta_2=0.98, global_clipnorm=1.0
    )
    optimizer.exclude_from_weight_decay(var_names=["embeddings"])
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.05),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")],
    )


def with_tokenizer(
    tokenizer: data.ReviewTokenizer,
    features: data.NaiveBayesFeatures,
    model: keras.Model,
) -> keras.Model:
    """Returns the whole model: strings `(batch,)` -> probabilities `(batch, 1)` that a
    review is positive."""
    texts = keras.Input((), dtype="string", name="texts")
    tokens = tokenizer(texts)
    logits = model([tokens, features(tokens)])
    return keras.Model(
        texts, keras.layers.Activation("sigmoid")(logits), name="sentiment"
    )
