"""`integer_rnn`: the exact integer recurrence, one function, four paths."""

import inspect
from typing import Any

import keras

from hw3tf.ops.operations import INTEGER_RNN
from hw3tf.ops.paths import CallPath
from hw3tf.ops.recurrence.call import IntegerRnnCall
from hw3tf.ops.recurrence.options import RecurrenceOptions
from hw3tf.ops.recurrence.symbolic import IntegerRnnOperation


def integer_rnn(
    inputs: Any,
    kernel: Any,
    recurrent_kernel: Any,
    bias: Any = None,
    initial_state: Any = None,
    mask: Any = None,
    *,
    activation: str | None = None,
    clip: tuple[int, int] | None = None,
    reverse: bool = False,
    return_sequences: bool = False,
    overflow: str = "raise",
    fractional_bits: int = 0,
) -> Any:
    """The recurrence `h_t = activation(W x_t + U h_{t-1} + b)`, exact in integers.

    Every state is the integer that the formula gives, for any number of
    timesteps, threads and on every machine: nothing is rounded, and a state that
    does not fit its dtype is an error, unless `overflow` says otherwise.

    `hw3tf.ops.integer_rnn_path`, with the same arguments, tells whether the C++
    kernel computes a call and why.

    Integers have no gradient. TensorFlow ends gradients at them before it asks any
    op, and would answer `None`; so the call itself raises while a `tf.GradientTape`
    records what an argument is made of: floats cast to integers, an integer that is
    watched, an integer variable that is trainable. `tf.stop_gradient` before the
    cast says that nothing is to flow. A float head behind the recurrence trains as
    usual. Not seen, and answered with `None`, are floats more than one eager call
    away (in a `tf.function`, as in `fit`, the graph is followed), arguments of a
    `tf.function` that is called under a tape, and `tf.gradients`.

    Args:
        inputs: Tensor of shape `(batch, timesteps, features)`, of dtype bool,
            int8, uint8, int16, int32 or int64, no wider than the state. It is
            widened exactly.
        kernel: `W`, integer tensor of shape `(features, units)`.
        recurrent_kernel: `U`, of shape `(units, units)`, int8, int32 or int64.
            The state has its dtype, or int32 if it is int8. If `kernel` is int8,
            too, int8 instructions serve where the machine has them. The fast
            paths for a single unit and for a diagonal matrix are found by
            looking at the values.
        bias: `b`, optional integer tensor of shape `(units,)`. Defaults to zeros.
        initial_state: Optional integer tensor of shape `(batch, units)`.
            Defaults to zeros.
        mask: Optional boolean tensor of shape `(batch, timesteps)`; a step with
            `False` keeps the state.
        activation: `None`, `"relu"`, `"sign"` (-1, 0 or 1), or `"clip"`.
            Defaults to `None`.
        clip: Pair of integers `(low, high)`, the range of `"clip"`.
        reverse: Whether to take the steps from the last to the first. As with
            Keras's `go_backwards`, states come in the order in which they were
            made. Defaults to `False`.
        return_sequences: Whether to return all states or the last. Defaults to
            `False`.
        overflow: What to do if the exact `W x_t + U h_{t-1} + b`, before the
            activation, does not fit the state. `"raise"`: an error that names
            the first batch entry with such a step, and its first such timestep,
            and no result. `"wrap"`: two's complement. `"saturate"`: the nearest
            number that fits, at every step. Defaults to `"raise"`.
        fractional_bits: Integer `n`, for fixed point: the exact sum `s` becomes
            `floor(s / 2**n + 1/2)` before it is brought into range and activated.
            Defaults to 0.

    `kernel`, `bias` and `initial_state` are brought to the dtype of the state;
    values that do not fit it are refused.

    Returns:
        Integer tensor of shape `(batch, timesteps, units)` with
        `return_sequences`, else `(batch, units)`. Without timesteps the last
        state is the initial state.

    Raises:
        OverflowError: If a state does not fit, when called eagerly.
        tensorflow.errors.InvalidArgumentError: The same in a graph; or if shapes do
            not fit and that is known only when the graph runs.
        tensorflow.errors.InternalError: Both under XLA, `jit_compile=True`.
        NotImplementedError: If XLA compiles a call with `overflow="raise"` that the
            kernel does not serve, with `HW3TF_PATH=reference` or a GPU.
        TypeError: If an argument is not of integers (floats are not truncated), or is
            a ragged or sparse tensor, `inputs` is wider than the state, or a tape asks
            for a gradient.
        ValueError: If shapes do not fit each other, a weight does not fit the
            dtype, or `activation`, `clip`, `overflow` or `fractional_bits` is not one
            of the above.

    Example:

    The alternating sum: weight 1 for the input, -1 for the state.

    >>> x = np.array([[[5], [1], [4], [9]]])
    >>> integer_rnn(x, [[1]], [[-1]], return_sequences=True)[0, :, 0]
    <tf.Tensor: shape=(4,), dtype=int64, numpy=array([ 5, -4,  8,  1])>

    Reference:
        - [Blelloch, 1990](https://www.cs.cmu.edu/~guyb/papers/Ble93.pdf),
          section 1.4: linear recurrences as scans
    """
    tensors = {
        "inputs": inputs,
        "kernel": kernel,
        "recurrent_kernel": recurrent_kernel,
        "bias": bias,
        "initial_state": initial_state,
        "mask": mask,
    }
    options = RecurrenceOptions(
        activation=activation,
        clip=clip,
        reverse=reverse,
        return_sequences=return_sequences,
        overflow=overflow,
        fractional_bits=fractional_bits,
    )
    if any(isinstance(x, keras.KerasTensor) for x in tensors.values()):
        return IntegerRnnOperation(**vars(options))(**tensors)
    return IntegerRnnCall(tensors, options).run()


def integer_rnn_path(*args: Any, **kwargs: Any) -> CallPath:
    """Which path `hw3tf.ops.integer_rnn` takes with these arguments, and why.

    Args:
        As `hw3tf.ops.integer_rnn`, which is not run.

    Returns:
        A `hw3tf.ops.AttentionPath`, with the attributes `path` (`"op"`,
        `"xla"`, `"pybind"` or `"reference"`) and `reason`.

    Raises:
        TypeError, ValueError: As the function.

    Example:

    >>> print(integer_rnn_path(np.ones((1, 4, 1), "int32"), [[1]], [[1]]))
    op (the kernel covers the call)
    """
    options = inspect.signature(integer_rnn).bind(*args, **kwargs).arguments
    tensors = {x.name: options.pop(x.name, None) for x in INTEGER_RNN.operands}
    return IntegerRnnCall(tensors, RecurrenceOptions(**options)).path
