"""The kernels for JAX itself: functions of arrays, for `jax.jit` and everything else.

>>> import jax
>>> from hw3tf.jax import dot_product_attention
>>> q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 128, 4, 64))
>>> dot_product_attention(q, k, v, is_causal=True).shape
(2, 128, 4, 64)

They work with `KERAS_BACKEND=jax`, which must be set before Keras or hw3tf is imported.
`lstm`, `gru`, `simple_rnn` and `integer_rnn` are those of `hw3tf.ops`. A function that
was exported by `jax.export` needs `hw3tf.jax` imported where it is loaded. The import
starts JAX's backend: call `jax.distributed.initialize` before it.

In `jax.jit`, `jax.grad`, `jax.vmap`, `jax.lax.scan`, `jax.checkpoint` and
`jax.shard_map` the compiled program calls the kernels. Derivatives of a gradient are
computed without them, and JAX refuses forward mode. `jax.export` needs the names of the
calls:

>>> checks = [
...     jax.export.DisabledSafetyCheck.custom_call(name) for name in EXPORTED_CALLS
... ]
"""

from typing import Any

import jax as _jax
import keras as _keras

if _keras.backend.backend() != "jax":
    raise ImportError(
        "hw3tf.jax must be imported with Keras's backend jax: set KERAS_BACKEND=jax in "
        "the environment before Keras is imported. The backend is "
        f"{_keras.backend.backend()}"
    )

from hw3tf.ops import gru, integer_rnn, lstm, simple_rnn
from hw3tf.ops.attention.call import with_infinity as _with_infinity
from hw3tf.ops.attention.checks import check_call as _check_call
from hw3tf.ops.attention.options import AttentionOptions as _Options
from hw3tf.ops.attention.options import kernel_options as _kernel_options
from hw3tf.ops.fronts import ffi as _ffi
from hw3tf.ops.paths import kernel_path as _kernel_path

__all__ = [
    "EXPORTED_CALLS",
    "dot_product_attention",
    "gru",
    "integer_rnn",
    "lstm",
    "simple_rnn",
]

# Loads what exported functions call, and tells their names.
EXPORTED_CALLS = _ffi.exported_calls()


def dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    query_seq_lengths: Any = None,
    key_value_seq_lengths: Any = None,
    local_window_size: int | tuple[int, int] | None = None,
    implementation: str | None = None,
    return_residual: bool = False,
) -> Any:
    """`jax.nn.dot_product_attention` on the fused kernel, with the same arguments.

    Differences from `jax.nn`: neither the scores nor a mask of their size is built;
    float16 and bfloat16 are summed in float32, the weights too; `value` may have
    another size than `key`; `bias` and `mask` may have fewer than four axes; `mask` may
    hold numbers, nonzero = takes part. NaN in a masked key or value does not reach the
    output. Where JAX computes on another device than the CPU, this is `jax.nn`'s.

    Args:
        query: Float array of shape `(batch, query_length, num_heads, head_dim)`, or
            without the batch. float32, bfloat16, float16, or float64 with x64 enabled.
        key: Array of the same dtype and shape `(batch, key_length, num_kv_heads,
            head_dim)`, where `num_kv_heads` divides `num_heads`.
        value: Array of the same dtype and shape `(batch, key_length, num_kv_heads,
            value_dim)`.
        bias: Optional array, broadcast to the scores `(batch, num_heads, query_length,
            key_length)` and added to them.
        mask: Optional boolean array, broadcast likewise; `True` = takes part. A query
            that sees no key gets the mean of all values, as in `jax.nn`.
        scale: Number. Defaults to `1 / sqrt(head_dim)`.
        is_causal: Whether query `t` sees keys `0..t` only. Defaults to `False`.
        query_seq_lengths, key_value_seq_lengths: Optional int32 arrays of shape
            `(batch,)`. The output of queries from this position on is zero.
        local_window_size: Optional integer, or a pair of them: how many keys before
            and after its own position a query sees.
        implementation: None for the kernel, or `"xla"` or `"cudnn"` for `jax.nn`'s.
        return_residual: Whether to return the logsumexp, too, of shape `(batch,
            query_length, num_heads)`, in the dtype of `key` and without a gradient. A
            query that sees no key has `-inf`, where `jax.nn` has a large negative
            number.

    Returns:
        Array of shape `(batch, query_length, num_heads, value_dim)`, without the batch
        if `query` has none; or a tuple of it and the logsumexp.

    Raises:
        ValueError: If an argument is not what it must be. Lengths that are wrong, and
            known only when a compiled function runs, are an error of JAX's with the
            same message.

    Example:

    >>> q = _jax.numpy.ones((1, 3, 2, 8))
    >>> dot_product_attention(q, q, q, local_window_size=(1, 0)).shape
    (1, 3, 2, 8)
    """
    if implementation is not None or _kernel_path().path == "reference":
        more: dict[str, Any] = {"return_residual": True} if return_residual else {}
        return _jax.nn.dot_product_attention(
            query,
            key,
            value,
            bias,
            mask,
            scale=scale,
            is_causal=is_causal,
            query_seq_lengths=query_seq_lengths,
            key_value_seq_lengths=key_value_seq_lengths,
            local_window_size=local_window_size,
            implementation=implementation,
            **more,
        )
    numpy = _jax.numpy
    query, key, value = map(numpy.asarray, (query, key, value))
    packed = [x.ndim for x in (query, key, value)]
    if set(packed) == {3}:
        query, key, value = (x[None] for x in (query, key, value))
    if not query.dtype == key.dtype == value.dtype:
        raise ValueError(
            "`query`, `key` and `value` must have one dtype. Received: "
            f"query.dtype={query.dtype}, key.dtype={key.dtype}, "
            f"value.dtype={value.dtype}"
        )
    given = {
        "bias": bias,
        "mask": mask,
        "query_lengths": query_seq_lengths,
        "key_lengths": key_value_seq_lengths,
    }
    tensors: dict[str, Any] = {
        k: numpy.asarray(x) for k, x in given.items() if x is not None
    }
    if "mask" in tensors:
        tensors["mask"] = tensors["mask"].astype(bool)
    for name in ("query_lengths", "key_lengths"):
        if name in tensors:
            tensors[name] = tensors[name].astype("int32")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    options = _Options(scale=scale, is_causal=bool(is_causal), **tensors)
    _check_call(query, key, value, tensors, options)
    options = _kernel_options(options, query, key)
    output, logsumexp = _ffi.attention(
        query, key, value, options, window=_window(local_window_size)
    )
    if query_seq_lengths is not None:
        rows = numpy.arange(query.shape[1]) < tensors["query_lengths"][:, None]
        output = numpy.where(rows[..., None, None], output, 0)
    if set(packed) == {3}:
        output, logsumexp = output[0], logsumexp[0]
    if not return_residual:
        return output
    logsumexp = numpy.moveaxis(_with_infinity(logsumexp), -1, -2)
    return output, _jax.lax.stop_gradient(logsumexp).astype(key.dtype)


def _window(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    before, after = (size, size) if isinstance(size, int) else size
    for number in (before, after):
        if not isinstance(number, int) or number < 0:
            raise ValueError(
                "`local_window_size` must be None, an integer of at least 0 or two of "
                f"them. Received: local_window_size={size!r}"
            )
    # A window longer than any sequence hides nothing.
    return min(before, 2**31 - 1), min(after, 2**31 - 1)
