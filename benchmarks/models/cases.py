"""The models of models/run.py: sizes and bars, how they are built, their inputs."""

import dataclasses
import fnmatch
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# None may be slower than stock by more than 2 %.
NOT_SLOWER = 0.98


@dataclass(frozen=True)
class Case:
    """A model with random weights, of KerasHub or of recurrent layers, and one call of
    it.

    `bar` is what stock's time divided by the accelerated one has to reach,
    `memory_bar` what the accelerated peak divided by stock's must not exceed. A case
    of `memory_only` is not timed.
    """

    name: str
    family: str
    batch: int
    length: int  # tokens or steps; of ViT, pixels of a side
    layers: int
    width: int  # of recurrent layers, units
    heads: int = 0
    intermediate: int = 0
    key_heads: int = 0
    features: int = 0  # numbers or size of an embedding, at each step
    vocabulary: int = 30_522
    generated: int = 0  # tokens, one after the other, after a prompt of `length`
    training: bool = False
    memory_only: bool = False
    bar: float = NOT_SLOWER
    memory_bar: float | None = None

    def __str__(self):
        if self.family in RECURRENT:
            call = "training" if self.training else "inference"
            words = RECURRENT[self.family].words
            size = f"{self.layers} x {self.width} units"
            return f"{words}, {size}; {call}, batch {self.batch} of {self.length}"
        heads = f"{self.heads} heads"
        if self.key_heads:
            heads += f", {self.key_heads} of keys"
        size = f"{self.layers} layers of {self.width}, {heads}"
        call = "training, dropout 0.1" if self.training else "inference"
        if self.generated:
            call = f"generation of {self.generated} tokens"
        return f"{self.family}, {size}; {call}, batch {self.batch} of {self.length}"


BASE = {"layers": 12, "width": 768, "heads": 12, "intermediate": 3072}
LLAMA = {
    "family": "llama",
    "batch": 1,
    "layers": 8,
    "width": 1024,
    "heads": 16,
    "key_heads": 4,
    "intermediate": 2816,
}
# Prompts and tokens after them.
GENERATION = {
    "1": {"batch": 1, "length": 64, "generated": 32},
    "8": {"batch": 8, "length": 64, "generated": 32},
    "8-long": {"batch": 8, "length": 480, "generated": 16},
}
# A training step and a call of each, from the same sizes.
IN_TIME = [
    Case(f"{name}-{'training' if training else 'inference'}", **sizes,
         training=training, bar=1.5)
    for name, sizes in {
        "imdb-bilstm": {"family": "imdb", "batch": 32, "length": 200, "layers": 1,
                        "width": 64, "features": 128, "vocabulary": 20_000},
        "forecaster-lstm": {"family": "forecaster", "batch": 32, "length": 30,
                            "layers": 2, "width": 80, "features": 8},
        "fashion-rows-gru": {"family": "rows", "batch": 64, "length": 28, "layers": 1,
                             "width": 128, "features": 28},
        "characters-lstm": {"family": "characters", "batch": 64, "length": 100,
                            "layers": 2, "width": 256, "features": 64,
                            "vocabulary": 80},
        "dates-encoder-decoder": {"family": "dates", "batch": 64, "length": 30,
                                  "layers": 1, "width": 128, "features": 32,
                                  "vocabulary": 40},
    }.items()
    for training in (True, False)
]  # fmt: skip
CASES = {
    case.name: case
    for case in (
        Case("bert-base-128", "bert", 8, 128, **BASE),
        Case("bert-base-512", "bert", 8, 512, **BASE),
        Case("vit-base-224", "vit", 8, 224, **BASE),
        Case("gpt2-small-1024", "gpt2", 1, 1024, **BASE, bar=1.3),
        Case("llama-like-2048", length=2048, **LLAMA, bar=1.3),
        Case("t5-small-512", "t5", 4, 512, 6, 512, 8, 2048),
        Case("bert-small-training-512", "bert", 8, 512, 4, 512, 8, 2048,
             training=True, bar=1.3),
        Case("llama-like-4096", length=4096, **LLAMA, memory_only=True,
             memory_bar=0.25),
        *[Case(f"{name}-generation-{call}", **sizes | GENERATION[call], bar=1.3)
          for name, sizes in {"gpt2-small": {"family": "gpt2", **BASE},
                              "llama-like": LLAMA}.items() for call in GENERATION],
        *IN_TIME,
    )
}  # fmt: skip


