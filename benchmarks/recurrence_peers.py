"""What recurrence.py compares: a function that computes the case, or why there is
none. All sums fit: every peer that computes in integers must give the same last
states."""

import concurrent.futures
import os

from recurrence_cases import make_arrays

# A loop over more steps than this would take minutes.
LONGEST_LOOP = 20_000


class NotCoveredError(Exception):
    """The peer cannot compute the case."""


def _threads_of_tensorflow(threads):
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf


def hw3tf_op(case, threads):
    tf = _threads_of_tensorflow(threads)

    from hw3tf import ops

    ops.set_num_threads(threads)
    arrays = [tf.constant(x) for x in make_arrays(case)]
    options = {"return_sequences": case.sequences, "overflow": case.overflow}
    if case.clip:
        options |= {"activation": "clip", "clip": (-case.clip, case.clip)}
    run = tf.function(lambda *x: ops.integer_rnn(*x, **options))
    # Calling what is traced spares Python half of its 0.25 ms.
    traced = run.get_concrete_function(*arrays)
    return lambda: traced(*arrays)


def hw3tf_core(case, threads):
    """The kernel alone, on NumPy arrays: what Python and TensorFlow cost above."""
    from hw3tf import _core

    _core.set_num_threads(threads)
    arrays = make_arrays(case)
    options = {"return_sequences": case.sequences, "overflow": case.overflow}
    if case.clip:
        options |= {"activation": "clip", "clip_low": -case.clip}
        options |= {"clip_high": case.clip}
    return lambda: _core.integer_rnn(*arrays, **options)


def keras_reference(case, threads):
    """`keras.layers.RNN` with the reference cell, in a compiled graph."""
    if case.timesteps > LONGEST_LOOP:
        raise NotCoveredError("a loop over the timesteps")
    tf = _threads_of_tensorflow(threads)
    import keras

    from hw3tf.reference import IntegerRNNCell

    inputs, *weights = make_arrays(case)
    clip = {"activation": "clip", "clip": (-case.clip, case.clip)} if case.clip else {}
    cell = IntegerRNNCell(case.units, use_bias=False, dtype=case.dtype, **clip)
    layer = keras.layers.RNN(cell, return_sequences=case.sequences, dtype=case.dtype)
    inputs = tf.constant(inputs.astype(case.dtype))
    layer.build(inputs.shape)
    cell.set_weights([w.astype(case.dtype) for w in weights])
    run = tf.function(layer)
    return lambda: run(inputs)


def keras_simple_rnn(case, threads):
    """float32, which is not exact: for its time alone."""
    if case.timesteps > LONGEST_LOOP:
        raise NotCoveredError("a loop over the timesteps")
    tf = _threads_of_tensorflow(threads)
    import keras

    inputs = tf.constant(make_arrays(case)[0].astype("float32"))
    layer = keras.layers.SimpleRNN(case.units, return_sequences=case.sequences)
    run = tf.function(layer)
    return lambda: run(inputs)


def numpy(case, threads):
    """Lines in closed form, alternating sums; else a loop over time."""
    import numpy as np

    inputs, kernel, recurrent = (x.astype(case.dtype) for x in make_arrays(case))
    if case.is_line:
        signs = np.ones(case.timesteps, case.dtype)
        signs[case.timesteps % 2 :: 2] = -1
        x = inputs[..., 0]
        if case.sequences:
            return lambda: np.cumsum(x * signs, 1) * signs
        return lambda: (x @ signs)[:, None]

    def loop():
        state = np.zeros((case.batch, case.units), case.dtype)
        for t in range(case.timesteps):
            state = inputs[:, t] @ kernel + state @ recurrent
            np.clip(state, -case.clip, case.clip, state)
        return state

    return loop


def scipy(case, threads):
    """`lfilter` in float64, exact as long as the states are below 2^53."""
    if not case.is_line:
        raise NotCoveredError("one unit only")
    from scipy.signal import lfilter

    x = make_arrays(case)[0][..., 0].astype("float64")
    kept = slice(None) if case.sequences else slice(-1, None)
    return lambda: lfilter([1.0], [1.0, 1.0], x, axis=1)[:, kept]


def numba(case, threads):
    """A loop, compiled, over rows in parallel."""
    import numba
    import numpy as np

    if not case.is_line:
        raise NotCoveredError("one unit only")
    numba.set_num_threads(threads)
    x, sequences = make_arrays(case)[0][..., 0], case.sequences

    @numba.njit(parallel=True)
    def loop(x):
        out = np.empty_like(x) if sequences else np.empty_like(x[:, :1])
        for b in numba.prange(x.shape[0]):
            state = 0
            for t in range(x.shape[1]):
                state = x[b, t] - state
                if sequences:
                    out[b, t] = state
            out[b, -1] = state
        return out

    return lambda: loop(x)


def jax(case, threads):
    """`jax.lax.associative_scan` over pairs (factor, sum)."""
    if not case.is_line:
        raise NotCoveredError("one unit only")
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    x = jnp.asarray(make_arrays(case)[0][..., 0])

    def join(a, b):
        return a[0] * b[0], a[1] * b[0] + b[1]

    @jax.jit
    def scan(x):
        states = jax.lax.associative_scan(join, (-jnp.ones_like(x), x), axis=1)[1]
        return states if case.sequences else states[:, -1:]

    return lambda: scan(x).block_until_ready()


def _over_slices(threads, count, run):
    """A function that runs `run` on slices of 0..count, one thread each."""
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    size = -(-count // threads)
    slices = [slice(i, i + size) for i in range(0, count, size)]
    return lambda: list(pool.map(run, slices))


def read(case, threads):
    """The bandwidth of reading: a plain vectorised sum of the inputs."""
    flat = make_arrays(case)[0].ravel()
    return _over_slices(threads, flat.size, lambda part: flat[part].sum())


def copy(case, threads):
    """The bandwidth of copying the inputs."""
    import numpy as np

    flat = make_arrays(case)[0].ravel()
    to = np.zeros_like(flat)
    return _over_slices(threads, flat.size, lambda p: np.copyto(to[p], flat[p]))


BANDWIDTHS = {"read": read, "copy": copy}
PEERS = {
    "hw3tf": hw3tf_op,
    "hw3tf-core": hw3tf_core,
    "keras-reference": keras_reference,
    "keras-simple-rnn": keras_simple_rnn,
    "numpy": numpy,
    "scipy-lfilter": scipy,
    "numba": numba,
    "jax-scan": jax,
}
# Not integers, or not the recurrence: nothing to compare.
UNCHECKED = ("keras-simple-rnn", *BANDWIDTHS)


def prepare(name, case, threads):
    """The function of a peer, and its last states, or None."""
    run = (PEERS | BANDWIDTHS)[name](case, threads)
    result = run()
    if name in UNCHECKED:
        return run, None
    import numpy as np

    last = np.asarray(result)
    if case.sequences:
        last = last.reshape(case.batch, case.timesteps, case.units)[:, -1]
    return run, last.reshape(case.batch, case.units).astype("int64")
