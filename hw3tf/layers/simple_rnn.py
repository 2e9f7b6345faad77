"""`SimpleRNN`: Keras's layer on the fused kernel."""

from typing import Any

import keras

from hw3tf.layers.rnn.loop import fused_or


@keras.saving.register_keras_serializable(package="hw3tf")
class SimpleRNN(keras.layers.SimpleRNN):
    """Fully connected recurrent layer computed by the fused C++ kernel.

    `h = activation(x @ W + h @ U + b)`

    A drop-in for `keras.layers.SimpleRNN`: the same arguments, weights and config; a
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
        use_bias: Whether a bias is added. Defaults to `True`.
        kernel_initializer, recurrent_initializer, bias_initializer: Default to
            `"glorot_uniform"`, `"orthogonal"` and `"zeros"`.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: Optional
            regularizers.
        activity_regularizer: As in Keras, which ignores it.
        kernel_constraint, recurrent_constraint, bias_constraint: Optional constraints.
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
        **kwargs: `zero_output_for_mask` and the arguments of
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
            of a stateful layer is unknown or another one than before.

    Example:

    >>> x = keras.random.normal((2, 10, 8), seed=0)
    >>> SimpleRNN(16, return_sequences=True)(x).shape
    TensorShape([2, 10, 16])
    >>> y, h = SimpleRNN(16, return_state=True)(x)

    Reference:
        - [Elman, 1990](https://doi.org/10.1207/s15516709cog1402_1)
    """

    def inner_loop(
        self, sequences: Any, initial_state: Any, mask: Any, training: Any = False
    ) -> Any:
        own = super().inner_loop
        return fused_or(own, self, sequences, initial_state, mask, training=training)
