"""The parts of tutorial 4 that it does not teach: its models and batches, training
that can be interrupted, BERT from KerasHub, results, and the program for one model."""

from hw3tf.course.sentiment.batches import (
    Corpus,
    divide,
    load,
    make_corpus,
    prepare,
    start_from_unlabelled,
    training_batches,
)
from hw3tf.course.sentiment.bert import build_bert, load_bert, run_bert
from hw3tf.course.sentiment.checkpoints import BestCheckpoint, load_checkpoint
from hw3tf.course.sentiment.linear import run_linear
from hw3tf.course.sentiment.model import (
    Settings,
    build_classifier,
    compile_classifier,
    settings_for,
    transformer_block,
    with_tokenizer,
)
from hw3tf.course.sentiment.options import check_start, parse_arguments, run_workers
from hw3tf.course.sentiment.program import command
from hw3tf.course.sentiment.results import (
    attention_weights,
    judge,
    judge_texts,
    num_words,
    print_judged,
    print_mistakes,
    save_and_compare,
)
from hw3tf.course.sentiment.training import fit, memory_of_a_step, predict

__all__ = [
    "BestCheckpoint",
    "Corpus",
    "Settings",
    "attention_weights",
    "build_bert",
    "build_classifier",
    "check_start",
    "command",
    "compile_classifier",
    "divide",
    "fit",
    "judge",
    "judge_texts",
    "load",
    "load_bert",
    "load_checkpoint",
    "make_corpus",
    "memory_of_a_step",
    "num_words",
    "parse_arguments",
    "predict",
    "prepare",
    "print_judged",
    "print_mistakes",
    "run_bert",
    "run_linear",
    "run_workers",
    "save_and_compare",
    "settings_for",
    "start_from_unlabelled",
    "training_batches",
    "transformer_block",
    "with_tokenizer",
]
