"""LSTM, GRU and the simple RNN in pure Keras, one step after the other."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import keras
from keras import backend, ops

from hw3tf._types import Tensor
from hw3tf.reference.attention import lengths_as_int32

Function: TypeAlias = Callable[[Tensor], Tensor]
# Of the input's share of the sums, (batch, gates * units), and the states.
Step: TypeAlias = Callable[[Tensor, Sequence[Tensor]], list[Tensor]]

GATES = {"lstm": 4, "gru": 3, "simple_rnn": 1}
ACTIVATIONS: dict[str, Function] = {
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "relu": ops.relu,
    "linear": lambda x: x,
    "hard_sigmoid": lambda x: ops.relu6(x + 3) / 6,
}


def rnn(
    cell: str,
    inputs: Tensor,
    kernel: Tensor,
    recurrent_kernel: Tensor,
    bias: Tensor | None = None,
    recurrent_bias: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    mask: Tensor | None = None,
    lengths: Tensor | None = None,
    input_dropout: Tensor | None = None,
    recurrent_dropout: Tensor | None = None,
    *,
    activation: str | Function = "tanh",
    recurrent_activation: str | Function = "sigmoid",
    reset_after: bool = True,
    reverse: bool = False,
    return_sequences: bool = False,
    zero_output_for_mask: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Computes a recurrent layer of Keras as its formula is written.

    With `a` the activation, `s` the recurrent one, and `|` between the columns of the
    gates:

    - `"lstm"`: `i | f | g | o = x @ kernel + h @ recurrent_kernel + bias`, then
      `c = s(f) * c + s(i) * a(g)` and `h = s(o) * a(c)`
    - `"gru"`: `z` and `r` likewise, through `s`; the candidate is
      `a(x_g + r * (h @ recurrent_kernel_g + recurrent_bias_g))` with `reset_after`,
      else `a(x_g + (r * h) @ recurrent_kernel_g)`; `h = z * h + (1 - z) * candidate`
    - `"simple_rnn"`: `h = a(x @ kernel + h @ recurrent_kernel + bias)`

    A step that is masked keeps the states. Its output is that of the step before, zero
    before the first step that is not masked, whatever the initial state; with
    `zero_output_for_mask` it is zero, also where it is the last output.

    It is computed in float32, or in float64 if the inputs are, and rounded to their
    dtype once.

    Args:
        cell: `"lstm"`, `"gru"` or `"simple_rnn"`, with 4, 3 and 1 gates.
        inputs: Float tensor of shape `(batch, timesteps, features)`.
        kernel: Tensor of shape `(features, gates * units)`, gates in Keras's order.
        recurrent_kernel: Tensor of shape `(units, gates * units)`.
        bias: Optional tensor of shape `(gates * units,)`.
        recurrent_bias: Optional tensor of this shape, of `"gru"`: it is added to the
            products with `recurrent_kernel`.
        initial_h, initial_c: Optional tensors of shape `(batch, units)`; `initial_c` of
            `"lstm"`. Default to zeros.
        mask: Optional boolean tensor of shape `(batch, timesteps)`; `True` = the step
            takes part.
        lengths: Optional integer tensor of shape `(batch,)`: steps from this position
            on are masked.
        input_dropout: Optional tensor of shape `(1 or gates, batch, features)`, by
            which the inputs of all gates, or of each, are multiplied.
        recurrent_dropout: Optional tensor of shape `(1 or gates, batch, units)`, by
            which the state is multiplied before `recurrent_kernel`.
        activation, recurrent_activation: `"tanh"`, `"sigmoid"`, `"relu"`, `"linear"`,
            `"hard_sigmoid"`, or a function of tensors.
        reset_after: Of `"gru"`, see above. Defaults to `True`.
        reverse: Whether to begin at the last step. Outputs are returned in the order in
            which they are computed. Defaults to `False`.
        return_sequences: Whether to return all outputs. Defaults to `False`.
        zero_output_for_mask: See above. Defaults to `False`.

    Returns:
        The outputs, of shape `(batch, timesteps, units)` if `return_sequences`, else
        the last one, `(batch, 1, units)`; the last `h`, `(batch, units)`; the last `c`,
        None unless the cell is `"lstm"`.

    Example:

    >>> x = keras.random.normal((2, 5, 3))
    >>> k, r = keras.random.normal((3, 16)), keras.random.normal((4, 16))
    >>> outputs, h, c = rnn("lstm", x, k, r, return_sequences=True)
    >>> outputs.shape, h.shape, c.shape
    (TensorShape([2, 5, 4]), TensorShape([2, 4]), TensorShape([2, 4]))

    Reference:
        - [Hochreiter and Schmidhuber, 1997](https://doi.org/10.1162/neco.1997.9.8.1735)
        - [Gers et al., 2000](https://doi.org/10.1162/089976600300015015): the gate `f`
        - [Cho et al., 2014](https://arxiv.org/abs/1406.1078): the GRU
    """
    dtype = backend.standardize_dtype(inputs.dtype)
    real = "float64" if dtype == "float64" else "float32"

    def cast(x: Tensor) -> Tensor:
        return None if x is None else ops.cast(x, real)

    inputs, kernel, recurrent_kernel = map(cast, (inputs, kernel, recurrent_kernel))
    units, gates = recurrent_kernel.shape[0], GATES[cell]
    valid = _valid_steps(inputs, mask, lengths)
    if valid is not None:
        # Without this a NaN in a masked step would be one in the gradients.
        inputs = ops.where(valid, inputs, ops.zeros_like(inputs))
    sums = _products(inputs, kernel, cast(input_dropout), gates)
    if bias is not None:
        sums = sums + cast(bias)

    def recurrent_sums(h: Tensor, first: int, last: int) -> Tensor:
        """What `h` adds to the sums of the gates `first` to `last - 1`."""
        columns = slice(first * units, last * units)
        factors = cast(recurrent_dropout)
        if factors is not None and factors.shape[0] != 1:
            factors = factors[first:last]
        products = _products(h, recurrent_kernel[:, columns], factors, last - first)
        if recurrent_bias is None:
            return products
        return products + cast(recurrent_bias)[columns]

    of_state, of_gates = (
        ACTIVATIONS[f] if isinstance(f, str) else f
        for f in (activation, recurrent_activation)
    )
    if cell == "lstm":
        step = _lstm_step(recurrent_sums, of_state, of_gates)
    elif cell == "gru":
        step = _gru_step(recurrent_sums, of_state, of_gates, reset_after)
    else:
        step = _simple_step(recurrent_sums, of_state)
    zeros = ops.zeros_like(sums[:, 0, :units])
    given = (initial_h, initial_c) if cell == "lstm" else (initial_h,)
    # Sums, in a graph of as known a batch size as what the steps make of them.
    states = [zeros if x is None else zeros + cast(x) for x in given]
    outputs, states = _over_time(
        step, sums, valid, states, reverse, return_sequences, zero_output_for_mask
    )
    results = [ops.cast(x, dtype) for x in (outputs, *states)]
    return results[0], results[1], results[2] if cell == "lstm" else None


