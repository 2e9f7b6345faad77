"""`dot_product_attention` in functional models."""

import dataclasses
from typing import Any

import keras
import numpy as np

from hw3tf.ops.attention.call import AttentionCall
from hw3tf.ops.attention.checks import SCORES, check_call
from hw3tf.ops.attention.options import TENSORS, AttentionOptions, real_dtype
from hw3tf.ops.operations import ATTENTION

# The options that the node is made with; the others are its inputs.
SETTINGS = tuple(
    field.name
    for field in dataclasses.fields(AttentionOptions)
    if field.name not in (*TENSORS, "dropout_seed")
)
# Inputs that may be given by their position.
INPUTS = (
    "bias",
    "mask",
    "query_mask",
    "key_mask",
    "query_lengths",
    "key_lengths",
    "dropout_seed",
)


def is_symbolic(query: Any, key: Any, value: Any, options: AttentionOptions) -> bool:
    """Whether a part of the call is of a functional model that is being made."""
    given = (query, key, value, options.dropout_seed, *options.tensors.values())
    return any(isinstance(x, keras.KerasTensor) for x in given)


def node(
    query: Any, key: Any, value: Any, options: AttentionOptions, **settings: Any
) -> Any:
    """The results of a `DotProductAttention`.

    Args:
        query, key, value: As `hw3tf.ops.dot_product_attention`.
        options: The options, as they were given.
        settings: `flash_attention`, `return_logsumexp`, `return_attention_scores`.
    """
    for name in SETTINGS:
        settings[name] = getattr(options, name)
    inputs = options.tensors | {"dropout_seed": options.dropout_seed}
    return DotProductAttention(**settings)(query, key, value, **inputs)


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
        more: Further options of that function that are no tensors.
    """

    def __init__(
        self,
        scale: Any = None,
        is_causal: bool = False,
        flash_attention: bool | None = None,
        attn_logits_soft_cap: float | None = None,
        sliding_window: int | None = None,
        dropout_rate: float = 0.0,
        return_logsumexp: bool = False,
        return_attention_scores: bool = False,
        name: str | None = None,
        **more: Any,
    ) -> None:
        super().__init__(name=name)
        if unknown := set(more) - set(SETTINGS):
            raise TypeError(
                f"The options of a `DotProductAttention` must be {SETTINGS}. "
                f"Received: {sorted(unknown)}"
            )
        self.settings = {
            "scale": scale,
            "is_causal": is_causal,
            "flash_attention": flash_attention,
            "attn_logits_soft_cap": attn_logits_soft_cap,
            "sliding_window": sliding_window,
            "dropout_rate": dropout_rate,
            "return_logsumexp": return_logsumexp,
            "return_attention_scores": return_attention_scores,
            **more,
        }

    def get_config(self) -> dict[str, Any]:
        return {**self.settings, "name": self.name}

    def _options(self, *inputs: Any, **named: Any) -> AttentionOptions:
        settings = {n: self.settings[n] for n in SETTINGS if n in self.settings}
        given = dict(zip(INPUTS, inputs, strict=False)) | named
        return AttentionOptions(**settings, **given)

    def call(
        self,
        query: Any,
        key: Any,
        value: Any,
        bias: Any = None,
        mask: Any = None,
        query_mask: Any = None,
        key_mask: Any = None,
        query_lengths: Any = None,
        key_lengths: Any = None,
        dropout_seed: Any = None,
        **more: Any,
    ) -> Any:
        options = self._options(
            bias,
            mask,
            query_mask,
            key_mask,
            query_lengths,
            key_lengths,
            dropout_seed,
            **more,
        )
        return AttentionCall(query, key, value, options).run(
            self.settings["return_logsumexp"], self.settings["return_attention_scores"]
        )

    def compute_output_spec(
        self, query: Any, key: Any, value: Any, *inputs: Any, **named: Any
    ) -> Any:
        options = self._options(*inputs, **named)
        tensors = {
            name: x if hasattr(x, "shape") else np.asarray(x)
            for name, x in options.tensors.items()
        }
        sizes = check_call(query, key, value, tensors, options)
        dtype = keras.backend.result_type(query.dtype, key.dtype, value.dtype)
        results = [(ATTENTION.results["output"].axes, dtype)]
        if self.settings["return_logsumexp"]:
            results.append((ATTENTION.results["logsumexp"].axes, real_dtype(dtype)))
        if self.settings["return_attention_scores"]:
            results.append((SCORES, dtype))
        specs = tuple(
            keras.KerasTensor(tuple(sizes[axis] for axis in axes), dtype)
            for axes, dtype in results
        )
        return specs if len(specs) > 1 else specs[0]
