"""The kernel under XLA: two custom calls in place of the two ops.

The C++ side, csrc/tensorflow/xla_target.cc, reads what is put together here.

A call costs what the op does: for (2, 512, 512, 12, 12, 64) the median ratio of 150
interleaved calls, compiled by XLA / not, was 0.94 forward and 1.01 with gradients
(processor time: 1.00, 1.01). The reference under XLA took 3 to 4 times as long.
"""

import tensorflow as tf

from hw3tf.ops.attention_options import TENSORS, real_dtype
from hw3tf.ops.attention_second_order import second_order
from hw3tf.ops.xla_module import (
    OPERATIONS,
    Array,
    arrays_of,
    broadcast_size,
    header_of,
    run_custom_call,
)

FORWARD, BACKWARD = (OPERATIONS[n]["target"] for n in ("attention", "attention_grad"))
FINITE_LOGSUMEXP = True  # as `attention_op`


def attention_xla(query, key, value, options):
    """Output and logsumexp, with gradients; as `attention_op`."""
    names = [n for n in TENSORS[:-1] if getattr(options, n) is not None]
    tensors = {n: getattr(options, n) for n in names}
    seed = options.dropout_seed
    seed = tf.constant(0, tf.int64) if seed is None else seed
    masks = [tensors[n] for n in names if n != "bias"]
    inside = [query, key, value] + ([tensors["bias"]] if "bias" in tensors else [])
    real = real_dtype(query.dtype.name)

    @tf.custom_gradient
    def backward(*arguments):
        inputs, results = arguments[: len(inside)], arguments[len(inside) :]
        arrays = arrays_of([seed, *inputs, *masks, *results])
        grads = run_custom_call(
            BACKWARD,
            _header("attention_grad", options, names, arrays),
            [seed, *inputs, *masks, *results],
            [Array(x.sizes, x.dtype) for x in arrays[1 : 1 + len(inside)]],
        )

        def gradient_of_gradient(*upstream):
            more = second_order(inputs, options, results[2:], upstream)
            return *more[:-2], None, None, *more[-2:]

        return grads, gradient_of_gradient

    @tf.custom_gradient
    def forward(*inputs):
        arrays = arrays_of([seed, *inputs, *masks])
        rows, value_dim = arrays[1].sizes, arrays[3].sizes[-1]
        if len(rows) == 4:
            batch = broadcast_size([x.sizes[0] for x in arrays[1:4]])
            rows = (batch, *rows[1:])
        lengths = (*rows[:-3], rows[-2], rows[-3])
        output, statistics, logsumexp = run_custom_call(
            FORWARD,
            _header("attention", options, names, arrays),
            [seed, *inputs, *masks],
            [
                Array((*rows[:-1], value_dim), arrays[1].dtype),
                Array((*lengths, 2), real),
                Array(lengths, real),
            ],
        )

        def gradient(grad_output, grad_logsumexp):
            return backward(*inputs, output, statistics, grad_output, grad_logsumexp)

        return (output, logsumexp), gradient

    return forward(*inside)


def _header(operation, options, names, arrays):
    """What the call must know beside its arrays: numbers, ranks, sizes.

    Args:
        operation: Its name in the table of operations.
        options: `AttentionOptions`.
        names: Those of `TENSORS` that are given; a bias comes first.
        arrays: `Array`s of the arguments: seed, query, key, value, those of `names`,
            the rest, which is always given.
    """
    before, after = options.window
    attributes = {
        "scale": options.scale,
        "is_causal": options.is_causal,
        "window_before": before,
        "window_after": after,
        "soft_cap": options.attn_logits_soft_cap or 0.0,
        "dropout_rate": options.dropout_rate,
        "finite_logsumexp": FINITE_LOGSUMEXP,
    }
    operands = [x["name"] for x in OPERATIONS[operation]["operands"]]
    given = [n for n in operands if n in names or n not in TENSORS]
    dtype = arrays[1].dtype
    return header_of(
        operation,
        {"T": dtype, "Real": real_dtype(dtype)},
        attributes,
        dict(zip(given, arrays[1:], strict=True)),
    )
