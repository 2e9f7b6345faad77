"""The error of an integer recurrence that overflows. To raise it in a graph needs
TensorFlow; under XLA it cannot be raised at all."""

from collections.abc import Iterable

from keras import backend, ops

from hw3tf._types import Tensor


def overflow_message(timesteps: Iterable[int], dtype: str) -> str:
    """The kernel's message for the first overflow of each batch entry, -1 if an entry
    does not overflow; empty if none does."""
    for batch_entry, timestep in enumerate(timesteps):
        if timestep >= 0:
            return (
                f"the recurrence overflows {dtype} in batch entry {batch_entry} at "
                f'timestep {timestep}. A wider dtype holds more; overflow="wrap" and '
                '"saturate" define a result'
            )
    return ""


def unless_overflow(states: Tensor, timesteps: Tensor) -> Tensor:
    """`states`, if none of `timesteps` is an overflow; otherwise raises OverflowError,
    and in a graph of TensorFlow `tensorflow.errors.InvalidArgumentError`."""
    dtype = backend.standardize_dtype(states.dtype)
    try:
        values = ops.convert_to_numpy(timesteps).tolist()
    except (NotImplementedError, TypeError):
        return _unless_overflow_in_graph(states, timesteps)
    if message := overflow_message(values, dtype):
        raise OverflowError(message)
    return states


def under_xla() -> bool:
    """Whether TensorFlow is tracing what XLA will compile."""
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util

    if tf.executing_eagerly():
        return False
    graph = tf.compat.v1.get_default_graph()
    return bool(control_flow_util.GraphOrParentsInXlaContext(graph))


def _unless_overflow_in_graph(states: Tensor, timesteps: Tensor) -> Tensor:
    if backend.backend() != "tensorflow":
        raise NotImplementedError(
            "`overflow='raise'` in a compiled function needs TensorFlow: elsewhere "
            "`integer_rnn_and_overflow` returns what there is to check"
        )
    if under_xla():
        raise NotImplementedError(
            "`overflow='raise'` cannot raise where XLA compiles the recurrence and the "
            "kernel does not serve. Turn XLA off with jit_compile=False, or choose "
            "overflow='wrap' or 'saturate'; `integer_rnn_and_overflow` returns what "
            "there is to check"
        )
    import tensorflow as tf

    def check(timesteps: Tensor, states: Tensor) -> Tensor:
        if message := overflow_message(timesteps.tolist(), str(states.dtype)):
            # TensorFlow makes InvalidArgumentError of it. Not OutOfRangeError, the end
            # of the data for Keras, which would go on silently.
            raise ValueError(message)
        return states

    checked = tf.numpy_function(check, [timesteps, states], states.dtype)
    checked.set_shape(states.shape)
    return checked
