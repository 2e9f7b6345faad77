"""The parts of tutorial 4 that it does not teach: batches and command line, training
that can be interrupted, BERT from KerasHub, results and pictures."""

from hw3tf.course.sentiment.batches import (
    divide,
    load,
    prepare,
    training_batches,
)
from hw3tf.course.sentiment.bert import build_bert, load_bert, run_bert
from hw3tf.course.sentiment.checkpoints import BestCheckpoint, load_checkpoint
from hw3tf.course.sentiment.linear import run_linear
from hw3tf.course.sentiment.options import check_start, parse_arguments, run_workers
from hw3tf.course.sentiment.results import (
    draw_attention,
    explain,
    judge,
    judge_texts,
    print_judged,
    save_and_compare,
)
from hw3tf.course.sentiment.training import fit, memory_of_a_step, predict

__all__ = [
    "BestCheckpoint",
    "build_bert",
    "check_start",
    "divide",
    "draw_attention",
    "explain",
    "fit",
    "judge",
    "judge_texts",
    "load",
    "load_bert",
    "load_checkpoint",
    "memory_of_a_step",
    "parse_arguments",
    "predict",
    "prepare",
    "print_judged",
    "run_bert",
    "run_linear",
    "run_workers",
    "save_and_compare",
    "training_batches",
]
