"""KerasHub's `generate()` on the kernel: the same tokens, from a cache of keys."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from acceleration_checks import randomize
from backbones import BACKBONES, EXPERTS, GEMMA2, GROUPED, HEADS, QWEN3, models

import hw3tf
from hw3tf.acceleration import generation

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


@pytest.mark.parametrize("name", sorted(generation.CAUSAL_MODELS))
def test_a_call_changes_the_cache_only_where_it_writes(name, rng):
    """The cache of the old positions and the new one is what KerasHub stacks, at the
    prompt and at a token later."""
    module, class_name = name.split(".")[-3], name.split(".")[-1]
    backbone = BACKBONES[module][0]()
    randomize(backbone, rng)
    model = getattr(models, class_name)(backbone, preprocessor=None)
    shape = model._build_cache(np.ones((2, 7), "int32"))[1].shape
    assert len(shape) == 6
    cache = keras.ops.convert_to_tensor(rng.standard_normal(shape, "float32"))
    for start, ids in ((0, [[1, 5, 2], [3, 4, 9]]), (3, [[7], [2]]), (4, [[1], [8]])):
        ids, start = np.array(ids, "int32"), keras.ops.convert_to_tensor(start)
        stacked = model.call_with_cache(ids, cache, start)[2]
        found = generation.put_into(cache, stacked, start, ids.shape[1])
        np.testing.assert_array_equal(found, stacked)
        assert not np.array_equal(stacked, cache)
        cache = stacked


@pytest.fixture
def lengths(monkeypatch):
    """How many positions were put into a cache, in order."""
    found, put_into = [], generation.put_into

    def counted(cache, stacked, start, length):
        found.append(length)
        return put_into(cache, stacked, start, length)

    monkeypatch.setattr(generation, "put_into", counted)
    return found


def many(size=generation.MIN_BATCH):
    """That many prompts."""
    return {name: np.resize(x, (size, LENGTH)) for name, x in prompt().items()}


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_large_batch_is_compiled_and_gives_the_same_tokens(name, caplog, lengths):
    model = causal_model(name)
    stock = model.generate(many(), stop_token_ids=None)["token_ids"]
    report = hw3tf.accelerate(model)
    note = (
        "`generate` of 8 prompts or more is compiled by XLA: the cache of keys and "
        "values is updated in place."
    )
    assert report.notes == [note]
    assert note in str(report).splitlines()
    fused = model.generate(many(), stop_token_ids=None)["token_ids"]
    np.testing.assert_array_equal(fused, stock)
    assert lengths == [LENGTH, 1]
    assert not [r for r in caplog.records if "AutoGraph" in r.getMessage()]
    hw3tf.restore(model)
    assert not {"call_with_cache", "make_generate_function"} & vars(model).keys()
    model.generate(many(), stop_token_ids=None)
    assert len(lengths) == 2


def test_a_small_batch_is_left_to_keras(lengths):
    model = causal_model("gpt2")
    hw3tf.accelerate(model)
    function = model.make_generate_function()
    assert model.make_generate_function() is function
    assert not model.jit_compile
    few = many(generation.MIN_BATCH - 1)
    model.generate(few, stop_token_ids=None)
    assert lengths == []
    model.compile(sampler="greedy", jit_compile=True)  # as the user wants it
    model.generate(few, stop_token_ids=None)
    assert lengths == [LENGTH, 1]


def test_what_xla_cannot_compile_is_left_to_keras(lengths):
    model = causal_model("gpt2")
    model.backbone.layers[-1].supports_jit = False
    assert hw3tf.accelerate(model).notes == []
    model.generate(many(), stop_token_ids=None)
    assert lengths == []


def test_a_batch_that_is_known_when_the_graph_runs_is_left_to_keras(lengths):
    model = causal_model("gpt2")
    want = model.generate(many(), stop_token_ids=None)["token_ids"]
    hw3tf.accelerate(model)
    spec = tf.TensorSpec((None, LENGTH), "int32")

    @tf.function(input_signature=[{"token_ids": spec, "padding_mask": spec}])
    def serve(inputs):
        return model.make_generate_function()(inputs)["token_ids"]

    np.testing.assert_array_equal(serve(many()), want)
    assert lengths == []


def test_a_length_that_is_known_when_the_graph_runs(lengths):
    """Compiled by the user: there the cache is stacked, as in Keras."""
    model = causal_model("gpt2")
    hw3tf.accelerate(model)
    spec = tf.TensorSpec((None, None), "int32")
    traced = tf.function(
        model.generate_step,
        jit_compile=True,
        input_signature=[{"token_ids": spec, "padding_mask": spec}],
    )
    want = model.generate(prompt(), stop_token_ids=None)["token_ids"]
    np.testing.assert_array_equal(traced(prompt())["token_ids"], want)
    assert lengths == []


def test_eager_generation_stays_eager(lengths):
    model = causal_model("gpt2")
    model.compile(sampler="greedy", run_eagerly=True)
    assert hw3tf.accelerate(model).notes == []
    model.generate(many(), stop_token_ids=None)
    assert lengths == []


def test_a_model_of_a_strategy_is_left_to_keras(lengths):
    """As Keras does, which compiles none."""
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = causal_model("gpt2")
    hw3tf.accelerate(model)
    model.generate(many(), stop_token_ids=None)
    assert lengths == []


def test_a_forced_path_without_xla_leaves_generation_to_keras(monkeypatch, lengths):
    monkeypatch.setenv("HW3TF_PATH", "pybind")
    model = causal_model("gpt2")
    assert hw3tf.accelerate(model).notes == []
    model.generate(many(), stop_token_ids=None)
    assert lengths == []


@pytest.mark.parametrize("sampler", ["beam", "contrastive"])
def test_samplers_that_move_the_cache_give_the_same_tokens(sampler):
    model = causal_model("gpt2")
    options = {"k": 2, "alpha": 0.2} if sampler == "contrastive" else {}
    sampler = keras_hub.samplers.get(
        {"class_name": sampler, "config": options} if options else sampler
    )
    model.compile(sampler=sampler)
    stock = model.generate(many(), stop_token_ids=None)["token_ids"]
    hw3tf.accelerate(model)
    fused = model.generate(many(), stop_token_ids=None)["token_ids"]
    np.testing.assert_array_equal(fused, stock)


def test_a_cache_of_the_users_own_stays():
    class Own(models.GPT2CausalLM):
        def call_with_cache(self, *args):
            return super().call_with_cache(*args)

    report = hw3tf.accelerate(Own(models.GPT2Backbone(**HEADS), preprocessor=None))
    assert report.num_fused == 2
    assert report.notes == []


def test_the_change_goes_with_the_others_of_a_call():
    model = causal_model("gpt2")
    with hw3tf.accelerate(model):
        again = hw3tf.accelerate(model)
        assert (len(again.layers), again.num_fused) == (2, 2)  # without the model
        assert len(again.notes) == 1
        assert "call_with_cache" in vars(model)
    assert "call_with_cache" not in vars(model)
