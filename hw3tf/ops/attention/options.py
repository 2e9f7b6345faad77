"""The options of one call of attention, in one object."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras

from hw3tf.ops.operations import ATTENTION

# Names of the options that are tensors, in the op's order; the seed is beside them.
TENSORS = tuple(operand.name for operand in ATTENTION.optional)
# Names of the attributes of the kernels that are doubles, in the op's order.
NUMBERS = tuple(x["name"] for x in ATTENTION.attributes if x["carrier"] == "numbers")


@dataclass(frozen=True)
class AttentionOptions:
    """The options of one call: as they are asked for, then checked, by
    `attention.call`, and then as the kernels take them, by `kernel_options`.

    Attributes:
        scale: Number or scalar tensor; until it is checked, None for the default.
        is_causal: Whether query `t` sees keys `0..t` only.
        attn_logits_soft_cap: Positive number, or None.
        sliding_window: Positive integer, or None.
        dropout_rate: Number from 0 to 1, exclusive.
        bias: Tensor that broadcasts to the scores, `(batch, num_heads,
            query_length, key_length)`.
        mask: Boolean tensor, likewise.
        query_mask, key_mask: Boolean tensors `(batch, length)`.
        query_lengths, key_lengths: int32 tensors `(batch,)`.
        query_splits, key_splits: int64 tensors `(batch + 1,)`, both or neither:
            query, key and value are packed sequences of rank 3.
        dropout_seed: Integer or scalar integer tensor; given if `dropout_rate`
            is not 0.

    A tensor that is not given is None.
    """

    scale: Any = None
    is_causal: bool = False
    attn_logits_soft_cap: float | None = None
    sliding_window: int | None = None
    dropout_rate: float = 0.0
    bias: Any = None
    mask: Any = None
    query_mask: Any = None
    key_mask: Any = None
    query_lengths: Any = None
    key_lengths: Any = None
    query_splits: Any = None
    key_splits: Any = None
    dropout_seed: Any = None

    @property
    def tensors(self) -> dict[str, Any]:
        """Those of `TENSORS` that are given."""
        given = {name: getattr(self, name) for name in TENSORS}
        return {name: x for name, x in given.items() if x is not None}

    @property
    def attributes(self) -> dict[str, Any]:
        """The options that are no tensors, as attributes of the kernels by the names of
        csrc/operations/attention.cc. Those that fronts set themselves are not here."""
        before, after = self.window
        return {
            "scale": float(self.scale),
            "is_causal": self.is_causal,
            "window_before": before,
            "window_after": after,
            "soft_cap": float(self.attn_logits_soft_cap or 0.0),
            "dropout_rate": float(self.dropout_rate),
        }

    @classmethod
    def of_attributes(
        cls, attributes: Mapping[str, Any], **tensors: Any
    ) -> "AttentionOptions":
        """The options with these `attributes`, whose window is symmetric."""
        before = attributes["window_before"]
        return cls(
            scale=attributes["scale"],
            is_causal=attributes["is_causal"],
            attn_logits_soft_cap=attributes["soft_cap"] or None,
            sliding_window=None if before < 0 else before + 1,
            dropout_rate=attributes["dropout_rate"],
            **tensors,
        )

    @property
    def window(self) -> tuple[int, int]:
        """How many keys before and after its own position a query sees; -1 = no
        limit. A window longer than any sequence hides nothing."""
        if self.sliding_window is None or self.sliding_window > 2**31:
            return -1, -1
        return self.sliding_window - 1, self.sliding_window - 1


def real_dtype(dtype: Any) -> str:
    """The dtype of scores and bias where query is of `dtype`."""
    return "float64" if dtype == "float64" else "float32"


def bits_of(number: float) -> int:
    """The bits of a double as a signed integer."""
    return int(struct.unpack("<q", struct.pack("<d", number))[0])


def double_of(bits: int) -> float:
    """The double with these bits."""
    return float(struct.unpack("<d", struct.pack("<q", bits))[0])


def signed(seed: int) -> int:
    """The signed integer with the 64 bits of `seed`, as the kernels take it."""
    return (seed + 2**63) % 2**64 - 2**63


def kernel_options(options: AttentionOptions, query: Any, key: Any) -> AttentionOptions:
    """The options as the kernels take them.

    Bias and mask get rank 4 by leading axes of size 1, never by copies; the bias
    goes through the dtype of `query`, as in Keras, to that of the scores. A mask
    that only says which keys, or which queries, take part becomes a key mask or
    a query mask. The seed becomes the int64 of the same 64 bits, but for JAX, which
    has no int64 unless it is told to, and whose front takes its words.
    """
    ops = keras.ops
    changes: dict[str, Any] = {}
    if options.bias is not None:
        dtype = keras.backend.standardize_dtype(query.dtype)
        bias = ops.cast(ops.cast(options.bias, dtype), real_dtype(dtype))
        changes["bias"] = _of_rank_4(bias)
    if options.mask is not None:
        mask = _of_rank_4(options.mask)
        packed = options.query_splits is not None
        changes |= {"mask": mask} if packed else _padding(options, mask, query, key)
    seed = options.dropout_seed
    if keras.backend.backend() == "jax":
        pass
    elif isinstance(seed, int):
        changes["dropout_seed"] = ops.convert_to_tensor(signed(seed), "int64")
    elif seed is not None:
        changes["dropout_seed"] = ops.cast(seed, "int64")
    return replace(options, **changes) if changes else options


def _of_rank_4(tensor: Any) -> Any:
    missing = 4 - len(tensor.shape)
    return tensor[(None,) * missing + (...,)] if missing else tensor


def _padding(
    options: AttentionOptions, mask: Any, query: Any, key: Any
) -> dict[str, Any]:
    """`mask` as one of the masks over positions, if it is one."""
    ops = keras.ops
    if mask.shape[1:3] == (1, 1):
        name, rows, x = "key_mask", mask[:, 0, 0, :], key
    elif mask.shape[1] == 1 and mask.shape[3] == 1:
        name, rows, x = "query_mask", mask[:, 0, :, 0], query
    else:
        return {"mask": mask}
    if rows.shape[1] is None or rows.shape[1] != x.shape[1]:
        rows = ops.broadcast_to(rows, (ops.shape(rows)[0], ops.shape(x)[1]))
    other = getattr(options, name)
    return {
        "mask": None,
        name: rows if other is None else ops.logical_and(other, rows),
    }
