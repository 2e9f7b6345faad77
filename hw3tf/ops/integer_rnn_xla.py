"""The integer recurrence under XLA: a custom call in place of the op.

The C++ side, csrc/tensorflow/recurrence_xla.cc, reads what is put together here.
"""

import tensorflow as tf

from hw3tf.ops.xla_module import Array, arrays_of, run_custom_call
from hw3tf.reference.integer_rnn_arguments import ACTIVATIONS, INPUT_DTYPES, OVERFLOWS

TARGET = "hw3tf_integer_rnn_1"
TENSORS = ("inputs", "kernel", "recurrent_kernel", "bias", "initial_state", "mask")


def integer_rnn_xla(
    tensors: dict[str, tf.Tensor], options: dict, state_dtype: str
) -> tf.Tensor:
    """As `integer_rnn_op`. An overflow ends the call with an error of XLA's, which
    has the message of the kernel."""
    ranks = dict.fromkeys(TENSORS, 2) | {"inputs": 3, "bias": 1}
    given = {
        name: tf.ensure_shape(tensors[name], [None] * ranks[name])
        for name in TENSORS
        if name in tensors
    }
    arrays = arrays_of(given.values())
    arrays_by_name = dict(zip(given, arrays, strict=True))
    low, high = options["clip"] or (0, 0)
    header = [
        INPUT_DTYPES.index(arrays_by_name["inputs"].dtype),
        INPUT_DTYPES.index(arrays_by_name["recurrent_kernel"].dtype),
        INPUT_DTYPES.index(state_dtype),
        ACTIVATIONS.index(options["activation"]),
        int(low),
        int(high),
        OVERFLOWS.index(options["overflow"]),
        options["fractional_bits"],
        int(options["reverse"]),
        int(options["return_sequences"]),
        tf.config.threading.get_intra_op_parallelism_threads(),
        *(ranks[name] if name in given else -1 for name in TENSORS),
        *(size for x in arrays for size in x.sizes),
    ]
    rows = arrays_by_name["inputs"].sizes[: 2 if options["return_sequences"] else 1]
    units = arrays_by_name["recurrent_kernel"].sizes[1]
    result = Array((*rows, units), state_dtype)
    return run_custom_call(TARGET, header, list(given.values()), [result])[0]
