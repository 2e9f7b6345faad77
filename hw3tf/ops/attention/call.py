"""One call of attention: its arguments checked, its path chosen, run."""

import numbers
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras

from hw3tf.ops.attention.checks import LENGTHS, check_call, check_not_ragged
from hw3tf.ops.attention.options import AttentionOptions, kernel_options
from hw3tf.ops.fronts import front_of, reference
from hw3tf.ops.operations import ATTENTION
from hw3tf.ops.paths import CallPath, kernel_path, logger
from hw3tf.reference.attention import lengths_as_int32, lowest

KERNEL_DTYPES = ("float32", "bfloat16", "float16", "float64")
MASKS = {operand.name for operand in ATTENTION.optional if operand.type == "bool"}


class AttentionCall:
    """The arguments of `dot_product_attention`, checked and converted.

    Args:
        query, key, value: As there.
        options: The others, as they were given.

    Attributes:
        query, key, value: Tensors of one dtype.
        options: `AttentionOptions`, checked.
        path: The `CallPath` that the call takes.

    Raises:
        ValueError: If an argument is not what it must be.
    """

    def __init__(
        self, query: Any, key: Any, value: Any, options: AttentionOptions
    ) -> None:
        tensors = options.tensors
        check_not_ragged(query=query, key=key, value=value, **tensors)
        query, key, value = map(keras.ops.convert_to_tensor, (query, key, value))
        tensors = converted(tensors)
        check_call(query, key, value, tensors, options)
        for name in LENGTHS:
            if name in tensors:
                tensors[name] = lengths_as_int32(tensors[name])
        self.options = settled(options, tensors, head_dim=query.shape[-1])
        self.query, self.key, self.value, dtype = promoted(query, key, value)
        self.path = choose_path(dtype, self.options.scale)

    def run(
        self,
        return_logsumexp: bool = False,
        return_attention_scores: bool = False,
        finite_logsumexp: bool = False,
        draw_seed: Callable[[], Any] | None = None,
    ) -> Any:
        """The output; with what else is asked for, a tuple.

        Args:
            return_logsumexp, return_attention_scores: As `dot_product_attention`.
            finite_logsumexp: Whether the logsumexp of a query that sees no key is
                `lowest` of its dtype instead of `-inf`.
            draw_seed: Draws the seed of dropout, in place of that of the options.
        """
        logger.debug("dot_product_attention takes the path %s", self.path)
        query, key, value, options = self.query, self.key, self.value, self.options
        if draw_seed is not None:
            options = replace(options, dropout_seed=draw_seed())
        if self.path.path == "reference":
            return reference.attention(
                query,
                key,
                value,
                options,
                return_logsumexp=return_logsumexp,
                return_attention_scores=return_attention_scores,
                finite_logsumexp=finite_logsumexp,
            )
        options = kernel_options(options, query, key)
        front = front_of(self.path.path)
        output, logsumexp = front.attention(query, key, value, options)
        results = [output]
        if return_logsumexp:
            finite = finite_logsumexp
            results.append(logsumexp if finite else with_infinity(logsumexp))
        if return_attention_scores:
            results.append(reference.attention_scores(query, key, options, logsumexp))
        return tuple(results) if len(results) > 1 else output


def converted(tensors: dict[str, Any]) -> dict[str, Any]:
    """The tensors among the options as tensors: nonzero numbers in a mask are True."""
    ops = keras.ops
    return {
        name: ops.cast(x, "bool") if name in MASKS else ops.convert_to_tensor(x)
        for name, x in tensors.items()
    }


def promoted(query: Any, key: Any, value: Any) -> tuple[Any, Any, Any, str]:
    """The three in the dtype that they promote to, and that dtype."""
    dtype = keras.backend.result_type(query.dtype, key.dtype, value.dtype)
    query, key, value = (keras.ops.cast(x, dtype) for x in (query, key, value))
    return query, key, value, dtype


def settled(
    options: AttentionOptions, tensors: dict[str, Any], head_dim: Any
) -> AttentionOptions:
    """Checked options with `tensors` as their tensors and plain Python numbers.

    Args:
        options: As they were given.
        tensors: Their tensors, converted.
        head_dim: For the default of `scale`.
    """
    window, seed = options.sliding_window, options.dropout_seed
    if isinstance(seed, numbers.Integral):
        seed = int(seed)  # NumPy's integers do not wrap
    changes = {
        "scale": head_dim**-0.5 if options.scale is None else options.scale,
        "is_causal": bool(options.is_causal),
        "sliding_window": None if window is None else int(window),
        "dropout_rate": float(options.dropout_rate),
        "dropout_seed": None if options.dropout_rate == 0 else seed,
    }
    # Not `replace`, which takes 3 us, nor `vars`: torch.compile follows neither before
    # PyTorch 2.13.
    cap = options.attn_logits_soft_cap
    return AttentionOptions(**changes, **tensors, attn_logits_soft_cap=cap)


def choose_path(dtype: str, scale: Any) -> CallPath:
    """The path of a call with inputs of `dtype`."""
    if dtype not in KERNEL_DTYPES:
        uncovered = dtype
    elif not isinstance(scale, numbers.Real):
        uncovered = "a tensor as `scale`"
    else:
        return kernel_path()
    return CallPath("reference", f"the kernel does not cover {uncovered}")


def with_infinity(logsumexp: Any) -> Any:
    """The logsumexp with `-inf` for a query that sees no key. Until it is asked for,
    it is the lowest finite number: TensorFlow's `enable_check_numerics` would stop at
    every padded batch otherwise."""
    ops = keras.ops
    infinity = ops.cast(float("-inf"), logsumexp.dtype)
    return ops.where(sees_nothing(logsumexp), infinity, logsumexp)


def sees_nothing(logsumexp: Any) -> Any:
    """Which queries see no key, from a logsumexp with or without infinities."""
    return keras.ops.less_equal(logsumexp, lowest(logsumexp.dtype))
