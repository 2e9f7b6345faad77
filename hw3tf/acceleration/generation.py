"""KerasHub's `generate()`: a cache of keys and values that is updated where it is.

KerasHub's causal models hold one tensor of shape `(batch, layers, 2, length, heads,
size)`. For each token they take it apart by layers, update the parts, and stack them
into a new one, so that all of the cache is written for each position. Here only the
positions of the token are read from the new tensor, and put into the old one. XLA,
which compiles the loop, then computes nothing else of the new tensor and updates the
old one where it is. The numbers in it are the same.

On TensorFlow, Keras lets XLA compile nothing on a CPU unless it is told to; here it
compiles `generate` of large batches, once for each shape of its inputs.
benchmarks/results/generation.json has times.
"""

import functools
import importlib
from typing import Any

import keras

from hw3tf.acceleration.coverage import Family, own_method, qualified_name
from hw3tf.acceleration.patches import attached, is_attached
from hw3tf.layers.fallback import Refused
from hw3tf.ops.branches import compiled_by_xla
from hw3tf.ops.paths import kernel_path

ops = keras.ops
# XLA's products of one row with a matrix are slow: with a batch of 1 some models took
# longer than in Keras, where nothing is compiled. A batch of 8 gains; none between was
# measured.
MIN_BATCH = 8
IN_PLACE = "the cache of keys and values is updated in place"

_trainer = importlib.import_module("keras.src.trainers.trainer")


def cache_in_place(model: Any) -> dict[str, Any] | None:
    """The attributes to replace on `model`; None for one without such a cache."""
    for cls in type(model).__mro__:
        if qualified_name(cls) in CAUSAL_MODELS:
            return _FAMILY.verdict(model, cls).attributes
    return None


def _replace(model: Any) -> dict[str, Any]:
    return {
        "call_with_cache": functools.partial(_call_with_cache, model),
        "make_generate_function": functools.partial(_make_generate_function, model),
    }


def note_on(model: Any) -> str:
    """What the report says of a model with the attributes of `cache_in_place`."""
    if keras.backend.backend() == "jax":
        return f"In `generate`, {IN_PLACE}."
    if not _can_be_compiled(model):
        return ""
    return f"`generate` of {MIN_BATCH} prompts or more is compiled by XLA: {IN_PLACE}."


def has_cache_in_place(model: Any) -> bool:
    """Whether `model` has the attributes of `cache_in_place`."""
    return is_attached(model) and "make_generate_function" in attached(model)


def _make_generate_function(model: Any) -> Any:
    if model.generate_function is not None:
        return model.generate_function
    as_in_keras = own_method(model, "make_generate_function")()
    if not _can_be_compiled(model):
        return as_in_keras
    by_xla = compiled_by_xla(model.generate_step)

    def generate(inputs: Any, stop_token_ids: Any = None) -> Any:
        batch = ops.shape(inputs["token_ids"])[0]
        large = isinstance(batch, int) and batch >= MIN_BATCH  # a tensor in a graph
        run = by_xla if large else as_in_keras
        return run(inputs, stop_token_ids=stop_token_ids)

    model.generate_function = generate
    return generate


def _can_be_compiled(model: Any) -> bool:
    """Whether XLA may compile functions of `model`: Keras's conditions but that of a
    processor other than the CPU."""
    if kernel_path(compiled=True).path != "xla":
        return False
    if model.run_eagerly or getattr(model, "_distribute_strategy", None) is not None:
        return False
    return bool(_trainer.model_supports_jit(model))


def _call_with_cache(
    model: Any, token_ids: Any, cache: Any, cache_update_index: Any
) -> tuple[Any, Any, Any]:
    if kernel_path().path not in ("xla", "ffi"):
        raise Refused("no compiler would leave out the copy")
    length, whole = ops.shape(token_ids)[1], ops.shape(cache)[3]
    if not (isinstance(length, int) and isinstance(whole, int)):
        raise Refused("the lengths are known only when the graph runs")
    own = own_method(model, "call_with_cache")
    logits, hidden_states, stacked = own(token_ids, cache, cache_update_index)
    updated = put_into(cache, stacked, cache_update_index, length)
    return logits, hidden_states, updated


def put_into(cache: Any, stacked: Any, start: Any, length: int) -> Any:
    """`cache` with the `length` positions of `stacked` from `start` on."""
    shape = ops.shape(stacked)
    if length == shape[3]:  # the prompt fills all of it
        return stacked
    at = [0, 0, 0, start, 0, 0]
    new = ops.slice(stacked, at, (*shape[:3], length, *shape[4:]))
    return ops.slice_update(cache, at, new)


_FAMILY = Family(_replace, ("call_with_cache", "make_generate_function"))
# Those whose cache is such a tensor and whose `call_with_cache` takes nothing else.
CAUSAL_MODELS = {
    f"keras_hub.src.models.{module}.{module}_causal_lm.{name}CausalLM"
    for module, name in {
        "bloom": "Bloom",
        "falcon": "Falcon",
        "gemma": "Gemma",
        "gpt2": "GPT2",
        "gpt_neo_x": "GPTNeoX",
        "gpt_oss": "GptOss",
        "llama": "Llama",
        "mistral": "Mistral",
        "mixtral": "Mixtral",
        "opt": "OPT",
        "phi3": "Phi3",
        "qwen": "Qwen",
        "qwen3": "Qwen3",
        "qwen3_moe": "Qwen3Moe",
        "qwen_moe": "QwenMoe",
        "smollm3": "SmolLM3",
    }.items()
}
