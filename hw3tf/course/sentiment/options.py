"""The command line of the program of tutorial 4, and what is checked at the start."""

import argparse
from typing import Any

from hw3tf.course import data, tutorial
from hw3tf.course.sentiment.checkpoints import best_epoch_in
from hw3tf.course.tutorial import (
    UserError,
    argument_parser,
    file_path,
    number,
    unicode_text,
)

MODELS = ("transformer", "gru", "lstm", "bag", "naive_bayes", "bert")
_NUMBERS = {
    "sequence_length": "longest review, in tokens",
    "embed_dim": "size of the vectors",
    "num_heads": "attention heads; divides embed-dim",
    "num_layers": "Transformer blocks",
    "epochs": "passes over the training set",
    "batch_size": "reviews per step",
    "max_reviews": "of the training set",
}
# The options that each model heeds, of those that not all do.
_NETWORK = {*_NUMBERS, "attention", "max_pool", "resume", "save", "unlabelled"}
_HEEDED = {
    "transformer": _NETWORK,
    "gru": _NETWORK - {"num_heads", "num_layers"},
    "lstm": _NETWORK - {"num_heads", "num_layers"},
    "bag": {"max_reviews"},
    "naive_bayes": {"max_reviews", "sequence_length"},
    "bert": {"sequence_length", "epochs", "batch_size", "max_reviews"}
    | {"preset", "resume"},
}
_SOME_HEED = set().union(*_HEEDED.values())


def parse_arguments(argv: list[str] | None, defaults: Any) -> argparse.Namespace:
    """Parses the command line.

    Args:
        argv: List of strings, or None for those of the program.
        defaults: Object with the default of every number, for `--help`.

    Returns:
        `argparse.Namespace`. Numbers, `model`, `attention` and `preset` are there only
        if they were given: what they are otherwise depends on the data and on `quick`.
    """
    parser = argument_parser(
        "Train one model of tutorial 4 to tell the sentiment of film reviews.",
        out="runs/imdb_sentiment",
        quick="fewer and shorter reviews: one minute",
        seed="of weights, order and dropout",
    )
    add, unset = parser.add_argument, argparse.SUPPRESS
    choices = ["auto", "imdb", "sample"]
    what = "auto: IMDB if it is prepared or can be downloaded, else the sample"
    add("--data", choices=choices, default="auto", help=what)
    what = "best: an ensemble, half an hour"
    add("--recipe", choices=["default", "best"], default="default", help=what)
    what = f"which row of the table (default: {defaults.model})"
    add("--model", choices=MODELS, default=unset, help=what)
    what = f"hw3tf's layers, Keras's, or no block (default: {defaults.attention})"
    choices = ["fused", "keras", "none"]
    add("--attention", choices=choices, default=unset, help=what)
    for name, what in _NUMBERS.items():
        what = f"{what} (default: {getattr(defaults, name) or 'all'})"
        add(f"--{name.replace('_', '-')}", type=number(1), default=unset, help=what)
    what = "pool by the maximum as well as by the mean"
    add("--max-pool", action="store_true", default=unset, help=what)
    what = "begin with word vectors that IMDB's 50,000 reviews without labels have made"
    add("--unlabelled", action="store_true", help=what)
    what = f"of BERT: a name or a folder (default: {defaults.preset})"
    add("--preset", default=unset, help=what)
    add("--resume", action="store_true", help="go on from the best epoch in --out")
    what = "processes that share the training"
    add("--workers", type=number(1), default=1, help=what)
    what = "a review to judge; repeatable"
    add("--text", type=unicode_text, action="append", default=[], help=what)
    add("--save", type=file_path, help="the .keras file; default: in --out")
    args = parser.parse_args(argv)
    _check(parser, args, defaults)
    return args


def _check(
    parser: argparse.ArgumentParser, args: argparse.Namespace, defaults: Any
) -> None:
    """What argparse cannot know."""
    given = vars(args)
    model = given.get("model", defaults.model)
    if args.recipe == "best" and model != "transformer":
        parser.error(f"--recipe best is of transformers, not of --model {model}")
    chosen, heeded = f"--model {model}", _HEEDED[model]
    if args.recipe == "best":
        chosen, heeded = "--recipe best", heeded - {"resume", "save", "unlabelled"}
    for name in sorted(_SOME_HEED - heeded):
        if given.get(name):
            parser.error(f"--{name.replace('_', '-')} has no part in {chosen}")
    dim = given.get("embed_dim", defaults.embed_dim)
    heads = given.get("num_heads", defaults.num_heads)
    if dim % heads:
        parser.error(f"--num-heads {heads} does not divide --embed-dim {dim}")
    networks = ("transformer", "gru", "lstm")
    alone = args.recipe == "best" or model not in networks
    if args.workers > 1 and alone:
        parser.error("--workers shares the training of one network, not of this")
    if args.workers > given.get("batch_size", defaults.batch_size):
        parser.error(f"--workers {args.workers} are more than a batch has reviews")
    if args.resume and args.workers > 1:
        parser.error("--resume goes on in one process, not with --workers")


def check_start(args: argparse.Namespace) -> None:
    """Checks before the work what can be known then, and makes the folder `args.out`.

    Args:
        args: From `parse_arguments`.

    Raises:
        UserError: If Keras runs on another backend than TensorFlow, a package is
            missing, a folder or file cannot be written, there is no checkpoint to
            resume from, or `TF_CONFIG` is wrong.
    """
    tutorial.require_tensorflow()
    tutorial.check_start(args, "sklearn", megabytes=200)
    if vars(args).get("model") == "bert":
        tutorial.require_package("keras_hub", "bert")
    if args.save:
        tutorial.prepare_file(args.save, ".keras", "--save")
    checkpoint = best_epoch_in(args.out, vars(args).get("model"))
    if args.resume and not checkpoint.is_file():
        raise UserError(f"--resume: there is no checkpoint {checkpoint}")
    if (args.out / "exported").is_file():
        raise UserError(f"{args.out / 'exported'} is a file, and a folder goes there")
    try:
        data.this_worker()
    except ValueError as error:
        raise UserError(error) from error


def run_workers(count: int, command: list[str]) -> None:
    """As `hw3tf.course.data.run_workers`; a worker that fails, and has said why, ends
    this process with the same exit status."""
    try:
        data.run_workers(count, command)
    except data.WorkerError as error:
        if error.status < 0:
            raise UserError(error) from error
        raise SystemExit(error.status) from None
