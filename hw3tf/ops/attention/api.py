"""`dot_product_attention`: one function, four paths."""

import dataclasses
import inspect
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw3tf import _core
from hw3tf.ops.arguments import is_ragged
from hw3tf.ops.attention.call import AttentionCall
from hw3tf.ops.attention.checks import check_seed
from hw3tf.ops.attention.options import AttentionOptions, signed
from hw3tf.ops.attention.ragged import (
    RaggedAttentionCall,
    ragged_dot_product_attention,
)
from hw3tf.ops.attention.symbolic import is_symbolic, node
from hw3tf.ops.paths import CallPath


def dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    scale: Any = None,
    is_causal: bool = False,
    flash_attention: bool | None = None,
    attn_logits_soft_cap: float | None = None,
    *,
    query_mask: Any = None,
    key_mask: Any = None,
    query_lengths: Any = None,
    key_lengths: Any = None,
    sliding_window: int | None = None,
    dropout_rate: float = 0.0,
    dropout_seed: Any = None,
    return_logsumexp: bool = False,
    return_attention_scores: bool = False,
) -> Any:
    """Scaled dot-product attention without the matrix of scores.

    A drop-in for `keras.ops.dot_product_attention`: up to rounding the results
    are the same, but memory grows with the length of the sequences, not with its
    square, forward and backward.

    The fused kernel covers float32, bfloat16, float16 and float64 with every
    option below, in any combination, with `jit_compile=True` too. Calls with a
    tensor as `scale`, or where a GPU is visible, run in pure Keras and give the
    same numbers: `hw3tf.ops.attention_path`, with the same arguments, tells which
    and why. In bfloat16 and float16 the kernel computes scores, softmax and sums
    in float32.

    Args:
        query: Float tensor of shape `(batch, query_length, num_heads, head_dim)`.
        key: Float tensor of shape `(batch, key_length, num_kv_heads, head_dim)`.
            `num_kv_heads` divides `num_heads`; each key head serves
            `num_heads / num_kv_heads` consecutive query heads.
        value: Float tensor of shape
            `(batch, key_length, num_kv_heads, value_dim)`. The batch sizes of
            query, key and value are equal or 1: one that is 1 serves every batch
            entry, without copies, and its gradient is summed over them. So may
            those of the masks and lengths below.
        bias: Optional float tensor that broadcasts to `(batch, num_heads,
            query_length, key_length)`, added to the scaled scores. It has a
            gradient. As in Keras, it is rounded to the dtype of the inputs.
        mask: Optional boolean or numeric tensor that broadcasts likewise;
            `True` or nonzero = takes part. A padding mask has the shape
            `(batch, 1, 1, key_length)`.
        scale: Factor of the scores. Defaults to `1 / sqrt(head_dim)`.
        is_causal: Whether query `t` sees keys `0..t` only. The mask is aligned
            at the top left; for 2 queries and 4 keys it is `1000`, `1100`.
            Defaults to `False`.
        flash_attention: Accepted for compatibility with Keras; the fused kernel
            is exact, so there is nothing to choose.
        attn_logits_soft_cap: Optional positive number `c`: scaled scores become
            `c * tanh(scores / c)`, before bias and mask.
        query_mask: Optional boolean tensor of shape `(batch, query_length)`.
            A query that is masked sees no key.
        key_mask: Optional boolean tensor of shape `(batch, key_length)`. The
            cheap form of a padding mask: masked keys cost no time.
        query_lengths: Optional integer tensor of shape `(batch,)`, values from 0
            to `query_length`: a query mask that begins with that many ones.
        key_lengths: Optional integer tensor of shape `(batch,)`, values from 0
            to `key_length`: likewise a key mask. The cheapest form of padding.
        sliding_window: Optional positive integer `w`: query `t` sees only the
            keys `s` with `abs(t - s) < w`. Time and memory follow the window.
        dropout_rate: Number from 0 to 1, exclusive. Each weight of the softmax
            is dropped with this probability; the others are divided by
            `1 - dropout_rate`. Defaults to 0. There is no `training` here: pass
            0 at inference.
        dropout_seed: Integer of 64 bits or scalar integer tensor, needed for
            dropout: what is dropped is a function of the seed and the position,
            `hw3tf.ops.attention_dropout_mask`. Pass another one at every step.
        return_logsumexp: Whether to return the logarithm of the sum of the
            exponentials of the scores, too. It has a gradient. Defaults to
            `False`.
        return_attention_scores: Whether to return the weights of the softmax,
            too: the matrix that is otherwise never built. Defaults to `False`.

    Returns:
        Float tensor of shape `(batch, query_length, num_heads, value_dim)`. A
        query that sees no key gets the mean of all values, as in Keras, and
        gives no gradient to `query`, `key` and `bias`; dropout does not apply to
        it. NaN in anything that a query sees gives NaN; what is masked does not
        reach the result.

        With `return_logsumexp` or `return_attention_scores`, a tuple of the
        output and, in this order, what is asked for: the logsumexp, of shape
        `(batch, num_heads, query_length)`, in float32, or float64 with float64
        inputs, `-inf` for a query that sees no key; the attention scores before
        dropout, of shape `(batch, num_heads, query_length, key_length)`, in the
        dtype of the output, 0 where a key is masked and `1 / key_length` for a
        query that sees no key.

    Raises:
        ValueError: If the shapes do not fit each other, if a length is known not
            to be from 0 to that of its sequence, if a dtype is not floating point
            (for lengths and seed: integer), if `attn_logits_soft_cap` or
            `sliding_window` is not positive, if `dropout_rate` is outside `[0, 1)` or
            given without a seed.
        tensorflow.errors.InvalidArgumentError: The same, where it is known only
            when the graph runs, and if lengths are out of range. From XLA it
            comes as `InternalError`; sizes that depend on values, as after
            `tf.boolean_mask`, are an `UnimplementedError` there.
        NotImplementedError: On a derivative of the gradient in forward mode on the
            path `"pybind"`.

    A derivative of the gradient (second order, forward mode) is computed in pure Keras,
    in memory for all scores. A `RuntimeWarning` says so once.

    Example:

    >>> query = keras.random.normal((2, 5, 4, 16))
    >>> key = value = keras.random.normal((2, 7, 4, 16))
    >>> dot_product_attention(query, key, value, is_causal=True).shape
    TensorShape([2, 5, 4, 16])

    Reference:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.2.1
        - [Dao, 2023](https://arxiv.org/abs/2307.08691), algorithms 1 and 2
        - [Salmon et al., 2011](https://doi.org/10.1145/2063384.2063405), for
          dropout
    """
    options = AttentionOptions(
        scale=scale,
        is_causal=is_causal,
        attn_logits_soft_cap=attn_logits_soft_cap,
        sliding_window=sliding_window,
        dropout_rate=dropout_rate,
        bias=bias,
        mask=mask,
        query_mask=query_mask,
        key_mask=key_mask,
        query_lengths=query_lengths,
        key_lengths=key_lengths,
        dropout_seed=dropout_seed,
    )
    if is_symbolic(query, key, value, options):
        return node(
            query,
            key,
            value,
            options,
            flash_attention=flash_attention,
            return_logsumexp=return_logsumexp,
            return_attention_scores=return_attention_scores,
        )
    call = AttentionCall(query, key, value, options)
    return call.run(return_logsumexp, return_attention_scores)


