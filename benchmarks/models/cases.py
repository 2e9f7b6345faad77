"""The models of models/run.py: sizes and bars, how they are built, their inputs."""

import dataclasses
import fnmatch
from collections.abc import Callable
from dataclasses import dataclass

# None may be slower than stock by more than 2 %.
NOT_SLOWER = 0.98


@dataclass(frozen=True)
class Case:
    """A model of KerasHub with random weights, and one call of it.

    `bar` is what stock's time divided by the accelerated one has to reach,
    `memory_bar` what the accelerated peak divided by stock's must not exceed. A case
    of `memory_only` is not timed.
    """

    name: str
    family: str
    batch: int
    length: int  # tokens; of ViT, pixels of a side
    layers: int
    width: int
    heads: int
    intermediate: int
    key_heads: int = 0
    vocabulary: int = 30_522
    training: bool = False
    memory_only: bool = False
    bar: float = NOT_SLOWER
    memory_bar: float | None = None

    def __str__(self):
        heads = f"{self.heads} heads"
        if self.key_heads:
            heads += f", {self.key_heads} of keys"
        size = f"{self.layers} layers of {self.width}, {heads}"
        call = "training, dropout 0.1" if self.training else "inference"
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
        heads=4,
        key_heads=min(2, case.key_heads),
        intermediate=32,
        vocabulary=50,
    )


def chosen(patterns):
    """The cases whose names match one of the patterns."""
    return [c for c in CASES.values() if any(fnmatch.fnmatch(c.name, p)
            for p in patterns)]  # fmt: skip


def build(case):
    """The model, compiled if it is to be trained."""
    import keras
    import keras_hub

    model = BUILDERS[case.family](case, keras_hub.models)
    if case.training:
        model = keras_hub.models.BertTextClassifier(
            model, num_classes=2, preprocessor=None, dropout=0.1
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-5), loss=loss)
    return model


def inputs(case, rng):
    """A dict or an array, full to the last token: padding would be to our advantage."""
    if case.family == "vit":
        shape = (case.batch, case.length, case.length, 3)
        return rng.standard_normal(shape, "float32")

    def some():
        return rng.integers(1, case.vocabulary, (case.batch, case.length), "int32")

    if case.family == "t5":
        parts = ("encoder", "decoder")
        return {f"{p}_token_ids": some() for p in parts} | {
            f"{p}_padding_mask": some() * 0 + 1 for p in parts
        }
    found = {"token_ids": some(), "padding_mask": some() * 0 + 1}
    if case.family == "bert":
        found["segment_ids"] = some() * 0
    return found


def beginning(case, given):
    """A short part of the inputs, to wake up what sleeps until a first call."""
    if case.family == "vit":
        return given[:1]
    return {name: x[:1, :16] for name, x in given.items()}


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
        **_layers_and_heads(case), max_sequence_length=case.length
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
