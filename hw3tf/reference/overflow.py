"""The error of an integer recurrence that overflows: in a graph, the one thing here
that Keras cannot do by itself."""

from keras import backend, ops


def overflow_message(timesteps, dtype):
    """What there is to say of the first overflows of the batch entries, -1 where
    there is none, in the words of the kernel; empty if there is none at all."""
    for batch_entry, timestep in enumerate(timesteps):
        if timestep >= 0:
            return (
                f"the recurrence overflows {dtype} in batch entry {batch_entry} at "
                f'timestep {timestep}. A wider dtype holds more; overflow="wrap" and '
                '"saturate" define a result'
            )
    return ""


def unless_overflow(states, timesteps):
    """`states`, if none of `timesteps` is an overflow; otherwise raises OverflowError,
    and in a graph of TensorFlow `tensorflow.errors.OutOfRangeError`."""
    dtype = backend.standardize_dtype(states.dtype)
    try:
        values = ops.convert_to_numpy(timesteps).tolist()
    except (NotImplementedError, TypeError):
        return _unless_overflow_in_graph(states, timesteps)
    if message := overflow_message(values, dtype):
        raise OverflowError(message)
    return states


def _unless_overflow_in_graph(states, timesteps):
    if backend.backend() != "tensorflow":
        raise NotImplementedError(
            "`overflow='raise'` in a compiled function needs TensorFlow: elsewhere "
            "`integer_rnn_and_overflow` returns what there is to check"
        )
    import tensorflow as tf

    def check(timesteps, states):
        if message := overflow_message(timesteps.tolist(), states.dtype):
            # TensorFlow makes OutOfRangeError of this one and of no other.
            raise StopIteration(message)
        return states

    checked = tf.numpy_function(check, [timesteps, states], states.dtype)
    checked.set_shape(states.shape)
    return checked
