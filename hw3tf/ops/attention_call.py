"""One call of attention: its arguments checked, its path chosen, run."""

import numbers

import keras

from hw3tf.ops.attention_checks import (
    check_broadcasts,
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
)
from hw3tf.ops.libraries import AttentionPath, kernel_path, logger

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
        query,
        key,
        value,
        *,
        bias=None,
        mask=None,
        scale=None,
        query_mask=None,
        key_mask=None,
        query_lengths=None,
        key_lengths=None,
        **settings,
    ):
        query, key, value = map(keras.ops.convert_to_tensor, (query, key, value))
        check_tensors(query, key, value)
        masks = [_converted(x, "bool") for x in (query_mask, key_mask)]
        lengths = [_converted(x) for x in (query_lengths, key_lengths)]
        check_positions(query, key, *masks, *lengths)
        self.query, self.key, self.value, dtype = promoted(query, key, value)
        self.options = make_options(
            query,
            key,
            bias=bias,
            mask=mask,
            scale=scale,
            query_mask=masks[0],
            key_mask=masks[1],
            query_lengths=_converted(lengths[0], "int32"),
            key_lengths=_converted(lengths[1], "int32"),
            **settings,
        )
        self.path = choose_path(dtype, self.options.scale)

    def run(self, return_logsumexp=False, return_attention_scores=False):
        """The output; with what else is asked for, a tuple."""
        logger.debug("dot_product_attention takes the path %s", self.path)
        tensors = self.query, self.key, self.value
        if self.path.path == "reference":
            return attention_reference(
                *tensors,
                self.options,
                return_logsumexp=return_logsumexp,
                return_attention_scores=return_attention_scores,
            )
        options = kernel_options(self.options, self.query, self.key)
        output, logsumexp = run_kernel(self.path, *tensors, options)
        results = [output]
        if return_logsumexp:
            results.append(logsumexp)
        if return_attention_scores:
            results.append(attention_scores(*tensors[:2], options, logsumexp))
        return tuple(results) if len(results) > 1 else output


def _converted(x, dtype=None):
    """None or a tensor; any numbers become booleans: nonzero = True."""
    if x is None:
        return None
    return keras.ops.convert_to_tensor(x) if dtype is None else keras.ops.cast(x, dtype)


def promoted(query, key, value):
    """The three in the dtype that they promote to, and that dtype."""
    dtype = keras.backend.result_type(query.dtype, key.dtype, value.dtype)
    return *(keras.ops.cast(x, dtype) for x in (query, key, value)), dtype


def make_options(
    query,
    key,
    *,
    bias=None,
    mask=None,
    scale=None,
    is_causal=False,
    attn_logits_soft_cap=None,
    sliding_window=None,
    dropout_rate=0.0,
    dropout_seed=None,
    packed=False,
    **tensors,
):
    """`AttentionOptions`, checked.

    Args:
        query, key: Tensors, for their shapes; of rank 3 if `packed`.
        bias, ...: As `dot_product_attention`.
        tensors: The other attributes of `AttentionOptions`, as they are there.
    """
    check_numbers(attn_logits_soft_cap, sliding_window, dropout_rate, dropout_seed)
    bias, mask = _converted(bias), _converted(mask, "bool")
    for name, tensor in (("bias", bias), ("mask", mask)):
        if tensor is not None:
            check_broadcasts(name, tensor.shape, query, key, packed)
    if isinstance(dropout_seed, numbers.Integral):
        dropout_seed = int(dropout_seed)  # NumPy's integers do not wrap
    return AttentionOptions(
        scale=query.shape[-1] ** -0.5 if scale is None else scale,
        is_causal=bool(is_causal),
        attn_logits_soft_cap=attn_logits_soft_cap,
        sliding_window=None if sliding_window is None else int(sliding_window),
        dropout_rate=float(dropout_rate),
        bias=bias,
        mask=mask,
        dropout_seed=None if dropout_rate == 0 else dropout_seed,
        **tensors,
    )


def choose_path(dtype, scale):
    """The path of a call with inputs of `dtype`."""
    if dtype not in KERNEL_DTYPES:
        uncovered = dtype
    elif not isinstance(scale, numbers.Real):
        uncovered = "a tensor as `scale`"
    else:
        return kernel_path()
    return AttentionPath("reference", f"the kernel does not cover {uncovered}")


def run_kernel(path, query, key, value, options):
    """Output and logsumexp by the path `op`, `xla` or `pybind`."""
    if path.path == "xla":
        from hw3tf.ops.attention_xla import attention_xla as run
    elif path.path == "op":
        run = attention_op
    else:
        run = attention_pybind
    return run(query, key, value, options)
