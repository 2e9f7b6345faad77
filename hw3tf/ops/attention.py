"""`dot_product_attention`: one function, three paths."""

import numbers

import keras

from hw3tf.ops.attention_checks import check_arguments, check_broadcasts
from hw3tf.ops.attention_paths import (
    attention_op,
    attention_pybind,
    attention_reference,
)
from hw3tf.ops.libraries import AttentionPath, kernel_path, logger


def dot_product_attention(
    query,
    key,
    value,
    bias=None,
    mask=None,
    scale=None,
    is_causal=False,
    flash_attention=None,
    attn_logits_soft_cap=None,
    *,
    query_mask=None,
    key_mask=None,
):
    """Scaled dot-product attention without the matrix of scores.

    A drop-in for `keras.ops.dot_product_attention`: to float32 rounding the
    results are the same, but memory grows with the length of the sequences, not
    with its square, forward and backward.

    The fused kernel covers float32, padding masks, `is_causal`, `scale`,
    queries and keys of different length, values of another size than keys, and
    grouped heads. Other calls (`bias`, `attn_logits_soft_cap`, masks that differ
    between queries, other dtypes, XLA, GPUs) run in pure Keras and give the same
    numbers: `hw3tf.ops.attention_path`, with the same arguments, tells which and
    why.

    Args:
        query: Float tensor of shape `(batch, query_length, num_heads, head_dim)`.
        key: Float tensor of shape `(batch, key_length, num_kv_heads, head_dim)`.
            `num_kv_heads` divides `num_heads`; each key head serves
            `num_heads / num_kv_heads` consecutive query heads.
        value: Float tensor of shape
            `(batch, key_length, num_kv_heads, value_dim)`.
        bias: Optional float tensor that broadcasts to `(batch, num_heads,
            query_length, key_length)`, added to the scaled scores.
        mask: Optional boolean or numeric tensor that broadcasts likewise;
            `True` or nonzero = takes part. A padding mask has the shape
            `(batch, 1, 1, key_length)`.
        scale: Factor of the scores. Defaults to `1 / sqrt(head_dim)`.
        is_causal: Whether query `t` sees keys `0..t` only. The mask is aligned
            at the top left; for 2 queries and 4 keys it is `1000`, `1100`.
        flash_attention: Accepted for compatibility with Keras; the fused kernel
            is exact, so there is nothing to choose.
        attn_logits_soft_cap: Optional number `c`: scaled scores become
            `c * tanh(scores / c)`, before bias and mask.
        query_mask: Optional boolean tensor of shape `(batch, query_length)`.
            A query that is masked sees no key.
        key_mask: Optional boolean tensor of shape `(batch, key_length)`. The
            cheap form of a padding mask: masked keys cost no time.

    Returns:
        Float tensor of shape `(batch, query_length, num_heads, value_dim)`. A
        query that sees no key gets the mean of all values, as in Keras, and
        gives no gradient to `query` and `key`. NaN in anything that a query sees
        gives NaN; what is masked does not reach the result.

    Raises:
        ValueError: If the shapes do not fit each other, if there are no keys,
            or if a dtype is not floating point.
        tensorflow.errors.InvalidArgumentError: The same, where a shape is known
            only when the graph runs.
        NotImplementedError: On differentiating the gradient of the kernel.

    Example:

    >>> query = keras.random.normal((2, 5, 4, 16))
    >>> key = value = keras.random.normal((2, 7, 4, 16))
    >>> dot_product_attention(query, key, value, is_causal=True).shape
    TensorShape([2, 5, 4, 16])

    Reference:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.2.1
        - [Dao, 2023](https://arxiv.org/abs/2307.08691), algorithms 1 and 2
    """
    tensors = (query, key, value, bias, mask, query_mask, key_mask)
    if any(isinstance(x, keras.KerasTensor) for x in tensors):
        return DotProductAttention(
            scale=scale,
            is_causal=is_causal,
            flash_attention=flash_attention,
            attn_logits_soft_cap=attn_logits_soft_cap,
        )(query, key, value, bias, mask, query_mask, key_mask)
    call = _Call(
        query,
        key,
        value,
        bias,
        mask,
        scale,
        is_causal,
        attn_logits_soft_cap,
        query_mask,
        key_mask,
    )
    logger.debug("dot_product_attention takes the path %s", call.path)
    return call.run()


def attention_path(
    query,
    key,
    value,
    bias=None,
    mask=None,
    scale=None,
    is_causal=False,
    flash_attention=None,
    attn_logits_soft_cap=None,
    *,
    query_mask=None,
    key_mask=None,
):
    """Which path `dot_product_attention` takes with these arguments, and why.

    Args:
        As `hw3tf.ops.dot_product_attention`, which is not run.

    Returns:
        A `hw3tf.ops.AttentionPath`, with the attributes `path` (`"op"`,
        `"pybind"` or `"reference"`) and `reason`.

    Raises:
        ValueError: As `dot_product_attention`.

    Example:

    >>> x = keras.random.normal((1, 8, 2, 4))
    >>> print(attention_path(x, x, x))
    op (the kernel covers the call)
    >>> print(attention_path(x, x, x, attn_logits_soft_cap=5.0))
    reference (the kernel does not cover `attn_logits_soft_cap` yet)
    """
    return _Call(
        query,
        key,
        value,
        bias,
        mask,
        scale,
        is_causal,
        attn_logits_soft_cap,
        query_mask,
        key_mask,
    ).path


