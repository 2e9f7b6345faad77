"""Word vectors from texts without labels."""

import numpy as np

from hw3tf._types import RaggedTensor

_REVIEWS_AT_ONCE = 2000


def word_vectors(
    tokens: RaggedTensor, num_words: int, dim: int, window: int = 5, seed: int = 0
) -> np.ndarray:
    """Vectors such that words that stand among the same words have similar ones.

    Counts how often two words are at most `window` tokens apart, takes the positive
    pointwise mutual information, and keeps its largest singular vectors.

    Args:
        tokens: `tf.RaggedTensor` of ids, `(reviews, None)`.
        num_words: Ids from this one on are not counted, and neither are 0, padding,
            and 1, unknown.
        dim: Size of a vector, less than `num_words`.
        window: Tokens on either side. Defaults to 5.
        seed: Integer, of the randomized singular value decomposition.

    Returns:
        Float32 array `(num_words, dim)`, of standard deviation 1 over the words that
        were counted, and 0 for the others.

    Raises:
        ValueError: If no two words stand near each other, or `dim` is not less than
            `num_words`.

    Example:

    >>> tokens = tf.ragged.constant([[2, 3, 4], [2, 3, 5]], dtype="int64")
    >>> word_vectors(tokens, num_words=6, dim=2).shape
    (6, 2)

    Reference:
        - [Levy and Goldberg, 2014](https://papers.nips.cc/paper/5477)
    """
    from scipy.sparse import csr_matrix
    from sklearn.utils.extmath import randomized_svd

    if not 0 < dim < num_words:
        raise ValueError(
            f"`dim` must be from 1 to `num_words` - 1, {num_words - 1}. Received: {dim}"
        )
    counts = csr_matrix((num_words, num_words), dtype="float32")
    for start in range(0, int(tokens.nrows()), _REVIEWS_AT_ONCE):
        part = tokens[start : start + _REVIEWS_AT_ONCE]
        words, review = part.flat_values.numpy(), part.value_rowids().numpy()
        counted = (words > 1) & (words < num_words)
        for apart in range(1, window + 1):
            one, other = words[:-apart], words[apart:]
            near = (review[:-apart] == review[apart:]) & counted[:-apart]
            near &= counted[apart:]
            ones = np.ones(np.count_nonzero(near), "float32")
            found = csr_matrix((ones, (one[near], other[near])), counts.shape)
            counts = counts + found + found.T
    total = counts.sum()
    if not total:
        raise ValueError("`tokens` must have two known words near each other")
    often = np.maximum(counts.sum(axis=1).A1, 1.0)
    pairs = counts.tocoo()
    # Contexts to the power 3/4: otherwise the rarest words have the largest values.
    context = often**0.75 / np.sum(often**0.75)
    information = np.log(pairs.data / (often[pairs.row] * context[pairs.col]))
    positive = csr_matrix(
        (np.maximum(information, 0), (pairs.row, pairs.col)), counts.shape
    )
    left, values, _ = randomized_svd(positive, dim, random_state=seed)
    vectors = left * np.sqrt(values)
    there = counts.sum(axis=1).A1 > 0
    vectors[~there] = 0
    return (vectors / np.std(vectors[there])).astype("float32")