def _valid_steps(
    inputs: Tensor, mask: Tensor | None, lengths: Tensor | None
) -> Tensor | None:
    """Boolean tensor of shape `(batch, timesteps, 1)`, or None if all steps are."""
    valid = None
    if mask is not None:
        valid = ops.cast(mask, "bool")
    if lengths is not None:
        steps = ops.arange(ops.shape(inputs)[1], dtype="int32")
        within = steps < lengths_as_int32(lengths)[:, None]
        valid = within if valid is None else ops.logical_and(valid, within)
    return None if valid is None else valid[:, :, None]


def _products(x: Tensor, kernel: Tensor, factors: Tensor | None, gates: int) -> Tensor:
    """`x @ kernel`, after `x` has been multiplied by the factors of each gate."""
    if factors is None:
        return ops.matmul(x, kernel)
    if len(x.shape) == 3:
        factors = factors[:, :, None]
    if factors.shape[0] == 1:
        return ops.matmul(x * factors[0], kernel)
    columns = ops.split(kernel, gates, axis=1)
    return ops.concatenate(
        [ops.matmul(x * factors[g], columns[g]) for g in range(gates)], axis=-1
    )


def _lstm_step(
    recurrent_sums: Callable[..., Tensor], activation: Function, gate: Function
) -> Step:
    def step(sums: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
        h, c = states
        i, f, g, o = ops.split(sums + recurrent_sums(h, 0, 4), 4, axis=-1)
        c = gate(f) * c + gate(i) * activation(g)
        return [gate(o) * activation(c), c]

    return step


def _gru_step(
    recurrent_sums: Callable[..., Tensor],
    activation: Function,
    gate: Function,
    reset_after: bool,
) -> Step:
    def step(sums: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
        h = states[0]
        of_z, of_r, candidate = ops.split(sums, 3, axis=-1)
        for_z, for_r = ops.split(recurrent_sums(h, 0, 2), 2, axis=-1)
        z, r = gate(of_z + for_z), gate(of_r + for_r)
        if reset_after:
            candidate = candidate + r * recurrent_sums(h, 2, 3)
        else:
            candidate = candidate + recurrent_sums(r * h, 2, 3)
        return [z * h + (1 - z) * activation(candidate)]

    return step


def _simple_step(recurrent_sums: Callable[..., Tensor], activation: Function) -> Step:
    def step(sums: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
        return [activation(sums + recurrent_sums(states[0], 0, 1))]

    return step


class _Cell:
    """What `keras.layers.RNN` calls at each step: a step, and the mask beside it.

    Keras masks steps, too, but its backends differ in the output before the first
    valid step. The output is one more state: that of a masked step is the last one.
    """

    def __init__(self, step: Step, units: int, states: int, masked: bool, zero: bool):
        self.step, self.masked, self.zero = step, masked, zero
        self.state_size = [units] * (states + 1)

    def call(
        self, sums: Tensor, states: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        *before, output = states
        if not self.masked:
            after = self.step(sums, before)
            return after[0], [*after, after[0]]
        valid = sums[:, -1:] > 0.5
        after = self.step(sums[:, :-1], before)
        after = [ops.where(valid, *pair) for pair in zip(after, before, strict=True)]
        otherwise = ops.zeros_like(output) if self.zero else output
        output = ops.where(valid, after[0], otherwise)
        return output, [*after, output]

    __call__ = call


def _over_time(
    step: Step,
    sums: Tensor,
    valid: Tensor | None,
    states: Sequence[Tensor],
    reverse: bool,
    return_sequences: bool,
    zero_output_for_mask: bool,
) -> tuple[Tensor, list[Tensor]]:
    """The outputs of the steps, or the last, and the last states.

    The loop is that of `keras.layers.RNN`, which has gradients on every backend, under
    XLA and for any number of timesteps; `keras.ops.scan` lacks the two last ones.
    """
    if valid is not None:  # one tensor with the sums: what the loop goes over
        sums = ops.concatenate([sums, ops.cast(valid, sums.dtype)], axis=-1)
    units = states[0].shape[-1]
    cell = _Cell(step, units, len(states), valid is not None, zero_output_for_mask)
    loop = keras.layers.RNN(
        cell, return_sequences, go_backwards=reverse, dtype=sums.dtype, name="rnn"
    )
    last, outputs, after = loop.inner_loop(
        sums, [*states, ops.zeros_like(states[0])], mask=None
    )
    return outputs if return_sequences else last[:, None], list(after[:-1])
