"""Attention and recurrent layers for plain PyTorch, on a CPU: the kernels, in the
layout and with the arguments of PyTorch's own functions.

>>> import torch
>>> import hw3tf.torch
>>> query = key = value = torch.randn(2, 8, 100, 64)
>>> hw3tf.torch.scaled_dot_product_attention(query, key, value, is_causal=True).shape
torch.Size([2, 8, 100, 64])

Everything here works in `torch.compile(fullgraph=True)`, `torch.export`, under
autocast, with `torch.func.grad`, `torch.vmap` and activation checkpoints, and on
`meta`. Gradients of gradients, and forward mode, are computed in pure Keras: they need
Keras to run on torch, KERAS_BACKEND=torch in the environment, and say so otherwise.
Nothing else here depends on the backend of Keras.

On Linux the kernels run on PyTorch's own threads, as many as `torch.set_num_threads`
says, unless `hw3tf.ops.set_num_threads` or `HW3TF_NUM_THREADS` say otherwise.
"""

from typing import Any

try:
    import torch
except ImportError as error:
    raise ImportError(
        "hw3tf.torch needs PyTorch, which is not installed: pip install 'hw3tf[torch]'"
    ) from error

from hw3tf.ops.fronts import torch_ops
from hw3tf.ops.fronts.torch_kernels import has_values
from hw3tf.ops.rnn.options import RnnOptions

__all__ = ["gru", "lstm", "scaled_dot_product_attention"]

_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """`torch.nn.functional.scaled_dot_product_attention` on the fused kernel.

    Differences from PyTorch's function:

    - Tensors must be on the CPU (or on `meta`); others are an error.
    - Shapes and dtypes that do not fit are a `ValueError`.
    - Which weights `dropout_p` drops is drawn by a generator of our own. Its seed comes
      from PyTorch's, so that `torch.manual_seed` fixes it.
    - bfloat16 and float16 are summed in float32, as PyTorch does on some paths only.
    - The result is a view whose memory is in the order `(N, L, H, Ev)`: to go on with
      `transpose(1, 2).flatten(2)`, as after attention one does, copies nothing.
    - The gradient of `attn_mask` is computed with all others, not by a slower path.

    What is the same: a query that sees no key gets zeros, and gives no gradient; the
    causal mask is aligned at the top left; within autocast, float32 becomes the dtype
    of autocast.

    Args:
        query: Float tensor of shape `(N, ..., Hq, L, E)`; no axis but the last two must
            be there. It may have any strides. Only what is not contiguous along its
            last axis is copied.
        key: Tensor of shape `(N, ..., H, S, E)`.
        value: Tensor of shape `(N, ..., H, S, Ev)`.
        attn_mask: Optional tensor that broadcasts to `(N, ..., Hq, L, S)`: booleans,
            `True` = takes part, or floats, which are added to the scores. A boolean
            mask of shape `(N, 1, 1, S)` is the cheap one: masked keys cost no time.
        dropout_p: Number from 0 to 1: the share of the weights that is dropped. Pass
            0 at inference.
        is_causal: Whether query `t` sees keys `0..t` only; not with `attn_mask`.
        scale: Factor of the scores. Defaults to `1 / sqrt(E)`.
        enable_gqa: Whether key and value may have fewer heads, `H`, than query: each
            serves `Hq / H` consecutive heads of query.

    Returns:
        Tensor of shape `(N, ..., Hq, L, Ev)`.

    Raises:
        ValueError: If shapes, dtypes or devices are not as above.
    """
    _check_tensors(query=query, key=key, value=value)
    if torch.is_autocast_enabled("cpu"):
        query, key, value = map(_as_autocast, (query, key, value))
    _check_attention(query, key, value, enable_gqa)
    if not 0 <= dropout_p <= 1:
        raise ValueError(
            f"`dropout_p` must be from 0 to 1. Received: dropout_p={dropout_p}"
        )
    if is_causal and attn_mask is not None:
        raise ValueError(
            "`attn_mask` and `is_causal=True` exclude each other, as in PyTorch. "
            "Received: both"
        )
    shape = query.shape[:-1]
    if len(shape) != 3:
        query, key, value = map(_of_rank_4, (query, key, value))
    tensors: dict[str, Any] = {}
    if attn_mask is not None:
        tensors = _mask(attn_mask, shape, query, key)
    seed = torch.randint(2**63 - 1, ()) if 0 < dropout_p < 1 else None
    # The kernel's order is (N, L, H, E): views. Names as in csrc/operations.
    output, logsumexp = torch_ops.attention_of(
        {
            "query": query.transpose(1, 2),
            "key": key.transpose(1, 2),
            "value": value.transpose(1, 2),
            **tensors,
            "scale": query.shape[-1] ** -0.5 if scale is None else float(scale),
            "is_causal": bool(is_causal),
            "window_before": -1,
            "window_after": -1,
            "soft_cap": 0.0,
            "dropout_rate": 0.0 if seed is None else float(dropout_p),
            "dropout_seed": seed,
            "finite_logsumexp": True,
        }
    )
    if tensors:  # the kernel has the mean of the values there, as Keras
        nothing = _sees_nothing(tensors, logsumexp)
        if not has_values(nothing) or nothing.any():  # the fill copies the output
            output = output.masked_fill(nothing, 0)
    if dropout_p == 1:
        output = output * 0
    output = output.transpose(1, 2)
    return output if len(shape) == 3 else output.reshape(*shape, output.shape[-1])