def shrunk(case):
    """A tiny case of the same kind."""
    return dataclasses.replace(
        case,
        batch=2,
        length=32,
        layers=1,
        width=16,
        generated=min(16, case.generated),
        heads=4,
        key_heads=min(2, case.key_heads),
        intermediate=32,
        features=min(8, case.features),
        vocabulary=50,
    )


def chosen(patterns):
    """The cases whose names match one of the patterns."""
    return [c for c in CASES.values() if any(fnmatch.fnmatch(c.name, p)
            for p in patterns)]  # fmt: skip


def build(case):
    """The model, compiled if it is to be trained."""
    import keras

    if case.family in RECURRENT:
        model = RECURRENT[case.family].build(case, keras)
        loss = "mse"
        if case.family != "forecaster":
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if case.training:
            model.compile(keras.optimizers.Adam(), loss=loss)
        return model
    import keras_hub

    model = BUILDERS[case.family](case, keras_hub.models)
    if case.generated:
        task = {"gpt2": "GPT2CausalLM", "llama": "LlamaCausalLM"}[case.family]
        model = getattr(keras_hub.models, task)(model, preprocessor=None)
        model.compile(sampler="greedy")
    if case.training:
        model = keras_hub.models.BertTextClassifier(
            model, num_classes=2, preprocessor=None, dropout=0.1
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-5), loss=loss)
    return model


def inputs(case, rng):
    """A dict or an array, full to the last token: padding would be to our advantage."""
    if case.family in RECURRENT:
        return RECURRENT[case.family].inputs(case, rng)
    if case.family == "vit":
        shape = (case.batch, case.length, case.length, 3)
        return rng.standard_normal(shape, "float32")

    def some():
        return rng.integers(1, case.vocabulary, (case.batch, case.length), "int32")

    if case.generated:  # zeros where they will stand
        given = {"token_ids": some(), "padding_mask": some() * 0 + 1}
        space = (0, 0), (0, case.generated)
        return {name: np.pad(x, space) for name, x in given.items()}

    if case.family == "t5":
        parts = ("encoder", "decoder")
        return {f"{p}_token_ids": some() for p in parts} | {
            f"{p}_padding_mask": some() * 0 + 1 for p in parts
        }
    found = {"token_ids": some(), "padding_mask": some() * 0 + 1}
    if case.family == "bert":
        found["segment_ids"] = some() * 0
    return found


def labels(case):
    """What training wants of each entry of the batch, or of each of its steps."""
    if case.family == "forecaster":
        return np.ones((case.batch, 1), "float32")
    shape = (case.batch,)
    if case.family in ("characters", "dates"):
        shape += (OUTPUT_STEPS if case.family == "dates" else case.length,)
    return np.arange(np.prod(shape)).reshape(shape) % 2


def beginning(case, given):
    """A short part of the inputs, to wake up what sleeps until a first call."""
    if case.family in RECURRENT and isinstance(given, dict):
        return {name: x[:1] for name, x in given.items()}
    if case.family == "vit" or case.family in RECURRENT:
        return given[:1]
    start = max(0, case.length - 8) if case.generated else 0
    return {name: x[:1, start : start + 16] for name, x in given.items()}


def _layers_and_heads(case):
    return {
        "vocabulary_size": case.vocabulary,
        "num_layers": case.layers,
        "num_heads": case.heads,
        "hidden_dim": case.width,
        "intermediate_dim": case.intermediate,
    }


