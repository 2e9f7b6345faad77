"""The integer recurrence under XLA: a custom call in place of the op.

The C++ side, csrc/tensorflow/xla_target.cc, reads what is put together here.
"""

import tensorflow as tf

from hw3tf.ops.xla_module import (
    OPERATIONS,
    Array,
    arrays_of,
    header_of,
    run_custom_call,
)

TARGET = OPERATIONS["integer_rnn"]["target"]
RANKS = {x["name"]: len(x["axes"]) for x in OPERATIONS["integer_rnn"]["operands"]}


def integer_rnn_xla(
    tensors: dict[str, tf.Tensor], options: dict, state_dtype: str
) -> tf.Tensor:
    """As `integer_rnn_op`. An overflow ends the call with an error of XLA's, which
    has the message of the kernel."""
    given = {
        name: tf.ensure_shape(tensors[name], [None] * rank)
        for name, rank in RANKS.items()
        if name in tensors
    }
    arrays = dict(zip(given, arrays_of(given.values()), strict=True))
    types = {
        "T": state_dtype,
        "Weight": arrays["recurrent_kernel"].dtype,
        "Input": arrays["inputs"].dtype,
    }
    low, high = options["clip"] or (0, 0)
    attributes = {
        **options,
        "activation": options["activation"] or "none",
        "clip_low": low,
        "clip_high": high,
    }
    header = header_of("integer_rnn", types, attributes, arrays)
    rows = arrays["inputs"].sizes[: 2 if options["return_sequences"] else 1]
    units = arrays["recurrent_kernel"].sizes[1]
    result = Array((*rows, units), state_dtype)
    return run_custom_call(TARGET, header, list(given.values()), [result])[0]
