"""Short film reviews out of a generator: data for a machine without a network.

A hard review praises one thing and blames another, *the brilliant plot*, *the wooden
acting*, and says elsewhere which of the two decides: *for me it is plot alone that
matters*. The label is what is said of that one. Exchange plot and acting in either
place, and the label turns; exchange them in both, and it stays. So each place by itself
is a coin toss, and more than `REACH` words lie between them: whatever counts words,
pairs or triples, or looks at windows of so many words and adds up what it finds there,
is a coin toss on the hard reviews, too.
"""

from collections.abc import Sequence

import numpy as np

_ASPECTS = [
    "plot",
    "acting",
    "script",
    "music",
    "pacing",
    "ending",
    "dialogue",
    "cast",
    "photography",
    "humour",
    "editing",
    "story",
    "lighting",
    "score",
    "direction",
]
# What a hard review weighs. That a name must be found again, two heads of 16 learned of
# these in 4 epochs with each of four seeds. Of the first four names one seed of three
# took more than 10 epochs; of all 15 the one seed that was tried did not learn it.
_DECISIVE = _ASPECTS[:2]
POSITIVE = [
    "great",
    "gripping",
    "brilliant",
    "moving",
    "funny",
    "clever",
    "fresh",
    "superb",
    "charming",
    "wonderful",
    "believable",
    "delightful",
]
NEGATIVE = [
    "dull",
    "terrible",
    "clumsy",
    "boring",
    "flat",
    "lazy",
    "weak",
    "stale",
    "awful",
    "wooden",
    "tedious",
    "predictable",
]

# Words from a telling word to the thing that decides are more than this many: farther
# than triples of words and a convolution over three of them see, at once or in turn.
REACH = 4

# {w} tells something of {a}, and stands beside it.
_TELLING = (
    "they all talk of the {w} {a} these days",
    "you will have heard of the {w} {a} by now",
    "there is the {w} {a} to begin with",
)
# {a} is what decides.
_DECIDING = (
    "but for me it is {a} alone that matters",
    "in the end {a} counts more than the rest",
    "to people like me {a} decides about a film",
)
_EASY = (
    "the {a} is {yes}",
    "the {a} was {yes}",
    "it was {yes}",
    "what a {yes} {a}",
    "i found the {a} {yes}",
    "{yes} {a} , {also} {b}",
    "a {yes} and {also} film",
    "i {verb} it",
    "i {verb} every minute of the {a}",
)
# What tells the sentiment of a hard review: the things, what is said of them, and what
# says that one of them decides.
DECISIVE_WORDS = frozenset(
    [*_DECISIVE, *POSITIVE, *NEGATIVE, "alone", "counts", "decides", "matters"]
)
_VERBS = (("hated", "disliked", "regretted"), ("loved", "enjoyed", "adored"))
_FILLER = (
    "i saw it on a tuesday",
    "it runs for about two hours",
    "my brother bought the tickets",
    "the {a} is by somebody new",
    "there is a train , a dog and a letter",
    "the second half takes place in a small town",
    "we talked about the {a} afterwards",
    "i had not read the book",
)


def sample_reviews(
    num_reviews: int, seed: int = 0, hard_share: float = 0.7
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Generates film reviews whose sentiment depends on composition.

    Args:
        num_reviews: Number of reviews.
        seed: Integer. The same seed gives the same reviews on every machine.
        hard_share: Share of the hard reviews, in which the words alone say
            nothing about the label. Defaults to 0.7.

    Returns:
        Tuple `(texts, labels, hard)`: a list of strings, an int array (1 =
        positive) and a boolean array. Labels are balanced among the hard and
        among the others.

    Raises:
        ValueError: If `num_reviews` is negative or `hard_share` outside 0..1.

    Example:

    >>> texts, labels, hard = sample_reviews(1000, seed=1)
    >>> len(texts), labels.mean().round(1)
    (1000, np.float64(0.5))
    """
    if num_reviews < 0:
        raise ValueError(f"`num_reviews` must be >= 0. Received: {num_reviews}")
    if not 0 <= hard_share <= 1:
        raise ValueError(f"`hard_share` must be in 0..1. Received: {hard_share}")
    rng = np.random.default_rng(seed)
    num_hard = round(num_reviews * hard_share)
    hard = np.arange(num_reviews) < num_hard
    labels = np.arange(num_reviews) % 2
    order = rng.permutation(num_reviews)
    hard, labels = hard[order], labels[order]
    texts = [_review(rng, int(y), bool(h)) for y, h in zip(labels, hard, strict=True)]
    return texts, labels.astype("int32"), hard


def _review(rng: np.random.Generator, label: int, hard: bool) -> str:
    # By index: an array of the words, made anew for each choice, took half of the time.
    def pick(words: Sequence[str]) -> str:
        return words[int(rng.integers(len(words)))]

    def pick_some(words: Sequence[str], number: int) -> list[str]:
        return [words[i] for i in rng.choice(len(words), number, replace=False)]

    def sentence(frame: str, **words: str) -> str:
        a, b = pick_some(_ASPECTS, 2)
        also = pick((NEGATIVE, POSITIVE)[label])
        chosen = {"a": a, "b": b, "also": also, "verb": pick(_VERBS[label])}
        chosen["yes"] = pick((NEGATIVE, POSITIVE)[label])
        return frame.format(**{**chosen, **words})

    if hard:
        good, bad = pick_some(_DECISIVE, 2)
        telling = [
            sentence(pick(_TELLING), a=good, w=pick(POSITIVE)),
            sentence(pick(_TELLING), a=bad, w=pick(NEGATIVE)),
            sentence(pick(_DECIDING), a=(bad, good)[label]),
        ]
    else:
        telling = [sentence(pick(_EASY))]
        if rng.random() < 0.5:
            telling.append(sentence(pick(_EASY)))
    # Some of the easy ones say nothing else: people write such reviews.
    fillers = int(rng.integers(1 if hard else 0, 4))
    filler = [sentence(frame) for frame in pick_some(_FILLER, fillers)]
    sentences = telling + filler
    return " . ".join(sentences[i] for i in rng.permutation(len(sentences))) + " ."