def _bert(case, models):
    return models.BertBackbone(
        **_layers_and_heads(case), max_sequence_length=case.length
    )


def _gpt2(case, models):
    return models.GPT2Backbone(
        **_layers_and_heads(case), max_sequence_length=case.length + case.generated
    )


def _t5(case, models):
    return models.T5Backbone(**_layers_and_heads(case))


def _llama(case, models):
    return models.LlamaBackbone(
        vocabulary_size=case.vocabulary,
        num_layers=case.layers,
        num_query_heads=case.heads,
        num_key_value_heads=case.key_heads,
        hidden_dim=case.width,
        intermediate_dim=case.intermediate,
    )


def _vit(case, models):
    return models.ViTBackbone(
        image_shape=(case.length, case.length, 3),
        patch_size=16,
        num_layers=case.layers,
        num_heads=case.heads,
        hidden_dim=case.width,
        mlp_dim=case.intermediate,
    )


BUILDERS: dict[str, Callable] = {
    "bert": _bert,
    "gpt2": _gpt2,
    "llama": _llama,
    "t5": _t5,
    "vit": _vit,
}


# -- Models of recurrent layers

OUTPUT_STEPS = 10  # of a date, 2026-11-29


@dataclass(frozen=True)
class Recurrent:
    """How such a model is built, its inputs, and what it is called."""

    words: str
    build: Callable
    inputs: Callable


def _tokens(case, rng, length=None):
    shape = case.batch, length or case.length
    return rng.integers(1, case.vocabulary, shape, "int32")


def _numbers(case, rng):
    return rng.standard_normal((case.batch, case.length, case.features), "float32")


def _imdb(case, keras):
    """Of a review, whether it is positive."""
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(case.vocabulary, case.features),
            keras.layers.Bidirectional(keras.layers.LSTM(case.width)),
            keras.layers.Dense(2),
        ]
    )


def _forecaster(case, keras):
    """Of a time series, its next number."""
    layers = [
        keras.layers.LSTM(case.width, return_sequences=number + 1 < case.layers)
        for number in range(case.layers)
    ]
    inputs = keras.Input((None, case.features))
    return keras.Sequential([inputs, *layers, keras.layers.Dense(1)])


def _rows(case, keras):
    """Of an image, read row by row, its class."""
    inputs = keras.Input((None, case.features))
    return keras.Sequential(
        [inputs, keras.layers.GRU(case.width), keras.layers.Dense(10)]
    )


def _characters(case, keras):
    """Of each character of a text, the next one."""
    layers = [
        keras.layers.LSTM(case.width, return_sequences=True) for _ in range(case.layers)
    ]
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(case.vocabulary, case.features),
            *layers,
            keras.layers.Dense(case.vocabulary),
        ]
    )


def _dates(case, keras):
    """Of a date in words, the date in figures: the encoder's states begin the
    decoder."""
    source = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    embed = keras.layers.Embedding(case.vocabulary, case.features)
    _, *states = keras.layers.LSTM(case.width, return_state=True)(embed(source))
    decoder = keras.layers.LSTM(case.width, return_sequences=True)
    y = decoder(embed(target), initial_state=states)
    given = {"source": source, "target": target}
    return keras.Model(given, keras.layers.Dense(case.vocabulary)(y))


def _source_and_target(case, rng):
    target = _tokens(case, rng, OUTPUT_STEPS)
    return {"source": _tokens(case, rng), "target": target}


RECURRENT = {
    "imdb": Recurrent("IMDB classifier, bidirectional LSTM", _imdb, _tokens),
    "forecaster": Recurrent("time-series forecaster, LSTM", _forecaster, _numbers),
    "rows": Recurrent("Fashion-MNIST by rows, GRU", _rows, _numbers),
    "characters": Recurrent("character model, LSTM", _characters, _tokens),
    "dates": Recurrent("encoder-decoder for dates, LSTM", _dates, _source_and_target),
}
