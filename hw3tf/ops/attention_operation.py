"""`dot_product_attention` in functional models."""

import keras
import numpy as np

from hw3tf.ops.attention_call import AttentionCall
from hw3tf.ops.attention_checks import (
    batch_of,
    check_broadcasts,
    check_lengths,
    check_numbers,
    check_positions,
    check_tensors,
)
from hw3tf.ops.attention_options import real_dtype

RETURNED = ("return_logsumexp", "return_attention_scores")


@keras.saving.register_keras_serializable(package="hw3tf")
class DotProductAttention(keras.Operation):
    """`dot_product_attention` as a node of a functional model.

    Calling `hw3tf.ops.dot_product_attention` on a `keras.KerasTensor` makes one;
    there is no other reason to.

    Args:
        scale, is_causal, flash_attention, attn_logits_soft_cap, sliding_window,
            dropout_rate, return_logsumexp, return_attention_scores: As in
            `hw3tf.ops.dot_product_attention`.
        name: Optional name of the node.
    """

    def __init__(
        self,
        scale=None,
        is_causal=False,
        flash_attention=None,
        attn_logits_soft_cap=None,
        sliding_window=None,
        dropout_rate=0.0,
        return_logsumexp=False,
        return_attention_scores=False,
        name=None,
    ):
        super().__init__(name=name)
        self.settings = {
            "scale": scale,
            "is_causal": is_causal,
            "flash_attention": flash_attention,
            "attn_logits_soft_cap": attn_logits_soft_cap,
            "sliding_window": sliding_window,
            "dropout_rate": dropout_rate,
            "return_logsumexp": return_logsumexp,
            "return_attention_scores": return_attention_scores,
        }

    def get_config(self):
        return {**self.settings, "name": self.name}

    def call(
        self,
        query,
        key,
        value,
        bias=None,
        mask=None,
        query_mask=None,
        key_mask=None,
        query_lengths=None,
        key_lengths=None,
        dropout_seed=None,
    ):
        settings = {k: v for k, v in self.settings.items() if k != "flash_attention"}
        returned = {k: settings.pop(k) for k in RETURNED}
        return AttentionCall(
            query,
            key,
            value,
            bias=bias,
            mask=mask,
            query_mask=query_mask,
            key_mask=key_mask,
            query_lengths=query_lengths,
            key_lengths=key_lengths,
            dropout_seed=dropout_seed,
            **settings,
        ).run(**returned)

    def compute_output_spec(
        self,
        query,
        key,
        value,
        bias=None,
        mask=None,
        query_mask=None,
        key_mask=None,
        query_lengths=None,
        key_lengths=None,
        dropout_seed=None,
    ):
        check_tensors(query, key, value)
        arrays = (bias, mask, query_mask, key_mask, query_lengths, key_lengths)
        bias, mask, *positions = (
            x if x is None or hasattr(x, "shape") else np.asarray(x) for x in arrays
        )
        check_lengths("query_lengths", query_lengths, "query", query.shape[1])
        check_lengths("key_lengths", key_lengths, "key", key.shape[1])
        check_positions(query, key, value, *positions)
        batch = batch_of(query, key, value)
        query_length, heads = query.shape[1:3]
        scores = (batch, heads, query_length, key.shape[1])
        for name, tensor in (("bias", bias), ("mask", mask)):
            if tensor is not None:
                check_broadcasts(name, tensor.shape, scores)
        names = ("attn_logits_soft_cap", "sliding_window", "dropout_rate")
        check_numbers(*(self.settings[n] for n in names), dropout_seed)
        dtype = keras.backend.result_type(query.dtype, key.dtype, value.dtype)
        shape = (batch, query_length, heads, value.shape[3])
        output = keras.KerasTensor(shape, dtype)
        results = [output]
        if self.settings["return_logsumexp"]:
            shape = (batch, heads, query_length)
            results.append(keras.KerasTensor(shape, real_dtype(dtype)))
        if self.settings["return_attention_scores"]:
            results.append(keras.KerasTensor(scores, dtype))
        return tuple(results) if len(results) > 1 else output
