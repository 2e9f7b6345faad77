"""BERT from KerasHub, frozen, with a recurrent head. Needs KerasHub (the extra
`bert`)."""

import argparse
import pathlib
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from hw3tf._types import Dataset
from hw3tf.acceleration import AccelerationReport, accelerate
from hw3tf.course import data
from hw3tf.course.sentiment.batches import divide
from hw3tf.course.sentiment.checkpoints import best_epoch_in
from hw3tf.course.sentiment.results import judge, judge_texts
from hw3tf.course.sentiment.training import fit, predict
from hw3tf.course.tutorial import UserError, require_package


def load_bert(preset: str, sequence_length: int) -> tuple[Any, Any]:
    """Loads a BERT backbone and its preprocessor.

    Args:
        preset: A name that KerasHub knows, such as `"bert_base_en_uncased"`, whose
            weights are downloaded once; or a folder that `save_to_preset` of both
            wrote; or an address such as `hf://...`.
        sequence_length: Tokens of a review, with the two that mark its ends.

    Returns:
        Tuple `(preprocessor, backbone)`: a `BertTextClassifierPreprocessor`, from
        strings to a dict of three integer tensors `(batch, sequence_length)`, and
        the `BertBackbone` that takes it.

    Raises:
        UserError: If KerasHub is missing, if there is no such preset, if it cannot be
            loaded, or if it has fewer positions.
    """
    require_package("keras_hub.models", "bert")
    from keras_hub.models import BertBackbone, BertTextClassifierPreprocessor

    known = sorted(BertBackbone.presets)
    if (
        preset not in known
        and "://" not in preset
        and not pathlib.Path(preset).is_dir()
    ):
        raise UserError(
            f"--preset {preset} is neither a folder nor one of {', '.join(known)}"
        )
    try:
        preprocessor = BertTextClassifierPreprocessor.from_preset(
            preset, sequence_length=sequence_length
        )
        backbone = BertBackbone.from_preset(preset)
    except Exception as error:
        # Of KerasHub, Keras, the file system or the server of the weights.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"--preset {preset} cannot be loaded: {reason}") from error
    if backbone.max_sequence_length < sequence_length:
        raise UserError(
            f"--preset {preset} has {backbone.max_sequence_length} positions, fewer "
            f"than --sequence-length {sequence_length}"
        )
    return preprocessor, backbone


def build_bert(
    backbone: keras.Model, units: int = 256, dropout: float = 0.25
) -> tuple[keras.Model, tuple[int, int], AccelerationReport]:
    """Freezes a backbone, puts its attention onto the kernel, and adds a head of two
    bidirectional GRU layers.

    Args:
        backbone: `keras_hub.models.BertBackbone`.
        units: Size of a GRU's state, in each direction. Defaults to 256.
        dropout: Rate before every layer of the head. Defaults to 0.25.

    Returns:
        Tuple of the model, from what the backbone takes to logits `(batch, 1)`; the
        numbers of trainable parameters before and after freezing; and the report of
        `hw3tf.accelerate`.

    Example:

    >>> preprocessor, backbone = load_bert("bert_tiny_en_uncased", 128)
    >>> model, (before, after), report = build_bert(backbone)
    >>> model(preprocessor(["a fine film"])).shape
    TensorShape([1, 1])
    """
    layers, inputs = keras.layers, backbone.input
    report = accelerate(backbone)
    # Its dropout stays off: what is frozen does not learn.
    x = backbone(inputs, training=False)["sequence_output"]
    mask = keras.ops.cast(inputs["padding_mask"], "bool")
    for last in (False, True):
        gru = layers.GRU(units, return_sequences=not last)
        x = layers.Bidirectional(gru)(layers.Dropout(dropout)(x), mask=mask)
    logits = layers.Dense(1, name="logits")(layers.Dropout(dropout)(x))
    model = keras.Model(inputs, logits, name="classifier")
    before = _count(model.trainable_weights)
    backbone.trainable = False
    return model, (before, _count(model.trainable_weights)), report


def run_bert(
    reviews: data.Reviews,
    settings: Any,
    compile_model: Callable[..., None],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Trains a head on a frozen BERT, and tests it.

    Args:
        reviews: `hw3tf.course.data.Reviews`.
        settings: A dataclass with `preset`, `sequence_length`, `batch_size`, `epochs`,
            `held_out`, `max_reviews` and `seed`.
        compile_model: Function of the model, the batches and the settings.
        args: With the folder `out` and `resume`.

    Returns:
        Dict with `accuracy`, `seconds`, `parameters`, and `trainable`: the numbers
        before and after freezing.

    Raises:
        UserError: If the preset or the checkpoint is no good.
    """
    import tensorflow as tf

    start = time.perf_counter()
    preprocess, backbone = load_bert(settings.preset, settings.sequence_length)
    model, counts, report = build_bert(backbone)
    print(report)
    print("trainable: {:,} parameters, {:,} with BERT frozen".format(*counts))

    def batches(texts: list[str], labels: np.ndarray) -> Dataset:
        dataset = tf.data.Dataset.from_tensor_slices((texts, np.float32(labels)))
        return dataset.batch(settings.batch_size).map(lambda x, y: (preprocess(x), y))

    training, validation = divide(reviews, settings, settings.held_out)
    training = batches(*training)
    compile_model(model, training, settings)
    checkpoint = best_epoch_in(args.out, "bert")
    fit(model, training, settings, batches(*validation), checkpoint, args.resume)
    test = batches(reviews.test_texts, reviews.test_labels).map(lambda x, y: x)
    seconds = time.perf_counter() - start
    results = {"seconds": seconds, "parameters": model.count_params()}
    results |= judge(reviews, predict(model, test))
    if args.text:
        logits = model(preprocess(args.text))[:, 0]
        results |= judge_texts(args.text, logits)
    return results | {"trainable": counts}


def _count(weights: list[keras.Variable]) -> int:
    return sum(int(np.prod(w.shape)) for w in weights)
