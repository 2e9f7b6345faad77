"""KerasHub's `generate()` on the kernel: the same tokens, from a cache of keys."""

import keras_hub
import numpy as np
import pytest
from acceleration_checks import randomize
from backbones import EXPERTS, GEMMA2, GROUPED, HEADS, QWEN3, models

import hw3tf

LENGTH, PROMPT = 12, 4

CAUSAL = {
    "gpt2": ("GPT2", HEADS, {}),
    "llama": ("Llama", GROUPED, {}),
    "gemma": ("Gemma", GROUPED | {"head_dim": 4}, GEMMA2),
    "qwen3": ("Qwen3", QWEN3, {}),
    "gpt_oss": ("GptOss", EXPERTS, {"head_dim": 4, "sliding_window": 3}),
    "bloom": ("Bloom", HEADS, {}),
}
SEEDS = {"bloom": 2}  # of weights with which it does not repeat one token


def causal_model(name):
    prefix, config, more = CAUSAL[name]
    backbone = getattr(models, f"{prefix}Backbone")(**config, **more)
    randomize(backbone, np.random.default_rng(SEEDS.get(name, 0)))
    model = getattr(models, f"{prefix}CausalLM")(backbone, preprocessor=None)
    model.compile(sampler="greedy")
    return model


def prompt():
    ids = np.zeros((2, LENGTH), "int32")
    ids[:, :PROMPT] = [[1, 5, 2, 7], [3, 4, 9, 0]]
    return {"token_ids": ids, "padding_mask": (ids > 0).astype("int32")}


@pytest.mark.parametrize("name", CAUSAL)
def test_generated_tokens_are_those_of_the_stock_model(name, kernel_calls):
    model = causal_model(name)
    stock = model.generate(prompt(), stop_token_ids=None)["token_ids"]
    assert not kernel_calls
    hw3tf.accelerate(model)
    fused = model.generate(prompt(), stop_token_ids=None)["token_ids"]
    np.testing.assert_array_equal(fused, stock)
    assert len(np.unique(stock[:, PROMPT:])) > 2

    # The step of the loop, traced: one query, all the keys of the cache, and its
    # mask taken as one of keys, not as a matrix of queries and keys.
    steps = [(q, k, options) for _, q, k, options in kernel_calls if q[1] == 1]
    assert len(steps) == 2
    for _, key, options in steps:
        assert key[1] == LENGTH
        assert options.mask is None or options.mask.shape[1:3] == (1, 1)


def test_key_heads_of_a_cache_are_not_repeated(kernel_calls):
    model = causal_model("llama")
    hw3tf.accelerate(model)
    model.generate(prompt(), stop_token_ids=None)
    assert {(q[2], k[2]) for _, q, k, _ in kernel_calls} == {(4, 2)}
    hw3tf.restore(model)
    assert model.generate_function is None
    kernel_calls.clear()
    model.generate(prompt(), stop_token_ids=None)
    assert not kernel_calls


def test_translation_with_a_cache_equals_stock(rng, kernel_calls):
    """Encoder and decoder: BART's cross attention reads a cache that never grows."""
    backbone = models.BartBackbone(**HEADS)
    randomize(backbone, rng)
    model = keras_hub.models.BartSeq2SeqLM(backbone, preprocessor=None)
    model.compile(sampler="greedy")
    inputs = {f"decoder_{k}": x for k, x in prompt().items()}
    inputs |= {f"encoder_{k}": x[:, :PROMPT] for k, x in prompt().items()}
    stock = model.generate(inputs, stop_token_ids=None)["decoder_token_ids"]
    hw3tf.accelerate(model)
    fused = model.generate(inputs, stop_token_ids=None)["decoder_token_ids"]
    np.testing.assert_array_equal(fused, stock)
    assert kernel_calls


def test_backbone_accelerated_before_the_task_is_fused_in_it(kernel_calls):
    backbone = models.GPT2Backbone(**HEADS)
    report = hw3tf.accelerate(backbone)
    model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
    model.compile(sampler="greedy")
    model.generate(prompt(), stop_token_ids=None)
    assert report.num_fused == 2
    assert kernel_calls
