"""The program beside the lesson: one model of tutorial 4 by its command line, trained,
tested and saved.

    python -m hw3tf.course.sentiment --model gru
    python -m hw3tf.course.sentiment --recipe best
    python -m hw3tf.course.sentiment --text "Not bad at all."

`tutorials/04_imdb_sentiment.py` takes the same options.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from hw3tf.course import data
from hw3tf.course.plots import save_figure
from hw3tf.course.plots import sentiment as draw
from hw3tf.course.sentiment import batches, bert, linear, options, results, training
from hw3tf.course.sentiment.checkpoints import best_epoch_in
from hw3tf.course.sentiment.model import (
    FOR_BERT,
    FOR_THE_SAMPLE,
    QUICK,
    Settings,
    build_classifier,
    compile_classifier,
    with_tokenizer,
)
from hw3tf.course.tutorial import claim, conclude, peak_memory, run

EXAMPLES = ("Justice League is terrible. I hated it.", "Avengers was great!!")

# The networks of `--recipe best`: what differs from the settings, and the seed.
MEMBERS: tuple[dict[str, Any], ...] = (
    {"attention": "none", "seed": 0},
    {"model": "gru", "seed": 1},
    {"seed": 2},
    {"model": "lstm", "seed": 3},
    {"attention": "none", "seed": 4},
    {"seed": 5},
)
NUM_QUICK_MEMBERS = 2

LEAST_ON_IMDB = {
    "bag": 0.88,
    "naive_bayes": 0.88,
    "gru": 0.91,
    "lstm": 0.91,
    "transformer": 0.915,
    "transformer without attention": 0.915,
    "the ensemble": 0.926,
}


def check_claims(found: dict[str, Any], quick: bool) -> None:
    """Checks what a run has found on IMDB, and the saved model.

    Args:
        found: The results of `main`.
        quick: Whether the run was a short one, whose accuracy is not judged.

    Raises:
        ClaimError: If a claim does not hold.
    """
    kind = found["model"]
    if kind == "transformer" and found["attention"] == "none":
        kind += " without attention"
    if found["recipe"] == "best":
        kind = "the ensemble"
    what = f"accuracy of {kind} on IMDB"
    judged = found["data"] == "imdb" and kind in LEAST_ON_IMDB
    if judged and quick:
        print(
            f"{what}: {LEAST_ON_IMDB[kind]} wanted in a full run; quick runs do not "
            f"judge it ({found['accuracy']:.4f} here)"
        )
    elif judged:
        claim(what, found["accuracy"], ">=", LEAST_ON_IMDB[kind])
    if "saved_difference" in found:
        negative, positive = found["probabilities"][:2]
        claim(f"probability that {EXAMPLES[0]!r} is positive", negative, "<", 0.5)
        claim(f"probability that {EXAMPLES[1]!r} is positive", positive, ">", 0.5)
        for name in ("saved", "exported"):
            what = f"difference of the {name} model from the trained one"
            claim(what, found[f"{name}_difference"], "<", 1e-5)
    whole = judged and not quick
    print("All claims hold." if whole else "All claims that this run judges hold.")


def run_network(
    reviews: data.Reviews, settings: Settings, args: argparse.Namespace
) -> dict[str, Any] | None:
    """Trains, tests, saves and explains a network.

    Returns:
        Dict of results; None of a worker that is not the chief.
    """
    start = time.perf_counter()
    tokenizer, features, train, validation, test = batches.load(reviews, settings)
    with args.strategy.scope():
        model = build_classifier(settings)
        if args.unlabelled:
            batches.start_from_unlabelled(model, tokenizer, reviews, settings)
        compile_classifier(model, train, settings)
        checkpoint = best_epoch_in(args.out)
        history, _ = training.fit(
            model, train, settings, validation, checkpoint, args.resume
        )
    seconds, worker = time.perf_counter() - start, data.this_worker()
    if worker:  # one is enough to test and to write
        return None
    if worker is None:
        curves = draw.learning_curves(history)
        save_figure(curves, args.out / "learning_curves.png")
    else:  # a model that asks no other worker
        weights, model = model.get_weights(), build_classifier(settings)
        model.set_weights(weights)
    found = {"seconds": seconds, "parameters": model.count_params()}
    logits = training.predict(model, test.map(lambda x, y: x))
    found |= results.judge(reviews, logits)
    results.print_mistakes(reviews, logits)
    right = (logits > 0) == (reviews.test_labels == 1)
    lengths = draw.lengths(right, results.num_words(reviews))
    save_figure(lengths, args.out / "lengths.png")
    whole, texts = with_tokenizer(tokenizer, features, model), [*EXAMPLES, *args.text]
    saved = args.save or args.out / "sentiment.keras"
    found |= results.save_and_compare(whole, texts, saved, args.out / "exported")
    known = tokenizer.knows(texts)
    results.print_judged(texts, found["probabilities"], known)
    print(f"Pictures and models are in {args.out}, the model in {saved}")
    return found


def member_logits(
    used: tuple[list[str], np.ndarray],
    asked: Sequence[str],
    settings: Settings,
    members: Sequence[dict[str, Any]],
) -> tuple[np.ndarray, np.ndarray, data.ReviewTokenizer]:
    """Trains the members of the ensemble.

    Args:
        used: Texts and labels to train on.
        asked: Texts to judge.
        settings: Of all networks, but for what `members` say.
        members: Per network, what differs from `settings`.

    Returns:
        The networks' logits for `asked`, their mean; those of the log-linear model; and
        the tokenizer.
    """
    texts, labels = used
    tokenizer, features, tokens, floats = batches.prepare(texts, labels, settings)
    found = tokenizer.tokenize(asked)
    to_judge = data.review_batches(found, None, features.of_ragged(found))
    every = []
    for number, member in enumerate(members, 1):
        own = replace(settings, **{**member, "seed": settings.seed + member["seed"]})
        print(f"network {number} of {len(members)}: {own.model}, {own.attention}")
        keras.utils.set_random_seed(own.seed)
        train = batches.training_batches(tokens, labels, floats, own)
        model = build_classifier(own)
        compile_classifier(model, train, own)
        training.fit(model, train, own)
        every.append(training.predict(model, to_judge))
    print("the log-linear model")
    whole = data.ReviewTokenizer(settings.vocab_size, LONGEST)
    whole.adapt(texts)
    train_tokens, asked_tokens = whole.tokenize(texts), whole.tokenize(asked)
    phrases = data.phrase_logits(train_tokens, labels, asked_tokens)
    return np.mean(every, axis=0), phrases, tokenizer


# Tokens of a review that the log-linear model reads; IMDB's longest has 2,500.
LONGEST = 4096


def run_best(
    reviews: data.Reviews, settings: Settings, args: argparse.Namespace
) -> dict[str, Any]:
    """The ensemble: chooses the weight of the log-linear model, trains all members on
    everything, tests once; returns results.

    Networks from other random numbers, and of other kinds, err on other reviews; a
    log-linear model with one weight for each of a million phrases on others still.
    Its weight is chosen on a fifth of the training reviews, which all members have been
    kept from. Then all are trained anew on all reviews.
    """
    start = time.perf_counter()
    members = MEMBERS[: NUM_QUICK_MEMBERS if args.quick else None]
    size = min(len(reviews.train_texts), settings.max_reviews or 10**9)
    used, (asked, truth) = batches.divide(reviews, settings, max(1, size // 5))
    networks, phrases, _ = member_logits(used, asked, settings, members)
    weight = data.stacking_weight(networks, phrases, truth)
    rates = [
        float(np.mean((logits > 0) == truth))
        for logits in (networks, phrases, networks + weight * phrases)
    ]
    print(
        f"validation: networks {rates[0]:.4f}, log-linear model {rates[1]:.4f}, "
        f"together, with weight {weight:.2f}, {rates[2]:.4f}"
    )
    everything, _ = batches.divide(reviews, settings, 0)
    asked = [*reviews.test_texts, *args.text]
    networks, phrases, tokenizer = member_logits(everything, asked, settings, members)
    logits = networks + weight * phrases
    found: dict[str, Any] = results.judge(reviews, logits[: len(reviews.test_texts)])
    found |= {"validation_accuracy": rates[2], "weight": weight}
    found |= {"seconds": time.perf_counter() - start}
    if not args.text:
        return found
    # A sum of models that agree is too sure of itself; their mean is not.
    mean = logits[len(reviews.test_texts) :] / (1 + weight)
    known = tokenizer.knows(args.text)
    return found | results.judge_texts(args.text, mean, known)


def settings_of(args: argparse.Namespace, sample: bool) -> Settings:
    """What the command line says, and for the rest the defaults of the data."""
    given = {k: v for k, v in vars(args).items() if k in Settings.__dataclass_fields__}
    defaults: dict[str, Any] = dict(FOR_THE_SAMPLE) if sample else {}
    defaults |= QUICK if args.quick else {}
    if given.get("model") == "bert":
        defaults |= FOR_BERT
    return replace(Settings(), **{**defaults, **given})


def run_model(
    reviews: data.Reviews, settings: Settings, args: argparse.Namespace
) -> dict[str, Any] | None:
    """Trains and tests what the command line asks for; returns results."""
    if args.recipe == "best":
        return run_best(reviews, settings, args)
    if settings.model == "bert":
        return bert.run_bert(reviews, settings, compile_classifier, args)
    if settings.model in ("bag", "naive_bayes"):
        return linear.run_linear(reviews, settings, args.text)
    return run_network(reviews, settings, args)


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    """Runs the program with the arguments `argv`, by default those of the command line;
    returns results, or None of a process that is not to report them."""
    args = options.parse_arguments(argv, Settings())
    options.check_start(args)
    if args.workers > 1 and data.this_worker() is None:
        data.load_reviews(args.data)  # before all of them would download them
        command = [sys.executable, "-m", "hw3tf.course.sentiment"]
        command += sys.argv[1:] if argv is None else argv
        options.run_workers(args.workers, command)
        return None
    args.strategy = data.worker_strategy()  # before TensorFlow computes
    reviews = data.load_reviews(args.data, unlabelled=args.unlabelled)
    settings = settings_of(args, reviews.name == "sample")
    print(f"Data: {reviews.name} - {reviews.origin}")
    keras.utils.set_random_seed(settings.seed)
    found = run_model(reviews, settings, args)
    if found is None:  # of a worker that is not the chief
        return None
    found |= {"data": reviews.name, "peak_mib": peak_memory()}
    found |= {"recipe": args.recipe, "model": settings.model}
    found["attention"] = settings.attention
    conclude("04_imdb_sentiment", found, lambda: check_claims(found, args.quick), args)
    return found


def command() -> None:
    """Runs the program; what goes wrong is one line."""
    run(main)
