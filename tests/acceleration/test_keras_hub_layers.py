"""KerasHub's attention layers by themselves, with the options that the models in
backbones.py do not use."""

import numpy as np
import pytest
from acceleration_checks import (
    assert_equal_up_to_rounding,
    moved_by_rounding,
    outputs,
    randomize,
)
from keras_hub.src.models.gemma3.gemma3_attention import CachedGemma3Attention
from keras_hub.src.models.gemma3.gemma3_vision_encoder import Gemma3VisionAttention
from keras_hub.src.models.gemma4.gemma4_attention import (
    Gemma4TextAttention,
    Gemma4VisionAttention,
)
from keras_hub.src.models.gpt_oss.gpt_oss_attention import GptOssAttention
from keras_hub.src.models.qwen_moe.qwen_moe_attention import QwenMoeAttention
from keras_hub.src.models.sam.sam_layers import MultiHeadAttentionWithDownsampling
from keras_hub.src.models.t5.t5_multi_head_attention import T5MultiHeadAttention
from keras_hub.src.models.video_prism.video_prism_layers import VideoPrismAttention

import hw3tf

LENGTH = 7
LOWER = np.tile(np.tri(LENGTH, dtype=bool), (2, 1, 1))
# Query 3 of the first sequence and all of the second see nothing.
NO_KEY_SEEN = (
    LOWER & (np.arange(LENGTH) != 3)[:, None] & np.array([True, False])[:, None, None]
)
KEYS = np.arange(LENGTH) < np.array([[LENGTH], [3]])
BIAS = np.where(LOWER, 0, -1e9)[:, None].astype("float32")
GROUPS = {"num_query_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
WINDOW = {"use_sliding_window_attention": True, "sliding_window_size": 3}
CAPPED = GROUPS | {"logit_soft_cap": 2.0}
BOTH_WAYS = GROUPS | WINDOW | {"use_bidirectional_attention": True}
GROUPED = {k: GROUPS[k] for k in ("num_query_heads", "num_key_value_heads")}
PRISM = {"num_heads": 2, "key_dim": 4, "hidden_dim": 8}

SAME = object()  # x again, as another input
# class, its arguments, those of the call beside x
CASES = {
    "gemma3, both ways": (
        CachedGemma3Attention,
        BOTH_WAYS,
        {"attention_mask": NO_KEY_SEEN},
    ),
    "gemma3, no key seen": (
        CachedGemma3Attention,
        CAPPED,
        {"attention_mask": NO_KEY_SEEN},
    ),
    "gemma3, vision": (
        Gemma3VisionAttention,
        {"hidden_dim": 8, "num_heads": 2},
        {"attention_mask": BIAS},
    ),
    "gemma4, capped": (Gemma4TextAttention, CAPPED, {"attention_mask": LOWER}),
    "gemma4, vision": (Gemma4VisionAttention, CAPPED, {"attention_mask": KEYS}),
    "gpt_oss, no window": (
        GptOssAttention,
        GROUPED | {"sliding_window": None},
        {"attention_mask": NO_KEY_SEEN},
    ),
    "gpt_oss, window": (
        GptOssAttention,
        GROUPED | {"sliding_window": 2},
        {"attention_mask": LOWER},
    ),
    "qwen_moe, window": (
        QwenMoeAttention,
        GROUPED | WINDOW,
        {"attention_mask": NO_KEY_SEEN},
    ),
    "sam": (
        MultiHeadAttentionWithDownsampling,
        {"num_heads": 2, "key_dim": 4, "downsample_rate": 2},
        {"value": SAME, "key": SAME},
    ),
    "t5, cross": (
        T5MultiHeadAttention,
        {
            "is_decoder": True,
            "hidden_dim": 8,
            "key_value_dim": 4,
            "num_heads": 2,
            "dropout": 0.1,
        },
        {"mask": KEYS[:, None], "key_value_states": SAME},
    ),
    "video_prism, keys": (
        VideoPrismAttention,
        PRISM,
        {"value": SAME, "attention_mask": KEYS},
    ),
    "video_prism, scaled": (
        VideoPrismAttention,
        PRISM | {"use_per_dim_scale": True, "attention_logit_soft_cap": 2.0},
        {"value": SAME, "attention_mask": LOWER},
    ),
}


@pytest.mark.filterwarnings("ignore:.*with a mask attached to it")  # T5
@pytest.mark.parametrize("name", CASES)
def test_layer_equals_stock(name, rng, kernel_calls):
    make, arguments, call = CASES[name]
    layer = make(**arguments)
    x = rng.standard_normal((2, LENGTH, 16 if "num_query_heads" in arguments else 8))
    call = {k: x if v is SAME else v for k, v in call.items()}

    def results(layer, x):  # the output alone: others return the weights, too
        return outputs(lambda x: layer(x, **call), x)[:1]

    results(layer, x)
    randomize(layer, rng)
    stock = results(layer, x)
    moved = moved_by_rounding(layer, x, rng, stock, results)
    assert hw3tf.accelerate(layer).num_fused == 1
    assert_equal_up_to_rounding(results(layer, x), stock, moved, name)
    assert len(kernel_calls) == 1


def test_weights_that_are_asked_for_come_from_stock(rng, kernel_calls):
    layer = Gemma3VisionAttention(hidden_dim=8, num_heads=2)
    x = rng.standard_normal((2, LENGTH, 8))
    layer(x)
    hw3tf.accelerate(layer)
    assert layer(x)[1] is None
    weights = layer(x, return_attention_scores=True)[1]
    np.testing.assert_allclose(np.sum(weights, axis=-1), 1, rtol=1e-6)
    assert len(kernel_calls) == 1
