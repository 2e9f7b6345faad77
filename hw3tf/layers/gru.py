"""`GRU`: Keras's layer on the fused kernel."""

from typing import Any

import keras

from hw3tf.layers.rnn.loop import fused_or


@keras.saving.register_keras_serializable(package="hw3tf")
class GRU(keras.layers.GRU):
    """Gated recurrent unit computed by the fused C++ kernel.

    With `z, r = s(x @ W + h @ U + b)`, `s` the recurrent activation and `a` the other
    one, `h = z * h + (1 - z) * a(x @ W_h + r * (h @ U_h + b'_h) + b_h)`, or, without
    `reset_after`, `a(x @ W_h + (r * h) @ U_h + b_h)`.

    A drop-in for `keras.layers.GRU`: the same arguments, weights and config; a
    weights file of either loads into the other. To float32 rounding the results are
    the same, with every argument and in every dtype, in training with dropout as well:
    the same numbers are dropped for the same seed. The loop over time is one call of
    the kernel, forward and backward, which multiplies all inputs at once, and takes no
    time for masked steps.

    Masking: the Keras mask of the sequences (for example from
    `Embedding(mask_zero=True)`), or the argument `mask`, says which steps take part;
    the others keep the state. The output of such a step is that of the step before,
    zeros before the first step that takes part, or zeros with `zero_output_for_mask`.
    The mask is passed on if all outputs are returned. As in Keras, the sequences' own
    mask is not used if `initial_state` is given as tensors: pass `mask` then.

    Keras's own loop computes what the kernel does not: other activations than tanh,
    sigmoid, relu, linear and hard_sigmoid of Keras, masks with a value for each unit, a
    cell that was replaced or changed, and GPUs. The logger `hw3tf` says so at level
    DEBUG.

    One difference: an unrolled layer of Keras that goes backwards and gives zeros for
    masked steps, as the second direction of a `Bidirectional` does, gives them for
    the wrong steps. Here `unroll` changes no result.

    Args:
        units: Positive integer, size of the state.
        activation: Defaults to `"tanh"`; `None` is linear.
        recurrent_activation: Of the gates. Defaults to `"sigmoid"`.
        use_bias: Whether biases are added. Defaults to `True`.
        kernel_initializer, recurrent_initializer, bias_initializer: Default to
            `"glorot_uniform"`, `"orthogonal"` and `"zeros"`.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: Optional
            regularizers.
        activity_regularizer: Optional regularizer of the output.
        kernel_constraint, recurrent_constraint, bias_constraint: Optional constraints.
        reset_after: Whether the gate `r` comes after the product. Defaults to `True`.
        dropout: Float in 0..1, share of the inputs' features that is dropped in
            training, the same at every step. Defaults to 0.
        recurrent_dropout: Float in 0..1, likewise of the state. Defaults to 0.
        seed: Optional integer, of the dropout.
        return_sequences: Whether to return all outputs. Defaults to `False`: the last.
        return_state: Whether to return the last state, too. Defaults to `False`.
        go_backwards: Whether to begin at the last step. Outputs are returned in the
            order in which they are computed. Defaults to `False`.
        stateful: Whether a batch begins with the last state of the one before.
            Defaults to `False`.
        unroll: Accepted for compatibility with Keras; the fused loop is the same.
        use_cudnn: As in Keras: `True` raises where there is no cuDNN. Defaults to
            `"auto"`.
        **kwargs: `zero_output_for_mask`, `implementation` and the arguments of
            `keras.layers.Layer`.

    Call arguments:
        sequences: Float tensor of shape `(batch, timesteps, features)`.
        initial_state: Optional tensor of shape `(batch, units)`, or a list of it.
            Defaults to zeros.
        mask: Optional tensor of shape `(batch, timesteps)`, nonzero = takes part.
            Filled in by Keras.
        training: Whether to apply dropout.

    Returns:
        Float tensor of shape `(batch, units)`, or, if `return_sequences`,
        `(batch, timesteps, units)`; with `return_state` a tuple of it and the last
        state, `(batch, units)`.

    Raises:
        ValueError: If `units` is not positive, shapes do not fit each other, the batch
            of a stateful layer is unknown or another one than before, or `use_cudnn`
            is `True`.

    Example:

    >>> x = keras.random.normal((2, 10, 8), seed=0)
    >>> GRU(16, return_sequences=True)(x).shape
    TensorShape([2, 10, 16])
    >>> y, h = GRU(16, return_state=True)(x)

    Reference:
        - [Cho et al., 2014](https://arxiv.org/abs/1406.1078)
    """

    def inner_loop(
        self, sequences: Any, initial_state: Any, mask: Any, training: Any = False
    ) -> Any:
        own = super().inner_loop
        return fused_or(own, self, sequences, initial_state, mask, training=training)
