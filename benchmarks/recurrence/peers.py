"""The peers of recurrence/run.py: a function that computes the case, or why there is
none. All sums fit: every peer that computes in integers must give the same last
states."""

import concurrent.futures
import functools
import os

from harness import InARow
from recurrence.cases import function_options, kernel_options, make_arrays

# Calls of a short case that TensorFlow's peers make as one.
IN_A_ROW = 4
# A loop over more steps than this would take minutes.
LONGEST_LOOP = 20_000


def _threads_of_tensorflow(threads):
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf


def _in_a_row(tf, case, run, inputs):
    """`run(inputs, state)` traced, and a row of such calls, each from the last state
    of the one before: a program calls Python once for all its layers. None is the
    first state."""

    def row(inputs):
        states = run(inputs, None)
        for _ in range(IN_A_ROW - 1):
            states = run(inputs, states[:, -1] if case.sequences else states)
        return states

    def traced(function):
        # Calling what is traced spares Python half of its 0.25 ms.
        function = tf.function(function, autograph=False)
        function = function.get_concrete_function(inputs)
        return lambda: function(inputs)

    return InARow(traced(lambda inputs: run(inputs, None)), traced(row), IN_A_ROW)


def hw3tf_op(case, threads):
    tf = _threads_of_tensorflow(threads)

    from hw3tf import ops

    ops.set_num_threads(threads)
    inputs, *weights = (tf.constant(x) for x in make_arrays(case))

    def run(inputs, state):
        return ops.integer_rnn(
            inputs, *weights, initial_state=state, **function_options(case)
        )

    return _in_a_row(tf, case, run, inputs)


def hw3tf_core(case, threads):
    """The kernel alone, on NumPy arrays: what Python and TensorFlow cost above."""
    from hw3tf import _core

    _core.set_num_threads(threads)
    arrays, options = make_arrays(case), kernel_options(case)
    return lambda: _core.integer_rnn(*arrays, **options)


def _layer(case, threads, make_cell):
    """A `keras.layers.RNN` in a compiled graph, its inputs, and its cell, built."""
    tf = _threads_of_tensorflow(threads)
    import keras

    cell = make_cell(keras)
    dtype = cell.compute_dtype
    layer = keras.layers.RNN(cell, return_sequences=case.sequences, dtype=dtype)
    inputs = tf.constant(make_arrays(case)[0].astype(dtype))
    layer.build(inputs.shape)

    def run(inputs, state):
        return layer(inputs, initial_state=None if state is None else [state])

    return cell, _in_a_row(tf, case, run, inputs)


def keras_cell(case, threads):
    """`keras.layers.RNN` with the reference cell in a compiled graph. It wraps."""

    def make_cell(keras):
        from hw3tf.reference import IntegerRNNCell

        bounds = (-case.clip, case.clip) if case.clip else None
        activation = "clip" if case.clip else None
        return IntegerRNNCell(
            case.units, activation, bounds, use_bias=False, dtype=case.dtype
        )

    cell, run = _layer(case, threads, make_cell)
    cell.set_weights([w.astype(case.dtype) for w in make_arrays(case)[1:]])
    return run


def keras_function(case, threads):
    """`hw3tf.reference.integer_rnn` in a compiled graph, with the policy of the case:
    the same contract in pure Keras."""
    tf = _threads_of_tensorflow(threads)

    from hw3tf import reference

    inputs, *weights = (tf.constant(x) for x in make_arrays(case))

    def run(inputs, state):
        return reference.integer_rnn(
            inputs, *weights, initial_state=state, **function_options(case)
        )

    return _in_a_row(tf, case, run, inputs)


def keras_simple_rnn(case, threads):
    """float32, which is not exact: for its time alone."""
    return _layer(case, threads, lambda k: k.layers.SimpleRNNCell(case.units))[1]


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
    from scipy.signal import lfilter

    x = make_arrays(case)[0][..., 0].astype("float64")
    kept = slice(None) if case.sequences else slice(-1, None)
    return lambda: lfilter([1.0], [1.0, 1.0], x, axis=1)[:, kept]


@functools.cache
def _numba_loop(sequences):
    import numba
    import numpy as np

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

    return loop


def numba(case, threads):
    """A loop, compiled, over rows in parallel."""
    import numba

    numba.set_num_threads(threads)
    x, loop = make_arrays(case)[0][..., 0], _numba_loop(case.sequences)
    return lambda: loop(x)


def jax(case, threads):
    """`jax.lax.associative_scan` over pairs (factor, sum)."""
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
    "keras-cell": keras_cell,
    "keras-function": keras_function,
    "keras-simple-rnn": keras_simple_rnn,
    "numpy": numpy,
    "scipy-lfilter": scipy,
    "numba": numba,
    "jax-scan": jax,
}
# Not integers, or not the recurrence: nothing to compare.
UNCHECKED = ("keras-simple-rnn", *BANDWIDTHS)
# The cell wraps, whatever the case says.
WITH_A_POLICY = ("hw3tf", "hw3tf-core", "keras-cell", "keras-function", *BANDWIDTHS)


def refuses(name, case):
    """Why a peer does not compute the case; empty if it does."""
    if name.startswith("keras") and case.timesteps > LONGEST_LOOP:
        return f"a loop over more than {LONGEST_LOOP:,} steps"
    if name in ("scipy-lfilter", "numba", "jax-scan") and not case.is_line:
        return "written for one unit"
    if name not in WITH_A_POLICY and case.overflow == "wrap":
        return "it knows no policy: see the case that raises"
    if name == "keras-function" and case.overflow == "wrap":
        return "timed only where the cell lacks the policy"
    if name == "keras-function" and (case.batch == 1 or case.products > 10**9):
        return "slower than the cell by far: for the bars only"
    if name == "keras-simple-rnn" and case.is_line:
        return "float32 is not exact"
    if name == "numpy" and case.products > 10**9:
        return "integer products without BLAS take seconds"
    return ""


def prepare(name, case, threads):
    """The function of a peer, or an `InARow`, and its last states, or None."""
    run = (PEERS | BANDWIDTHS)[name](case, threads)
    result = run()
    if name in UNCHECKED:
        return run, None
    import numpy as np

    last = np.asarray(result)
    if case.sequences:
        last = last.reshape(case.batch, case.timesteps, case.units)[:, -1]
    return run, last.reshape(case.batch, case.units).astype("int64")