def lstm(
    input: torch.Tensor,
    hx: tuple[torch.Tensor, torch.Tensor] | None,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias_ih: torch.Tensor | None = None,
    bias_hh: torch.Tensor | None = None,
    batch_first: bool = False,
    *,
    lengths: torch.Tensor | None = None,
    reverse: bool = False,
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """One layer and direction of `torch.nn.LSTM`, with its weights.

    Differences from `torch.nn.LSTM`: states have no axis of layers; there is no
    projection; instead of packed sequences there are `lengths`.

    Args:
        input: Float tensor of shape `(L, N, F)`, or `(N, L, F)` if `batch_first`.
        hx: States before the first step, h and c, `(N, U)` each; None for zeros.
        weight_ih: `(4 * U, F)`, such as `layer.weight_ih_l0`.
        weight_hh: `(4 * U, U)`.
        bias_ih, bias_hh: `(4 * U,)`, both or neither.
        batch_first: Whether the batch is the first axis of `input` and of the outputs.
        lengths: Optional int32 tensor `(N,)`: the steps of each sequence. Steps beyond
            cost no time; their outputs are 0, as from `pad_packed_sequence`.
        reverse: Whether steps are taken from the last to the first, as in the second
            direction of a bidirectional layer; outputs are in the order of the input.

    Returns:
        Outputs, of the shape of `input` with U in place of F, and the last states,
        h and c, `(N, U)`.

    Raises:
        ValueError: If shapes, dtypes or devices do not fit each other.
    """
    tensors = _weights(weight_ih, weight_hh, bias_ih, bias_hh)
    states = {} if hx is None else {"h_0": hx[0], "c_0": hx[1]}
    _check_recurrent(input, tensors, states, 4, lengths, batch_first)
    operands = {
        "kernel": weight_ih.t().contiguous(),
        "recurrent_kernel": weight_hh.t().contiguous(),
    }
    if "bias_ih" in tensors:
        operands["bias"] = tensors["bias_ih"] + tensors["bias_hh"]
    if states:
        operands |= {"initial_h": states["h_0"], "initial_c": states["c_0"]}
    output, h, c = _run("lstm", input, operands, lengths, batch_first, reverse)
    return output, (h, c)


def gru(
    input: torch.Tensor,
    hx: torch.Tensor | None,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias_ih: torch.Tensor | None = None,
    bias_hh: torch.Tensor | None = None,
    batch_first: bool = False,
    *,
    lengths: torch.Tensor | None = None,
    reverse: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One layer and direction of `torch.nn.GRU`, with its weights.

    Args:
        As for `lstm`, with 3 in place of 4, and one state, h, as `hx`.

    Returns:
        Outputs, of the shape of `input` with U in place of F, and the last state,
        `(N, U)`.

    Raises:
        ValueError: If shapes, dtypes or devices do not fit each other.
    """
    tensors = _weights(weight_ih, weight_hh, bias_ih, bias_hh)
    states = {} if hx is None else {"h_0": hx}
    _check_recurrent(input, tensors, states, 3, lengths, batch_first)
    operands = {
        "kernel": _in_order_of_keras(weight_ih).t().contiguous(),
        "recurrent_kernel": _in_order_of_keras(weight_hh).t().contiguous(),
    }
    if "bias_ih" in tensors:
        operands["bias"] = _in_order_of_keras(tensors["bias_ih"])
        operands["recurrent_bias"] = _in_order_of_keras(tensors["bias_hh"])
    if states:
        operands["initial_h"] = states["h_0"]
    output, h, _ = _run("gru", input, operands, lengths, batch_first, reverse)
    return output, h


# --------------------------------------------------------------------- attention


def _check_tensors(**tensors: Any) -> None:
    for name, x in tensors.items():
        strided = type(x) is torch.Tensor and x.layout is torch.strided
        if strided and x.is_cpu and not x.is_nested:
            continue  # most calls
        if not isinstance(x, torch.Tensor):
            raise ValueError(
                f"`{name}` must be a torch.Tensor. Received: {type(x).__name__}"
            )
        if x.is_nested or x.layout != torch.strided:
            raise ValueError(
                f"`{name}` must be a dense tensor. Received: {name}.layout={x.layout}"
            )
        if x.device.type not in ("cpu", "meta"):
            raise ValueError(
                f"`{name}` must be on the CPU. Received: {name}.device={x.device}"
            )


def _check_same_dtype(**tensors: torch.Tensor) -> None:
    (first, like), *others = tensors.items()
    if like.dtype not in _FLOATS:
        raise ValueError(
            f"`{first}` must have dtype float32, bfloat16, float16 or float64. "
            f"Received: {first}.dtype={like.dtype}"
        )
    for name, x in others:
        if x.dtype != like.dtype:
            raise ValueError(
                f"`{name}` must have the dtype of `{first}`. Received: "
                f"{name}.dtype={x.dtype}, {first}.dtype={like.dtype}"
            )


def _as_autocast(x: torch.Tensor) -> torch.Tensor:
    """`x` as PyTorch's autocast hands it on: float64 and integers stay."""
    if not x.is_floating_point() or x.dtype == torch.float64:
        return x
    return x.to(torch.get_autocast_dtype("cpu"))


def _check_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, enable_gqa: bool
) -> None:
    _check_same_dtype(query=query, key=key, value=value)
    of_query, of_key, of_value = query.shape, key.shape, value.shape
    if (
        len(of_query) == 4
        and of_query[:2] == of_key[:2]
        and of_query[3] == of_key[3]
        and of_key[:3] == of_value[:3]
    ):
        return  # most calls: 4 us less
    shapes = (
        f"Received: query.shape={tuple(query.shape)}, key.shape={tuple(key.shape)}, "
        f"value.shape={tuple(value.shape)}"
    )
    if query.ndim < 2 or not query.ndim == key.ndim == value.ndim:
        raise ValueError(
            "`query`, `key` and `value` must have as many axes, two at least: "
            f"(..., length, size). {shapes}"
        )
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(f"`query` and `key` must have the same last axis. {shapes}")
    if key.shape[:-1] != value.shape[:-1]:
        raise ValueError(
            f"`key` and `value` must have the same axes but for the last. {shapes}"
        )
    if query.ndim > 3 and any(
        a != b and b != 1 for a, b in zip(query.shape[:-3], key.shape[:-3], strict=True)
    ):
        raise ValueError(
            "the first axes of `key` and `value` must be those of `query`, or 1. "
            f"{shapes}"
        )
    if query.ndim < 3 or query.shape[-3] == key.shape[-3]:
        return
    if query.ndim < 4 or not enable_gqa:
        raise ValueError(
            "`key` must have as many heads as `query`, or fewer with "
            f"`enable_gqa=True`. {shapes}"
        )
    if key.shape[-3] == 0 or query.shape[-3] % key.shape[-3]:
        raise ValueError(f"the heads of `key` must divide those of `query`. {shapes}")


def _of_rank_4(x: torch.Tensor) -> torch.Tensor:
    """`x` with the axes (batch, heads, length, size)."""
    return x.reshape(-1, *x.shape[-3:]) if x.ndim > 4 else x[(None,) * (4 - x.ndim)]


def _mask(
    mask: torch.Tensor, shape: torch.Size, query: torch.Tensor, key: torch.Tensor
) -> dict[str, torch.Tensor]:
    """`attn_mask` as an option of the kernel.

    Args:
        mask: As it was given.
        shape: That of the query, without its last axis.
        query, key: Of rank 4.
    """
    _check_tensors(attn_mask=mask)
    scores = (*shape, key.shape[2])
    fits = mask.ndim <= len(scores) and all(
        a in (1, b)
        for a, b in zip(reversed(mask.shape), reversed(scores), strict=False)
    )
    if not fits:
        raise ValueError(
            f"`attn_mask` must broadcast to the scores, {scores}. "
            f"Received: attn_mask.shape={tuple(mask.shape)}"
        )
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ValueError(
            "`attn_mask` must have dtype bool or be floating point. "
            f"Received: attn_mask.dtype={mask.dtype}"
        )
    if len(scores) > 4:
        mask = mask.expand(*scores[:-3], *_last(mask, 3)).flatten(0, len(scores) - 4)
    elif mask.ndim < 4:
        mask = mask[(None,) * (4 - mask.ndim)]
    tensors = {}
    if mask.dtype != torch.bool:
        real = torch.float64 if query.dtype == torch.float64 else torch.float32
        tensors["bias"] = mask.to(real)
        # To PyTorch -inf hides a key. To the kernel it is a number, which makes NaN of
        # a row that has no other.
        mask = mask != -torch.inf
    if mask.shape[1:3] == (1, 1):
        tensors["key_mask"] = mask[:, 0, 0].expand(-1, key.shape[2])
    else:
        tensors["mask"] = mask
    return tensors


def _sees_nothing(
    tensors: dict[str, torch.Tensor], logsumexp: torch.Tensor
) -> torch.Tensor:
    """Which queries see no key, as booleans that broadcast to `(N, L, Hq, Ev)`."""
    if "bias" not in tensors:
        nothing = logsumexp <= torch.finfo(logsumexp.dtype).min
        return nothing.transpose(1, 2).unsqueeze(-1)
    # A bias may be the lowest number, and hides nothing.
    if "key_mask" in tensors:
        return ~tensors["key_mask"].any(-1)[:, None, None, None]
    return ~tensors["mask"].any(-1).transpose(1, 2).unsqueeze(-1)


def _last(x: torch.Tensor, count: int) -> tuple[int, ...]:
    """The last `count` sizes of `x`, 1 for those that it lacks."""
    return (1,) * (count - x.ndim) + tuple(x.shape[-count:])


# ---------------------------------------------------------------- recurrent layers


def _in_order_of_keras(x: torch.Tensor) -> torch.Tensor:
    """The gates of a GRU: PyTorch has reset, update, new, Keras update, reset, new."""
    reset, update, new = x.chunk(3)
    return torch.cat((update, reset, new))


def _weights(
    weight_ih: torch.Tensor, weight_hh: torch.Tensor, bias_ih: Any, bias_hh: Any
) -> dict[str, torch.Tensor]:
    """Those that are given, by name: both biases, or neither."""
    biases = {"bias_ih": bias_ih, "bias_hh": bias_hh}
    given = {name: x for name, x in biases.items() if x is not None}
    if len(given) == 1:
        raise ValueError("`bias_ih` and `bias_hh` must both be given. Received: one")
    return {"weight_ih": weight_ih, "weight_hh": weight_hh, **given}


def _check_recurrent(
    input: torch.Tensor,
    weights: dict[str, torch.Tensor],
    states: dict[str, torch.Tensor],
    gates: int,
    lengths: torch.Tensor | None,
    batch_first: bool,
) -> None:
    tensors = {"input": input, **weights, **states}
    _check_tensors(**tensors)
    _check_same_dtype(**tensors)
    if input.ndim != 3:
        raise ValueError(
            "`input` must have three axes: (length, batch, features), or with "
            "`batch_first` (batch, length, features). "
            f"Received: input.shape={tuple(input.shape)}"
        )
    batch, features = input.shape[0 if batch_first else 1], input.shape[2]
    units = weights["weight_hh"].shape[-1]
    wanted: dict[str, tuple[int, ...]] = {
        "weight_ih": (gates * units, features),
        "weight_hh": (gates * units, units),
        "bias_ih": (gates * units,),
        "bias_hh": (gates * units,),
        "h_0": (batch, units),
        "c_0": (batch, units),
    }
    for name, x in {**weights, **states}.items():
        if tuple(x.shape) != wanted[name]:
            raise ValueError(
                f"`{name}` must have shape {wanted[name]}. "
                f"Received: {name}.shape={tuple(x.shape)}"
            )
    if lengths is None:
        return
    _check_tensors(lengths=lengths)
    if lengths.dtype != torch.int32 or tuple(lengths.shape) != (batch,):
        raise ValueError(
            f"`lengths` must have dtype int32 and shape {(batch,)}. Received: "
            f"lengths.dtype={lengths.dtype}, lengths.shape={tuple(lengths.shape)}"
        )


def _run(
    cell: str,
    input: torch.Tensor,
    operands: dict[str, torch.Tensor],
    lengths: torch.Tensor | None,
    batch_first: bool,
    reverse: bool,
) -> tuple[torch.Tensor, Any, Any]:
    operands["inputs"] = input if batch_first else input.transpose(0, 1)
    if lengths is not None:
        operands["lengths"] = lengths
    options = RnnOptions(
        return_sequences=True, reverse=reverse, zero_output_for_mask=True
    )
    output, h, c = torch_ops.rnn(cell, operands, options)
    if reverse:  # outputs come in the order in which they are made
        output = output.flip(1)
    return output if batch_first else output.transpose(0, 1), h, c
