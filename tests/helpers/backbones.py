"""The smallest KerasHub models that still have everything: two layers where layers
differ, grouped heads, windows, masks that hide something."""

import keras_hub
import numpy as np

models = keras_hub.models
BATCH, LENGTH, VOCABULARY = 2, 9, 13
IMAGE = (16, 16, 3)

SMALL = {"vocabulary_size": VOCABULARY, "num_layers": 2, "intermediate_dim": 12}
HEADS = SMALL | {"num_heads": 2, "hidden_dim": 8}
GROUPED = SMALL | {"num_query_heads": 4, "num_key_value_heads": 2, "hidden_dim": 16}
VISION = {"patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 8}
PIXELS = VISION | {"intermediate_dim": 12, "image_shape": IMAGE}
EXPERTS = GROUPED | {"num_experts": 2, "top_k": 2}


def tokens(length=LENGTH):
    """Tokens of two sequences, the second of which is padded."""
    ids = np.arange(BATCH * length).reshape(BATCH, length) % (VOCABULARY - 1) + 1
    mask = np.arange(length) < np.array([[length], [length - 3]])
    return {"token_ids": ids * mask, "padding_mask": mask.astype("int32")}


def segments():
    return tokens() | {"segment_ids": np.ones((BATCH, LENGTH), "int32")}


def pairs():
    """Of an encoder and a decoder."""
    names = ("encoder", 7), ("decoder", 5)
    return {f"{k}_{n}": x for k, length in names for n, x in tokens(length).items()}


def pixels(shape=IMAGE):
    return np.random.default_rng(1).standard_normal((BATCH, *shape), np.float32)


def images():
    return {"images": pixels()}


def pictures_and_text():
    return {"images": pixels(), "token_ids": tokens(6)["token_ids"]}


def clip(name):
    text = HEADS | {"embedding_dim": 8, "max_sequence_length": 6}
    vision = getattr(models, f"{name}VisionEncoder")(**PIXELS)
    encoder = getattr(models, f"{name}TextEncoder")(**text)
    more = {} if name == "SigLIP" else {"projection_dim": 8}
    return getattr(models, f"{name}Backbone")(vision, encoder, **more)


def gemma3():
    vision = models.Gemma3VisionEncoder(
        image_size=16, patch_size=4, pool_size=2, num_layers=1, num_heads=2,
        hidden_dim=8, intermediate_dim=12, output_dim=16,
    )  # fmt: skip
    return models.Gemma3Backbone(
        **GROUPED | {"num_layers": 6}, head_dim=4, image_size=16, vision_encoder=vision,
        use_sliding_window_attention=True, sliding_window_size=3,
    )  # fmt: skip


def gemma3_inputs():
    ids = tokens(12)
    return ids | {
        "images": pixels((1, *IMAGE)),
        "vision_indices": np.tile(np.arange(1, 5), (BATCH, 1)),
        "vision_mask": np.tile(np.isin(np.arange(12), np.arange(1, 5)), (BATCH, 1)),
    }


def pali_gemma():
    return models.PaliGemmaBackbone(
        **GROUPED, head_dim=4, image_size=16, vit_patch_size=8, vit_num_heads=2,
        vit_hidden_dim=8, vit_num_layers=1,
    )  # fmt: skip


def pali_gemma_inputs():
    response = np.arange(LENGTH) > 4
    return tokens() | {
        "images": pixels(),
        "response_mask": np.tile(response, (BATCH, 1)).astype("int32"),
    }


def blip2():
    vision = models.BLIP2VisionEncoder(
        image_size=16, patch_size=8, num_layers=1, num_heads=2, hidden_dim=8,
        intermediate_dim=12, use_patch_bias=True, use_class_token=True,
        use_mha_bias=True, use_mlp_bias=True, dropout_rate=0.0,
        layer_norm_epsilon=1e-6, initializer_range=0.02,
    )  # fmt: skip
    return vision


def depth_anything():
    shape = {"image_shape": (48, 48, 3), "position_embedding_shape": (48, 48, 3)}
    encoder = models.DINOV2Backbone(**PIXELS | {"num_layers": 4} | shape)
    return models.DepthAnythingBackbone(
        encoder, reassemble_factors=[4, 2, 1, 0.5], neck_hidden_dims=[4] * 4,
        fusion_hidden_dim=4, head_hidden_dim=4, head_in_index=-1,
        feature_keys=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip


def edrec():
    return models.EdRecBackbone(
        vocab_size=VOCABULARY, num_layers_enc=1, num_layers_dec=1, hidden_dim=8,
        intermediate_dim=8, num_heads=2,
    )  # fmt: skip


def gemma4():
    return models.Gemma4Backbone(
        **GROUPED, head_dim=8, image_size=16, sliding_window_size=3,
        sliding_window_pattern=2,
    )  # fmt: skip


def gemma4_inputs():
    positions = np.tile(np.arange(LENGTH), (BATCH, 1))
    return tokens() | {"position_ids": positions}


def mit():
    return models.MiTBackbone(
        layerwise_depths=[1, 1], num_layers=2, layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1], max_drop_path_rate=0.1, hidden_dims=[8, 8],
        layerwise_patch_sizes=[3, 3], layerwise_strides=[4, 2], image_shape=(32, 32, 3),
    )  # fmt: skip


def parseq():
    return models.PARSeqBackbone(
        image_encoder=models.ViTBackbone(**VISION, mlp_dim=12, image_shape=IMAGE),
        vocabulary_size=VOCABULARY, max_label_length=5, decoder_hidden_dim=8,
        num_decoder_layers=2, num_decoder_heads=2, decoder_mlp_dim=8,
    )  # fmt: skip


def video_prism():
    return models.VideoPrismBackbone(
        num_frames=2, patch_size=8, hidden_dim=8, intermediate_dim=8, num_heads=2,
        num_spatial_layers=1, num_temporal_layers=1, num_auxiliary_layers=0,
        attention_logit_soft_cap=5.0, image_shape=IMAGE,
    )  # fmt: skip


def t5_gemma(name, **more):
    sizes = {
        "hidden_dim": 16, "intermediate_dim": 12, "num_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
        "layer_types": ["sliding_attention", "full_attention"],
    }  # fmt: skip
    both = {f"{k}_{n}": x for k in ("encoder", "decoder") for n, x in sizes.items()}
    return getattr(models, name)(
        vocabulary_size=VOCABULARY, sliding_window=3, query_pre_attn_scalar=4.0,
        attn_logit_softcapping=5.0, **both, **more,
    )  # fmt: skip


def smollm3():
    return models.SmolLM3Backbone(
        vocabulary_size=VOCABULARY, hidden_dim=16, intermediate_dim=12, num_layers=2,
        num_attention_heads=4, num_key_value_heads=2, attention_bias=False,
        attention_dropout=0.0, rope_layer_enabled_list=[True, False],
        layer_types=["full_attention"] * 2, mlp_bias=False, layer_norm_epsilon=1e-5,
        max_position_embeddings=32, rope_theta=1e4, partial_rotary_factor=1.0,
    )  # fmt: skip


def whisper_inputs():
    decoder = tokens(5)
    return {
        "encoder_features": pixels((10, 4)),
        "decoder_token_ids": decoder["token_ids"],
        "decoder_padding_mask": decoder["padding_mask"],
    }


def moonshine():
    return models.MoonshineBackbone(
        vocabulary_size=VOCABULARY, filter_dim=16, encoder_num_layers=2,
        decoder_num_layers=2, hidden_dim=16, intermediate_dim=12, encoder_num_heads=2,
        decoder_num_heads=2,
    )  # fmt: skip


def moonshine_inputs():
    decoder = tokens(5)
    return {
        "encoder_input_values": pixels((1600, 1)),
        "encoder_padding_mask": np.ones((BATCH, 1600), "int32"),
        "decoder_token_ids": decoder["token_ids"],
        "decoder_padding_mask": decoder["padding_mask"],
    }


def stable_diffusion():
    """Only the transformer: the text encoders are CLIP and T5."""
    from keras_hub.src.models.stable_diffusion_3.mmdit import MMDiT

    return MMDiT(
        patch_size=2, hidden_dim=8, num_layers=2, num_heads=2, position_size=8,
        qk_norm="rms_norm", dual_attention_indices=(0,), latent_shape=(8, 8, 4),
        context_shape=(None, 8), pooled_projection_shape=(8,),
    )  # fmt: skip


def stable_diffusion_inputs():
    return {
        "latent": pixels((8, 8, 4)),
        "context": pixels((5, 8)),
        "pooled_projection": pixels((8,)),
        "timestep": np.array([[3.0], [7.0]], "float32"),
    }


def gemma(**more):
    return models.GemmaBackbone(**GROUPED, head_dim=4, **more)


QWEN3 = GROUPED | {"head_dim": 4, "sliding_window_size": 3}
GEMMA2 = {
    "use_sliding_window_attention": True,
    "sliding_window_size": 3,
    "attention_logit_soft_cap": 5.0,
    "query_head_dim_normalize": False,
}
QWEN3_5 = QWEN3 | {
    "partial_rotary_factor": 0.5,
    "layer_types": ["full_attention", "linear_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
}
MOE = {"moe_intermediate_dim": 8, "num_experts": 2, "top_k": 2}
SHARED = MOE | {"shared_expert_intermediate_dim": 8}

# name: (a function that builds it, one for its inputs, calls of the kernel)
BACKBONES = {
    "albert": (lambda: models.AlbertBackbone(**HEADS, embedding_dim=8), segments, 2),
    "bart": (lambda: models.BartBackbone(**HEADS), pairs, 6),
    "bert": (lambda: models.BertBackbone(**HEADS), segments, 2),
    "blip2_vision": (blip2, pixels, 1),
    "bloom": (lambda: models.BloomBackbone(**HEADS), tokens, 2),
    "clip": (lambda: clip("CLIP"), pictures_and_text, 4),
    "deit": (lambda: models.DeiTBackbone(**PIXELS), pixels, 2),
    "depth_anything": (depth_anything, lambda: pixels((48, 48, 3)), 4),
    "dinov2": (
        lambda: models.DINOV2Backbone(**PIXELS, position_embedding_shape=IMAGE),
        images,
        2,
    ),
    "dinov3": (
        lambda: models.DINOV3Backbone(**PIXELS), lambda: {"pixel_values": pixels()}, 2,
    ),
    "distil_bert": (lambda: models.DistilBertBackbone(**HEADS), tokens, 2),
    "edrec": (edrec, pairs, 3),
    "electra": (
        lambda: models.ElectraBackbone(
            vocab_size=VOCABULARY, embedding_dim=8, **HEADS | {"vocabulary_size": 0}
        ),
        segments,
        2,
    ),
    "esm": (
        lambda: models.ESMBackbone(**HEADS),
        lambda: {"token_ids": tokens()["token_ids"]},
        2,
    ),
    "falcon": (
        lambda: models.FalconBackbone(
            **SMALL, num_attention_heads=2, hidden_dim=8, attention_dropout_rate=0.1
        ),
        tokens,
        2,
    ),
    "gemma": (gemma, tokens, 2),
    "gemma2": (lambda: gemma(**GEMMA2), tokens, 2),
    "gemma3": (gemma3, gemma3_inputs, 7),
    "gemma4": (gemma4, gemma4_inputs, 2),
    "gpt2": (lambda: models.GPT2Backbone(**HEADS), tokens, 2),
    "gpt_neo_x": (lambda: models.GPTNeoXBackbone(
            **HEADS, dropout=0.1, rotary_percentage=0.5
        ), tokens, 2),
    "gpt_oss": (
        lambda: models.GptOssBackbone(**EXPERTS, head_dim=4, sliding_window=3),
        tokens,
        2,
    ),
    "llama": (lambda: models.LlamaBackbone(**GROUPED), tokens, 2),
    "llama3": (lambda: models.Llama3Backbone(**GROUPED), tokens, 2),
    "metaclip2": (lambda: clip("MetaCLIP2"), pictures_and_text, 4),
    "mistral": (
        lambda: models.MistralBackbone(**GROUPED, sliding_window=3), tokens, 2,
    ),
    "mit": (mit, lambda: pixels((32, 32, 3)), 2),
    "mixtral": (
        lambda: models.MixtralBackbone(**EXPERTS, sliding_window=3), tokens, 2,
    ),
    "moonshine": (moonshine, moonshine_inputs, 6),
    "opt": (lambda: models.OPTBackbone(**HEADS), tokens, 2),
    "pali_gemma": (pali_gemma, pali_gemma_inputs, 3),
    "parseq": (parseq, lambda: tokens(5) | images(), 8),
    "phi3": (lambda: models.Phi3Backbone(**GROUPED), tokens, 2),
    "qwen": (
        lambda: models.QwenBackbone(
            **GROUPED, use_sliding_window_attention=True, sliding_window_size=3
        ),
        tokens,
        2,
    ),
    "qwen3": (lambda: models.Qwen3Backbone(**QWEN3), tokens, 2),
    "qwen3_5": (lambda: models.Qwen3_5Backbone(**QWEN3_5), tokens, 1),
    "qwen3_moe": (lambda: models.Qwen3MoeBackbone(**QWEN3, **MOE), tokens, 2),
    "qwen_moe": (lambda: models.QwenMoeBackbone(**GROUPED, **SHARED), tokens, 2),
    "roberta": (lambda: models.RobertaBackbone(**HEADS), tokens, 2),
    "roformer_v2": (
        lambda: models.RoformerV2Backbone(**HEADS, head_size=4),
        lambda: {k: segments()[k] for k in ("token_ids", "segment_ids")},
        2,
    ),
    "siglip": (lambda: clip("SigLIP"), pictures_and_text, 5),
    "smollm3": (smollm3, tokens, 2),
    "stable_diffusion_3": (stable_diffusion, stable_diffusion_inputs, 3),
    "t5": (lambda: models.T5Backbone(**HEADS), pairs, 6),
    "t5gemma": (lambda: t5_gemma("T5GemmaBackbone"), pairs, 6),
    "t5gemma2": (lambda: t5_gemma("T5Gemma2Backbone"), pairs, 4),
    "video_prism": (video_prism, lambda: pixels((2, *IMAGE)), 2),
    "vit": (
        lambda: models.ViTBackbone(**VISION, mlp_dim=12, image_shape=IMAGE), pixels, 2,
    ),
    "whisper": (
        lambda: models.WhisperBackbone(
            **HEADS, num_mels=4, max_encoder_sequence_length=10
        ),
        whisper_inputs,
        6,
    ),
    "xlm_roberta": (lambda: models.XLMRobertaBackbone(**HEADS), tokens, 2),
}  # fmt: skip
