"""The command line of tutorial 4."""

import argparse
import pathlib

from hw3tf.tutorial import argument_parser

MODELS = ("transformer", "gru", "bag", "naive_bayes", "bert")
_NUMBERS = {
    "sequence_length": "longest review, in tokens",
    "embed_dim": "size of the vectors",
    "num_heads": "attention heads; divides embed-dim",
    "num_layers": "Transformer blocks",
    "epochs": "passes over the training set",
    "batch_size": "reviews per step",
    "max_reviews": "of the training set",
}


def parse_arguments(argv, defaults):
    """Parses the command line.

    Args:
        argv: List of strings, or None for those of the program.
        defaults: Object with the default of every number, for `--help`.

    Returns:
        `argparse.Namespace`. Numbers, `model`, `attention` and `preset` are there only
        if they were given: what they are otherwise depends on the data and on `quick`.
    """
    parser = argument_parser(
        "Train a Transformer to tell the sentiment of film reviews.",
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
    what = f"hw3tf's layer, Keras's, or no block (default: {defaults.attention})"
    choices = ["fused", "keras", "none"]
    add("--attention", choices=choices, default=unset, help=what)
    for name, what in _NUMBERS.items():
        what = f"{what} (default: {getattr(defaults, name) or 'all'})"
        add(f"--{name.replace('_', '-')}", type=_positive, default=unset, help=what)
    what = "pool by the maximum as well as by the mean"
    add("--max-pool", action="store_true", default=unset, help=what)
    what = f"of BERT: a name or a folder (default: {defaults.preset})"
    add("--preset", default=unset, help=what)
    add("--resume", action="store_true", help="go on from the best epoch in --out")
    add(
        "--workers", type=_positive, default=1, help="processes that share the training"
    )
    add("--text", action="append", default=[], help="a review to judge; repeatable")
    add("--save", type=pathlib.Path, help="the .keras file; default: in --out")
    args = parser.parse_args(argv)
    _check(parser, args, defaults)
    return args


def _check(parser, args, defaults):
    """What argparse cannot know."""
    given = vars(args)
    dim = given.get("embed_dim", defaults.embed_dim)
    heads = given.get("num_heads", defaults.num_heads)
    if dim % heads:
        parser.error(f"--num-heads {heads} does not divide --embed-dim {dim}")
    model = given.get("model", defaults.model)
    if args.recipe == "best" and model != "transformer":
        parser.error(f"--recipe best is of transformers, not of --model {model}")
    alone = args.recipe == "best" or model not in ("transformer", "gru")
    if args.workers > 1 and alone:
        parser.error("--workers shares the training of one network, not of this")
    if args.resume and args.workers > 1:
        parser.error("--resume goes on in one process, not with --workers")
    if args.resume and (args.recipe == "best" or model in ("bag", "naive_bayes")):
        parser.error("--resume needs a network that keeps its best epoch")


def _positive(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return int(text)
