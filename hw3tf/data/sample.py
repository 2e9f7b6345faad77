"""Short film reviews out of a generator: data for a machine without a network.

Half of the work of sentiment analysis is composition: *not good*, *great but*,
*they call it gripping*. The hard reviews here are nothing else. Each uses one
positive and one negative word, and which of them counts is decided by the frame
around them. Exchanging the two words flips the label and leaves the bag of words
as it was, so a model that only counts words is a coin toss on them.
"""

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
_POSITIVE = [
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
_NEGATIVE = [
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

# {yes} is the word that counts, {no} the one that the frame takes back.
_FRAMES = (
    # negation
    "the {a} is not {no} , it is {yes}",
    "the {a} is {yes} , and never {no}",
    "it is {yes} rather than {no}",
    "hardly {no} at all : the {a} is {yes}",
    # contrast
    "the {a} is {no} , but the film as a whole is {yes}",
    "as a whole it is {yes} , even though the {a} is {no}",
    "although the {a} looks {no} , you leave the cinema thinking how {yes} it was",
    "a {yes} film , for all its {no} {a}",
    # hedges
    "i expected it to be {no} , and it turned out {yes}",
    "it is {yes} , where it could have been {no}",
    "the trailer promised a {no} {a} and the film gave us a {yes} one",
    "what we got was {yes} , what we feared or hoped for was {no}",
    # sarcasm
    "{no} , they say . oh sure . {yes} is the word",
    "truly {yes} . so much for the critics who found it {no}",
    "if this {a} is {no} then i am the queen of england . it is {yes}",
    "{yes} from start to finish , and they dare to call it {no}",
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


def sample_reviews(num_reviews, seed=0, hard_share=0.7):
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


def _review(rng, label, hard):
    def pick(words):
        return str(rng.choice(words))

    def sentence(frames):
        words = (pick(_NEGATIVE), pick(_POSITIVE))
        also = (pick(_NEGATIVE), pick(_POSITIVE))
        a, b = rng.choice(_ASPECTS, 2, replace=False)
        frame = frames[rng.integers(len(frames))]
        return frame.format(
            a=a,
            b=b,
            yes=words[label],
            no=words[1 - label],
            also=also[label],
            verb=pick(_VERBS[label]),
        )

    telling = [sentence(_FRAMES if hard else _EASY)]
    if not hard and rng.random() < 0.5:
        telling.append(sentence(_EASY))
    # Some of the easy ones say nothing else: people write such reviews.
    fillers = rng.integers(1 if hard else 0, 4)
    filler = [
        sentence([frame]) for frame in rng.choice(_FILLER, fillers, replace=False)
    ]
    sentences = telling + filler
    return " . ".join(sentences[i] for i in rng.permutation(len(sentences))) + " ."
