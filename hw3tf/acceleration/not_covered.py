"""Attention layers that stay as they are, and why: half a sentence for the report."""

_RELATIVE = "its scores depend on what a query asks of a relative position"

_MODELS = "keras_hub.src.models."
NOT_COVERED = {
    _MODELS + name: reason
    for name, reason in {
        "d_fine.d_fine_attention.DFineMultiscaleDeformableAttention": (
            "it samples positions and has no scores of query and key"
        ),
        "deberta_v3.disentangled_self_attention.DisentangledSelfAttention": _RELATIVE,
        "vit_det.vit_layers.MultiHeadAttentionWithRelativePE": _RELATIVE,
        "xlnet.relative_attention.TwoStreamRelativeAttention": _RELATIVE,
    }.items()
}
