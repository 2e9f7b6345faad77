"""The kernel under XLA: two custom calls in place of the two ops.

The C++ side, csrc/tensorflow/attention_xla.cc, reads what is put together here.

A call costs what the op does: for (2, 512, 512, 12, 12, 64) the median ratio of 150
interleaved calls, compiled by XLA / not, was 0.94 forward and 1.01 with gradients
(processor time: 1.00, 1.01). The reference under XLA took 3 to 4 times as long.
"""

import tensorflow as tf

from hw3tf.ops.attention_options import TENSORS, bits_of, real_dtype
from hw3tf.ops.attention_second_order import second_order
from hw3tf.ops.xla_module import Array, arrays_of, broadcast_size, run_custom_call

DTYPES = (
    "float32",
    "bfloat16",
    "float16",
    "float64",
)  # as in kernels/attention/attention.h
FORWARD, BACKWARD = "hw3tf_attention_1", "hw3tf_attention_grad_1"
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
            _header(options, names, arrays, 4),
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
            _header(options, names, arrays),
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


def _header(options, names, arrays, more=0):
    """What the call must know beside its arrays: numbers, ranks, sizes.

    Args:
        options: `AttentionOptions`.
        names: Those of `TENSORS` that are given; a bias comes first.
        arrays: `Array`s of the arguments: seed, query, key, value, the rest.
        more: How many arrays, always given, follow those of `TENSORS`.
    """
    before, after = options.window
    given = iter(arrays[1:])
    slots = [next(given) for _ in range(3)]
    slots += [next(given) if n in names else None for n in TENSORS[:-1]]
    slots += [next(given) for _ in range(more)]
    return [
        DTYPES.index(arrays[1].dtype),
        int(options.is_causal) + 2 * FINITE_LOGSUMEXP,
        before,
        after,
        tf.config.threading.get_intra_op_parallelism_threads(),
        bits_of(options.scale),
        bits_of(options.attn_logits_soft_cap or 0.0),
        bits_of(options.dropout_rate),
        *(-1 if x is None else len(x.sizes) for x in slots),
        *(size for x in slots if x is not None for size in x.sizes),
    ]
