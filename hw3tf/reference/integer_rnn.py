"""The integer recurrence in pure Keras, one step after the other."""

from collections.abc import Callable, Sequence

from keras import backend, ops

from hw3tf._types import DType, Tensor
from hw3tf.reference import exact
from hw3tf.reference.integer_rnn_arguments import (
    check_options,
    check_tensors,
    state_dtype,
)
from hw3tf.reference.integers import check_dense
from hw3tf.reference.overflow import unless_overflow


def integer_rnn(
    inputs: Tensor,
    kernel: Tensor,
    recurrent_kernel: Tensor,
    bias: Tensor | None = None,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    activation: str | None = None,
    clip: Sequence[int] | None = None,
    reverse: bool = False,
    return_sequences: bool = False,
    overflow: str = "raise",
    fractional_bits: int = 0,
) -> Tensor:
    """Computes `h = activation(x @ kernel + h @ recurrent_kernel + bias)` over time.

    Every number is an integer, and the sum is known exactly before it is brought
    into the range of the state, whatever its size. So a step overflows if that sum
    is out of range; products and partial sums do not count.

    The state has the dtype of `recurrent_kernel`, or int32 if that is int8.

    Args:
        inputs: Integer tensor of shape `(batch, timesteps, features)`: bool, int8,
            uint8, int16, int32 or int64.
        kernel: Tensor of shape `(features, units)`, int8 or in the dtype of the
            state.
        recurrent_kernel: Tensor of shape `(units, units)`: int8, int32 or int64.
        bias: Optional tensor of shape `(units,)` in the dtype of the state.
        initial_state: Optional tensor of shape `(batch, units)` in the dtype of
            the state. Defaults to zeros.
        mask: Optional boolean tensor of shape `(batch, timesteps)`. A step that is
            `False` keeps the state, and cannot overflow.
        activation: `None`, `"relu"`, `"sign"` (-1, 0 or 1) or `"clip"`.
        clip: The two integers between which `"clip"` keeps the state.
        reverse: Whether to begin at the last step. States are returned in the
            order in which they are computed. Defaults to `False`.
        return_sequences: Whether to return all states. Defaults to `False`.
        overflow: `"raise"` (the default), `"wrap"` (two's complement) or
            `"saturate"` (the nearest number that fits, at every step).
        fractional_bits: Integer `n`, for fixed point: the exact sum `s` becomes
            `floor(s / 2**n + 1/2)` before it is brought into range and activated.
            Defaults to 0.

    Returns:
        Tensor of shape `(batch, timesteps, units)` if `return_sequences`, otherwise
        `(batch, units)`: the last state, which is the initial one if there are no
        steps.

    Raises:
        OverflowError: Eagerly, if a step overflows and `overflow="raise"`. The
            message names the smallest batch entry that overflows and the first
            step taken at which it does, as an index into `inputs`.
        tensorflow.errors.InvalidArgumentError: The same, in a graph.
        NotImplementedError: If `overflow="raise"` and XLA, or JAX, compiles the call.
        TypeError: If a dtype does not fit.
        ValueError: If a shape or an option does not fit.

    Example:

    >>> x = ops.convert_to_tensor([[[5], [3], [4], [1]]])
    >>> w, u = ops.convert_to_tensor([[1]]), ops.convert_to_tensor([[-1]])
    >>> integer_rnn(x, w, u, return_sequences=True)[0, :, 0].numpy().tolist()
    [5, -2, 6, -5]
    """
    states, timesteps = integer_rnn_and_overflow(
        inputs,
        kernel,
        recurrent_kernel,
        bias,
        initial_state,
        mask,
        activation=activation,
        clip=clip,
        reverse=reverse,
        return_sequences=return_sequences,
        overflow=overflow,
        fractional_bits=fractional_bits,
    )
    return unless_overflow(states, timesteps) if overflow == "raise" else states