def attention_path(
    query: Any, key: Any, value: Any, *args: Any, **kwargs: Any
) -> CallPath:
    """Which path attention takes with these arguments, and why.

    Args:
        As `hw3tf.ops.dot_product_attention`, or, with a `tf.RaggedTensor` as
            `query`, `hw3tf.ops.ragged_dot_product_attention`. Neither is run.

    Returns:
        A `hw3tf.ops.AttentionPath`, with the attributes `path` (`"op"`,
        `"xla"`, `"pybind"` or `"reference"`) and `reason`.

    Raises:
        ValueError: As the function.
        TypeError: If an argument is not one of the function.

    Example:

    >>> x = keras.random.normal((1, 8, 2, 4))
    >>> print(attention_path(x, x, x, sliding_window=3))
    op (the kernel covers the call)
    >>> print(attention_path(x, x, x, scale=keras.ops.ones(())))
    reference (the kernel does not cover a tensor as `scale`)
    """
    ragged = is_ragged(query)
    function = ragged_dot_product_attention if ragged else dot_product_attention
    bound = inspect.signature(function).bind(query, key, value, *args, **kwargs)
    names = {field.name for field in dataclasses.fields(AttentionOptions)}
    options = {k: v for k, v in bound.arguments.items() if k in names}
    call = RaggedAttentionCall if ragged else AttentionCall
    return call(query, key, value, AttentionOptions(**options)).path


def attention_dropout_mask(
    batch_size: int,
    num_heads: int,
    query_length: int,
    key_length: int,
    rate: float,
    seed: int,
) -> NDArray[np.bool_]:
    """The attention weights that dropout keeps, as an array.

    For references and tests: the kernels never build it. Whether a weight is
    kept is a function of `(seed, batch entry, head, query, key)` alone, for
    every number of threads, instruction set and size: Philox4x32-10 with the
    counter `(key // 4, query, head, batch entry)`.

    Args:
        batch_size, num_heads, query_length, key_length: Integers.
        rate: Number from 0 to 1, exclusive: the share that is dropped.
        seed: Integer of 64 bits, signed or not.

    Returns:
        NumPy array of booleans of shape `(batch_size, num_heads, query_length,
        key_length)`, `True` where the weight is kept.

    Raises:
        ValueError: If a size is negative, `rate` is outside `[0, 1)` or `seed` is not
            an integer of 64 bits.

    Example:

    >>> keep = attention_dropout_mask(2, 4, 100, 100, rate=0.3, seed=1)
    >>> round(float(keep.mean()), 2)
    0.7

    Reference:
        - [Salmon et al., 2011](https://doi.org/10.1145/2063384.2063405)
    """
    check_seed("seed", seed)
    shape = (batch_size, num_heads, query_length, key_length)
    return np.asarray(
        _core.attention_dropout_mask(shape, rate=rate, seed=signed(int(seed)))
    )
