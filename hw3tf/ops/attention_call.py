"""One call of attention: its arguments checked, its path chosen, run."""

import numbers
from typing import Any

import keras

from hw3tf.ops.attention_checks import (
    batch_of,
    check_broadcasts,
    check_lengths,
    check_not_ragged,
    check_numbers,
    check_positions,
    check_tensors,
)
from hw3tf.ops.attention_options import AttentionOptions, kernel_options
from hw3tf.ops.attention_paths import (
    attention_op,
    attention_pybind,
    attention_reference,
    attention_scores,
    with_infinity,
)
from hw3tf.ops.libraries import AttentionPath, kernel_path, logger
from hw3tf.reference.attention import lengths_as_int32

KERNEL_DTYPES = ("float32", "bfloat16", "float16", "float64")


class AttentionCall:
    """The arguments of `dot_product_attention`, brought to common terms.

    Attributes:
        path: The `AttentionPath` that the call takes.

    Raises:
        ValueError: If an argument is not what it must be.
    """

    def __init__(
        self,
        query: Any,
        key: Any,
        value: Any,
        *,
        bias: Any = None,
        mask: Any = None,
        scale: Any = None,
        query_mask: Any = None,
        key_mask: Any = None,
        query_lengths: Any = None,
        key_lengths: Any = None,
        **settings: Any,
    ) -> None:
        check_not_ragged(query=query, key=key, value=value, bias=bias, mask=mask)
        check_not_ragged(query_mask=query_mask, key_mask=key_mask)
        check_not_ragged(query_lengths=query_lengths, key_lengths=key_lengths)
        query, key, value = map(keras.ops.convert_to_tensor, (query, key, value))
        check_tensors(query, key, value)
        masks = [_converted(x, "bool") for x in (query_mask, key_mask)]
        check_lengths("query_lengths", query_lengths, "query", query.shape[1])
        check_lengths("key_lengths", key_lengths, "key", key.shape[1])
        lengths = [_converted(x) for x in (query_lengths, key_lengths)]
        check_positions(query, key, value, *masks, *lengths)
        self.query, self.key, self.value, dtype = promoted(query, key, value)
        batch, length = batch_of(query, key, value), query.shape[1]
        self.options = make_options(
            (batch, query.shape[2], length, key.shape[1]),
            head_dim=query.shape[-1],
            bias=bias,
            mask=mask,
            scale=scale,
            query_mask=masks[0],
            key_mask=masks[1],
            query_lengths=lengths_as_int32(lengths[0]),
            key_lengths=lengths_as_int32(lengths[1]),
            **settings,
        )
        self.path = choose_path(dtype, self.options.scale)

    def run(
        self,
        return_logsumexp: bool = False,
        return_attention_scores: bool = False,
        finite_logsumexp: bool = False,
    ) -> Any:
        """The output; with what else is asked for, a tuple.

        Args:
            return_logsumexp, return_attention_scores: As `dot_product_attention`.
            finite_logsumexp: Whether the logsumexp of a query that sees no key is
                `lowest` of its dtype instead of `-inf`.
        """
        logger.debug("dot_product_attention takes the path %s", self.path)
        tensors = self.query, self.key, self.value
        if self.path.path == "reference":
            return attention_reference(
                *tensors,
                self.options,
                return_logsumexp=return_logsumexp,
                return_attention_scores=return_attention_scores,
                finite_logsumexp=finite_logsumexp,
            )
        options = kernel_options(self.options, self.query, self.key)
        output, logsumexp = run_kernel(self.path, *tensors, options)
        results = [output]
        if return_logsumexp:
            finite = finite_logsumexp
            results.append(logsumexp if finite else with_infinity(logsumexp))
        if return_attention_scores:
            results.append(attention_scores(*tensors[:2], options, logsumexp))
        return tuple(results) if len(results) > 1 else output


def _converted(x: Any, dtype: str | None = None) -> Any:
    """None or a tensor; any numbers become booleans: nonzero = True."""
    if x is None:
        return None
    return keras.ops.convert_to_tensor(x) if dtype is None else keras.ops.cast(x, dtype)


def promoted(query: Any, key: Any, value: Any) -> tuple:
    """The three in the dtype that they promote to, and that dtype."""
    dtype = keras.backend.result_type(query.dtype, key.dtype, value.dtype)
    return *(keras.ops.cast(x, dtype) for x in (query, key, value)), dtype


def make_options(
    scores: tuple,
    head_dim: Any,
    *,
    bias: Any = None,
    mask: Any = None,
    scale: Any = None,
    is_causal: bool = False,
    attn_logits_soft_cap: float | None = None,
    sliding_window: int | None = None,
    dropout_rate: float = 0.0,
    dropout_seed: Any = None,
    **tensors: Any,
) -> AttentionOptions:
    """`AttentionOptions`, checked.

    Args:
        scores: `(batch, num_heads, query_length, key_length)`, None where not known.
        head_dim: For the default of `scale`.
        bias, ...: As `dot_product_attention`.
        tensors: The other attributes of `AttentionOptions`, as they are there.
    """
    check_numbers(attn_logits_soft_cap, sliding_window, dropout_rate, dropout_seed)
    bias, mask = _converted(bias), _converted(mask, "bool")
    for name, tensor in (("bias", bias), ("mask", mask)):
        if tensor is not None:
            check_broadcasts(name, tensor.shape, scores)
    if isinstance(dropout_seed, numbers.Integral):
        dropout_seed = int(dropout_seed)  # NumPy's integers do not wrap
    return AttentionOptions(
        scale=head_dim**-0.5 if scale is None else scale,
        is_causal=bool(is_causal),
        attn_logits_soft_cap=attn_logits_soft_cap,
        sliding_window=None if sliding_window is None else int(sliding_window),
        dropout_rate=float(dropout_rate),
        bias=bias,
        mask=mask,
        dropout_seed=None if dropout_rate == 0 else dropout_seed,
        **tensors,
    )


def choose_path(dtype: str, scale: Any) -> AttentionPath:
    """The path of a call with inputs of `dtype`."""
    if dtype not in KERNEL_DTYPES:
        uncovered = dtype
    elif not isinstance(scale, numbers.Real):
        uncovered = "a tensor as `scale`"
    else:
        return kernel_path(has_xla_call=True)
    return AttentionPath("reference", f"the kernel does not cover {uncovered}")


def run_kernel(
    path: AttentionPath, query: Any, key: Any, value: Any, options: AttentionOptions
) -> tuple:
    """Output and logsumexp by the path `op`, `xla` or `pybind`."""
    if path.path == "xla":
        from hw3tf.ops.attention_xla import attention_xla as run
    elif path.path == "op":
        run = attention_op
    else:
        run = attention_pybind
    return run(query, key, value, options)