class _Call:
    """The arguments of one call, checked and brought to common terms."""

    def __init__(
        self,
        query,
        key,
        value,
        bias,
        mask,
        scale,
        is_causal,
        soft_cap,
        query_mask,
        key_mask,
    ):
        ops = keras.ops
        query, key, value = map(ops.convert_to_tensor, (query, key, value))
        self.query_mask, self.key_mask = (
            None if m is None else ops.cast(m, "bool") for m in (query_mask, key_mask)
        )
        check_arguments(query, key, value, self.query_mask, self.key_mask)
        dtype = keras.backend.result_type(query.dtype, key.dtype, value.dtype)
        self.query, self.key, self.value = (
            ops.cast(x, dtype) for x in (query, key, value)
        )
        self.bias = None if bias is None else ops.convert_to_tensor(bias)
        if self.bias is not None:
            check_broadcasts("bias", self.bias.shape, query, key)
        self.mask = None if mask is None else ops.cast(mask, "bool")
        if self.mask is not None:
            check_broadcasts("mask", self.mask.shape, query, key)
            self._take_padding_mask()
        self.scale = query.shape[3] ** -0.5 if scale is None else scale
        self.is_causal = bool(is_causal)
        self.soft_cap = soft_cap
        uncovered = self._uncovered(dtype)
        if uncovered:
            reason = f"the kernel does not cover {uncovered} yet"
            self.path = AttentionPath("reference", reason)
        else:
            self.path = kernel_path()

    def _take_padding_mask(self):
        """Makes a mask that only says which keys, or which queries, take part a
        key mask or a query mask."""
        ops = keras.ops
        mask = self.mask
        while len(mask.shape) < 4:
            mask = mask[None]
        batch = ops.shape(self.query)[0]
        if mask.shape[1:3] == (1, 1):
            length = ops.shape(self.key)[1]
            padding = ops.broadcast_to(mask[:, 0, 0, :], (batch, length))
            self.key_mask = _both(self.key_mask, padding)
        elif mask.shape[1] == 1 and mask.shape[3] == 1:
            length = ops.shape(self.query)[1]
            padding = ops.broadcast_to(mask[:, 0, :, 0], (batch, length))
            self.query_mask = _both(self.query_mask, padding)
        else:
            return
        self.mask = None

    def _uncovered(self, dtype):
        """What the kernel does not cover of this call; empty if it covers it."""
        if self.bias is not None:
            return "`bias`"
        if self.soft_cap is not None:
            return "`attn_logits_soft_cap`"
        if self.mask is not None:
            return "masks that differ between queries or heads"
        if dtype != "float32":
            return dtype
        if not isinstance(self.scale, numbers.Real):
            return "a tensor as `scale`"
        return ""

    def run(self):
        arguments = (
            self.query,
            self.key,
            self.value,
            self.query_mask,
            self.key_mask,
            self.scale,
            self.is_causal,
        )
        if self.path.path == "op":
            return attention_op(*arguments)
        if self.path.path == "pybind":
            return attention_pybind(*arguments)
        return attention_reference(*arguments, self.mask, self.bias, self.soft_cap)


def _both(mask, other):
    return other if mask is None else keras.ops.logical_and(mask, other)


@keras.saving.register_keras_serializable(package="hw3tf")
class DotProductAttention(keras.Operation):
    """`dot_product_attention` as a node of a functional model.

    Calling `hw3tf.ops.dot_product_attention` on a `keras.KerasTensor` makes one;
    there is no other reason to.

    Args:
        scale, is_causal, flash_attention, attn_logits_soft_cap: As in
            `hw3tf.ops.dot_product_attention`.
        name: Optional name of the node.
    """

    def __init__(
        self,
        scale=None,
        is_causal=False,
        flash_attention=None,
        attn_logits_soft_cap=None,
        name=None,
    ):
        super().__init__(name=name)
        self.scale = scale
        self.is_causal = is_causal
        self.flash_attention = flash_attention
        self.attn_logits_soft_cap = attn_logits_soft_cap

    def get_config(self):
        return {
            "scale": self.scale,
            "is_causal": self.is_causal,
            "flash_attention": self.flash_attention,
            "attn_logits_soft_cap": self.attn_logits_soft_cap,
            "name": self.name,
        }

    def call(
        self,
        query,
        key,
        value,
        bias=None,
        mask=None,
        query_mask=None,
        key_mask=None,
    ):
        return dot_product_attention(
            query,
            key,
            value,
            bias,
            mask,
            query_mask=query_mask,
            key_mask=key_mask,
            **{k: v for k, v in self.get_config().items() if k != "name"},
        )

    def compute_output_spec(
        self,
        query,
        key,
        value,
        bias=None,
        mask=None,
        query_mask=None,
        key_mask=None,
    ):
        check_arguments(query, key, value, query_mask, key_mask)
        for name, tensor in (("bias", bias), ("mask", mask)):
            if tensor is not None:
                check_broadcasts(name, tensor.shape, query, key)
        dtype = keras.backend.result_type(query.dtype, key.dtype, value.dtype)
        return keras.KerasTensor((*query.shape[:3], value.shape[3]), dtype)