def integer_rnn_and_overflow(
    inputs: Tensor,
    kernel: Tensor,
    recurrent_kernel: Tensor,
    bias: Tensor | None = None,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    activation: str | None = None,
    clip: Sequence[int] | None = None,
    reverse: bool = False,
    return_sequences: bool = False,
    overflow: str = "raise",
    fractional_bits: int = 0,
) -> tuple[Tensor, Tensor]:
    """`integer_rnn` that returns where it overflows instead of raising.

    Args:
        As `integer_rnn`.

    Returns:
        What `integer_rnn` returns, with states that wrap under
        `overflow="raise"`, and an int32 tensor of shape `(batch,)`: the first step
        at which the batch entry overflows, or -1. Under `"wrap"` nothing is
        checked, and the tensor has no meaning.
    """
    given = (inputs, kernel, recurrent_kernel, bias, initial_state, mask)
    check_dense("inputs", inputs)
    if any(str(getattr(x, "dtype", "")) == "int64" for x in given):
        exact.int64(0)  # or JAX would take the lower half
    tensors = [None if x is None else ops.convert_to_tensor(x) for x in given]
    check_tensors(*tensors)
    inputs, kernel, recurrent_kernel, bias, state, mask = tensors
    dtype = state_dtype(recurrent_kernel)
    check_options(activation, clip, overflow, fractional_bits, dtype)
    batch_size, timesteps = ops.shape(inputs)[:2]
    if mask is None:
        mask = ops.ones((batch_size, timesteps), "bool")
    if state is None:
        state = ops.zeros((batch_size, kernel.shape[1]), dtype)
    none = ops.convert_to_tensor(-1, "int32")
    first = ops.zeros_like(state[:, 0], dtype="int32") + none
    sums = sums_of_steps(
        kernel, recurrent_kernel, bias, inputs.dtype, overflow, fractional_bits
    )

    def step(
        carry: tuple[Tensor, Tensor], t: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        state, first = carry
        x, takes_part = ops.take(inputs, t, axis=0), ops.take(mask, t, axis=0)
        new, outside = sums(x, state)
        new = activated(new, activation, clip)
        if outside is not None:
            outside = ops.logical_and(ops.any(outside, axis=-1), takes_part)
            outside = ops.logical_and(outside, ops.equal(first, none))
            first = ops.where(outside, t, first)
        carry = ops.where(takes_part[:, None], new, state), first
        return carry, carry

    # One more step, which is masked: a call without steps has one, too.
    if backend.standardize_dtype(inputs.dtype) == "bool":
        inputs = ops.cast(inputs, "int8")
    inputs = ops.swapaxes(ops.pad(inputs, ((0, 0), (0, 1), (0, 0))), 0, 1)
    mask = ops.swapaxes(ops.pad(ops.cast(mask, "int8"), ((0, 0), (0, 1))), 0, 1)
    mask = ops.cast(mask, "bool")
    order = ops.arange(timesteps, dtype="int32")
    order = ops.append(ops.flip(order) if reverse else order, timesteps)
    # Over the order alone: Keras cannot scan two tensors of unknown length.
    (last, first), (states, _) = ops.scan(step, (state, first), order)
    if return_sequences:
        return ops.swapaxes(states, 0, 1)[:, :timesteps], first
    return last, first


def sums_of_steps(
    kernel: Tensor,
    recurrent_kernel: Tensor,
    bias: Tensor | None,
    input_dtype: DType,
    overflow: str = "wrap",
    fractional_bits: int = 0,
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]:
    """The function that computes a new state before the activation.

    Args:
        kernel, ...: As `integer_rnn`.
        input_dtype: The dtype of its inputs.

    Returns:
        A function of the inputs, `(batch, features)`, and the state, `(batch,
        units)`. It returns a tensor of the shape and dtype of the state, and a
        boolean one of this shape, true where the exact value does not fit, or None
        where it is not needed: with `overflow="wrap"`, without a shift.
    """
    dtype = state_dtype(recurrent_kernel)
    if overflow == "wrap" and not fractional_bits:
        # Modulo a power of two it does not matter where a sum wraps.
        kernel = ops.cast(kernel, dtype)
        recurrent_kernel = ops.cast(recurrent_kernel, dtype)

        def wrapping(x: Tensor, state: Tensor) -> tuple[Tensor, None]:
            new = exact.product(ops.cast(x, dtype), kernel, 1)
            new = new + exact.product(state, recurrent_kernel, 1)
            return (new if bias is None else new + bias), None

        return wrapping

    input_digits, state_digits = map(exact.num_digits, (input_dtype, dtype))
    num_parts = max(
        input_digits + exact.num_digits(kernel.dtype) - 1,
        state_digits + exact.num_digits(recurrent_kernel.dtype) - 1,
    )
    kernel = exact.factor(kernel, input_digits, num_parts)
    recurrent_kernel = exact.factor(recurrent_kernel, state_digits, num_parts)
    addend = exact.half(fractional_bits, num_parts)
    if bias is not None:
        bias = exact.digits(bias, axis=0)
        addend = addend + ops.pad(bias, ((0, num_parts - state_digits), (0, 0)))

    def wide(x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        number = addend + exact.product(exact.digits(x, axis=1), kernel, 2)
        state = exact.digits(state, axis=1)
        number = number + exact.product(state, recurrent_kernel, 2)
        digits, sign = exact.carried(number)
        if fractional_bits:
            digits = exact.shifted(digits, sign, fractional_bits)
        return exact.narrowed(digits, sign, dtype, saturate=overflow == "saturate")

    return wide


def activated(
    state: Tensor, activation: str | None, clip: Sequence[int] | None = None
) -> Tensor:
    """The activation of an integer tensor, in its dtype."""
    if activation == "relu":
        return ops.maximum(state, ops.zeros_like(state))
    if activation == "sign":
        return ops.sign(state)
    if activation == "clip" and clip:
        low, high = (ops.convert_to_tensor(limit, state.dtype) for limit in clip)
        return ops.minimum(ops.maximum(state, low), high)
    return state
