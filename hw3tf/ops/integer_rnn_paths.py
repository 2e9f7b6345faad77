"""The implementations of the integer recurrence, behind one signature.

Each takes what `IntegerRnnCall` has made of the arguments: a dictionary of the
tensors or arrays that are given, the dictionary of the options, and the dtype of
the state.
"""

import numpy as np

from hw3tf import _core, reference
from hw3tf.ops.libraries import load_op_library

OVERFLOW = "the recurrence overflows"  # as csrc/operations/integer_rnn.cc


def _kernel_options(options):
    low, high = options["clip"] or (0, 0)
    return {
        "activation": options["activation"] or "none",
        "clip_low": int(low),
        "clip_high": int(high),
        "reverse": options["reverse"],
        "overflow": options["overflow"],
        "fractional_bits": options["fractional_bits"],
    }


def integer_rnn_op(tensors, options, state_dtype):
    """The TensorFlow op. An empty tensor of rank 1 stands for one not given."""
    import tensorflow as tf

    library = load_op_library()
    run = library.hw3tf_integer_rnn
    if options["return_sequences"]:
        run = library.hw3tf_integer_rnn_sequence
    given = [
        tf.convert_to_tensor(tensors[name])
        for name in ("inputs", "kernel", "recurrent_kernel")
    ]
    for name in ("bias", "initial_state", "mask"):
        x = tensors.get(name)
        if x is None:
            x = tf.zeros([0], "bool" if name == "mask" else state_dtype)
        given.append(tf.convert_to_tensor(x))
    try:
        return run(*given, **_kernel_options(options))
    except tf.errors.InvalidArgumentError as error:  # eagerly only
        message = error.message
        begin, end = message.find(OVERFLOW), message.rfind(" [Op:")
        if begin < 0:  # a shape that does not fit
            raise
        raise OverflowError(message[begin : end if end > 0 else None]) from None


def integer_rnn_xla(tensors, options, state_dtype):
    """The kernel as a custom call of XLA."""
    from hw3tf.ops import integer_rnn_xla as xla

    return xla.integer_rnn_xla(tensors, options, state_dtype)


def integer_rnn_pybind(tensors, options, state_dtype):
    """The same kernel through pybind11: for where the op library cannot be
    loaded. Eagerly a plain call, in a graph a `tf.numpy_function`."""
    import tensorflow as tf

    names = list(tensors)
    keywords = _kernel_options(options)
    keywords["return_sequences"] = options["return_sequences"]

    def run(*arrays):
        arrays = [np.ascontiguousarray(x) for x in arrays]
        given = dict(zip(names, arrays, strict=True))
        return _core.integer_rnn(**given, **keywords)

    if tf.executing_eagerly():
        return tf.convert_to_tensor(run(*map(np.asarray, tensors.values())))

    def run_in_graph(*arrays):
        try:
            return run(*arrays)
        except OverflowError as error:
            # What TensorFlow turns into InvalidArgumentError.
            raise ValueError(str(error)) from None

    inside = list(tensors.values())
    states = tf.numpy_function(run_in_graph, inside, state_dtype, stateful=False)
    shape = tf.TensorShape(tensors["inputs"].shape).with_rank(3)
    units = tf.TensorShape(tensors["recurrent_kernel"].shape).with_rank(2)[1:]
    states.set_shape(shape[: 2 if options["return_sequences"] else 1] + units)
    return states


def integer_rnn_reference(tensors, options, state_dtype):
    """Pure Keras."""
    return reference.integer_rnn(**tensors, **options)


PATHS = {
    "op": integer_rnn_op,
    "xla": integer_rnn_xla,
    "pybind": integer_rnn_pybind,
    "reference": integer_rnn_reference,
}
