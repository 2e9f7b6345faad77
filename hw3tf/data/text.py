"""From review texts to batches of token ids."""

import keras
import numpy as np

_KEPT = r"[a-z0-9]+(?:'[a-z]+)?|[!?.,:]"


@keras.saving.register_keras_serializable(package="hw3tf")
def standardize_review(texts):
    """Lowercases, drops HTML line breaks, and sets words and `! ? . , :` apart
    by spaces. Everything else goes."""
    import tensorflow as tf

    texts = tf.strings.lower(texts)
    texts = tf.strings.regex_replace(texts, r"<br\s*/?>", " ")
    texts = tf.strings.regex_replace(texts, rf"({_KEPT})", r" \1 ")
    return tf.strings.regex_replace(texts, r"[^a-z0-9'!?.,: ]+", " ")


@keras.saving.register_keras_serializable(package="hw3tf")
class ReviewTokenizer(keras.layers.Layer):
    """Turns review texts into token ids of a fixed vocabulary.

    Long reviews keep their first third and their last two thirds of
    `sequence_length`: reviewers conclude at the end.

    Args:
        vocab_size: Largest number of ids, with 0 = padding and 1 = unknown.
        sequence_length: Largest number of tokens of a review.
        **kwargs: Passed to `keras.layers.Layer`.

    Call arguments:
        texts: String tensor of shape `(batch,)` or `(batch, 1)`, or a list of
            strings.

    Returns:
        Integer tensor of shape `(batch, length)`, padded with 0, where `length`
        is that of the longest review of the batch, at most `sequence_length`.

    Raises:
        ValueError: If `vocab_size` or `sequence_length` is too small to hold
            anything.

    Example:

    >>> tokenizer = ReviewTokenizer(vocab_size=100, sequence_length=8)
    >>> tokenizer.adapt(["A fine film!", "A dull film."])
    >>> tokenizer(["a dull film"]).shape
    TensorShape([1, 3])
    """

    def __init__(self, vocab_size, sequence_length, **kwargs):
        super().__init__(**kwargs)
        if vocab_size < 3:
            raise ValueError(f"`vocab_size` must be >= 3. Received: {vocab_size}")
        if sequence_length < 1:
            raise ValueError(
                f"`sequence_length` must be >= 1. Received: {sequence_length}"
            )
        self.vocab_size = vocab_size
        self.sequence_length = sequence_length
        self.vectorization = keras.layers.TextVectorization(
            max_tokens=vocab_size, standardize=standardize_review, ragged=True
        )

    def adapt(self, texts):
        """Fits the vocabulary: the most frequent words of `texts`, which are to
        be the training set and nothing else."""
        import tensorflow as tf

        self.vectorization.adapt(tf.data.Dataset.from_tensor_slices(texts).batch(1024))

    def __call__(self, texts):
        """Takes a list of strings too, where other layers want tensors."""
        if isinstance(texts, (list, tuple)):
            texts = keras.ops.convert_to_tensor(texts, dtype="string")
        return super().__call__(texts)

    def build(self, texts_shape=None):
        self.built = True  # the vocabulary comes from `adapt` or from a file

    def get_vocabulary(self):
        """List of tokens; the index is the id."""
        return self.vectorization.get_vocabulary()

    def call(self, texts):
        return self.tokenize(texts).to_tensor()

    def tokenize(self, texts):
        """As `call`, but gives a `tf.RaggedTensor`, without padding."""
        import tensorflow as tf

        ids = self.vectorization(tf.reshape(texts, [-1]))
        head = self.sequence_length // 3
        tail = self.sequence_length - head
        lengths = tf.cast(ids.row_lengths(), "int32")
        # A short review has no middle to leave out: its tail begins at its head.
        skip = tf.maximum(lengths - tail, tf.minimum(lengths, head))
        positions = tf.ragged.range(lengths)
        keep = tf.logical_or(positions < head, positions >= tf.expand_dims(skip, 1))
        return tf.ragged.boolean_mask(ids, keep)

    def compute_output_spec(self, texts):
        return keras.KerasTensor((texts.shape[0], None), "int64")

    def get_config(self):
        config = super().get_config()
        config["vocab_size"] = self.vocab_size
        config["sequence_length"] = self.sequence_length
        return config


def review_batches(
    tokenizer, texts, labels=None, batch_size=32, shuffle_seed=None, bucket=64
):
    """Batches of reviews of similar length, as a `tf.data.Dataset`.

    Texts are tokenized once and cached in memory. Within a batch, reviews are
    padded with 0 to the longest; `keras.layers.Embedding(mask_zero=True)` makes
    the mask.

    Args:
        tokenizer: An adapted `ReviewTokenizer`.
        texts: List of strings.
        labels: Integer array of the same length, or None.
        batch_size: Reviews per batch.
        shuffle_seed: Integer: a new order in every epoch, the same in every run.
            None keeps the order of the texts, and batches them as they come.
        bucket: With `shuffle_seed`, lengths in one batch differ by less than
            this many tokens.

    Returns:
        Dataset of `(tokens, labels)`, or of `tokens` without labels: int64
        tensors of shape `(batch, length)` and float32 of shape `(batch,)`.

    Raises:
        ValueError: If there are no texts, or another number of labels.
    """
    import tensorflow as tf

    if not len(texts):
        raise ValueError("`texts` must hold at least one review. Received: none")
    if labels is not None and len(labels) != len(texts):
        raise ValueError(
            f"`labels` must have one entry per text, {len(texts)}. "
            f"Received: {len(labels)}"
        )
    chunks = [
        tokenizer.tokenize(texts[i : i + 1024]) for i in range(0, len(texts), 1024)
    ]
    tokens = tf.concat(chunks, axis=0)
    targets = np.zeros(len(texts)) if labels is None else labels
    dataset = tf.data.Dataset.from_tensor_slices((tokens, np.float32(targets)))
    dataset = dataset.map(lambda x, y: (tf.convert_to_tensor(x), y)).cache()
    if shuffle_seed is None:
        dataset = dataset.padded_batch(batch_size)
    else:
        dataset = dataset.shuffle(len(texts), seed=shuffle_seed)
        limits = list(range(bucket, tokenizer.sequence_length, bucket))
        dataset = dataset.bucket_by_sequence_length(
            lambda x, y: tf.shape(x)[0],
            bucket_boundaries=[limit + 1 for limit in limits],
            bucket_batch_sizes=[batch_size] * (len(limits) + 1),
        )
    if labels is None:
        dataset = dataset.map(lambda x, y: x)
    return dataset.prefetch(tf.data.AUTOTUNE)
