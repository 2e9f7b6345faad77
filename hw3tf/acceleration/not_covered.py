"""Attention layers that stay as they are, with the reason for the report."""

_RELATIVE = "its scores depend on relative positions through the query"

_MODELS = "keras_hub.src.models."
NOT_COVERED = {
    _MODELS + name: reason
    for name, reason in {
        "d_fine.d_fine_attention.DFineMultiscaleDeformableAttention": (
            "it samples positions and computes no scores of query and key"
        ),
        "deberta_v3.disentangled_self_attention.DisentangledSelfAttention": _RELATIVE,
        "vit_det.vit_layers.MultiHeadAttentionWithRelativePE": _RELATIVE,
        "xlnet.relative_attention.TwoStreamRelativeAttention": _RELATIVE,
    }.items()
}
