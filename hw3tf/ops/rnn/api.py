"""`lstm`, `gru` and `simple_rnn`: recurrent layers as functions, one kernel."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras

from hw3tf.ops.arguments import is_ragged
from hw3tf.ops.paths import CallPath
from hw3tf.ops.rnn.activations import resolved
from hw3tf.ops.rnn.call import RnnCall
from hw3tf.ops.rnn.operands import ARGUMENTS, operands_of
from hw3tf.ops.rnn.options import RnnOptions
from hw3tf.ops.rnn.ragged import cut_off, padded
from hw3tf.ops.rnn.symbolic import RnnOperation, shaped


def lstm(
    inputs: Any,
    kernel: Any,
    recurrent_kernel: Any,
    bias: Any = None,
    initial_state: Any = None,
    mask: Any = None,
    *,
    lengths: Any = None,
    activation: Any = "tanh",
    recurrent_activation: Any = "sigmoid",
    return_sequences: bool = False,
    return_state: bool = False,
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
    input_dropout: Any = None,
    recurrent_dropout: Any = None,
) -> Any:
    """The LSTM of `keras.layers.LSTM` as a function of its weights, fused.

    With `|` between the columns of the four gates, `a` the activation and `s` the
    recurrent one, a step computes `i | f | g | o = x @ kernel + h @ recurrent_kernel +
    bias`, then `c = s(f) * c + s(i) * a(g)` and `h = s(o) * a(c)`, its output.

    The fused kernel covers float32, bfloat16, float16 and float64 with every option
    below, in any combination, with `jit_compile=True` too. Other activations, or calls
    where a GPU is visible, run in pure Keras: `hw3tf.ops.lstm_path`, with the same
    arguments, tells which and why. In bfloat16 and float16 the kernel computes in
    float32, the states between the steps, too.

    Args:
        inputs: Float tensor of shape `(batch, timesteps, features)`, or a
            `tf.RaggedTensor` of shape `(batch, (timesteps), features)`, which needs
            neither mask nor lengths.
        kernel: Float tensor of shape `(features, 4 * units)`, gates in the order input,
            forget, candidate, output. It and `recurrent_kernel` are brought to the
            dtype that they and `inputs` promote to, and so is all else.
        recurrent_kernel: Float tensor of shape `(units, 4 * units)`.
        bias: Optional float tensor of shape `(4 * units,)`. Defaults to zeros.
        initial_state: Optional pair `(h, c)` of float tensors of shape `(batch,
            units)`. Defaults to zeros.
        mask: Optional boolean or numeric tensor of shape `(batch, timesteps)`; `True`
            or nonzero = the step takes part. A masked step keeps the states and costs
            no time. Its output is that of the step before, zero before the first step
            that takes part, as in Keras.
        lengths: Optional integer tensor of shape `(batch,)`, values from 0 to
            `timesteps`: steps from this position on are masked. The cheapest form of
            padding. Beside a mask, both count.
        activation: Function of the candidate and of `c`: `"tanh"`, `"sigmoid"`,
            `"relu"`, `"linear"` or `"hard_sigmoid"`, or one of these as a function of
            Keras or TensorFlow, which the kernel computes; another name that Keras
            knows, or a function of tensors, which pure Keras computes; None = linear.
            Defaults to `"tanh"`.
        recurrent_activation: Likewise, that of the gates. Defaults to `"sigmoid"`.
        return_sequences: Whether to return all outputs, or the last. Defaults to
            `False`.
        return_state: Whether to return the last state, too. Defaults to `False`.
        go_backwards: Whether to begin at the last step. As in Keras, outputs come in
            the order in which they are computed. Defaults to `False`.
        zero_output_for_mask: Whether the output of a masked step is zero, the last
            output, too. Defaults to `False`.
        input_dropout: Optional float tensor of shape `(batch, features)`, or
            `(4, batch, features)`, one for each gate: what
            the inputs are multiplied by at every step, the masks of Keras's dropout.
        recurrent_dropout: Optional float tensor of shape `(batch, units)`, or
            `(4, batch, units)`: what
            the state is multiplied by before `recurrent_kernel`.

    Returns:
        Float tensor of shape `(batch, timesteps, units)` with `return_sequences`, else
        `(batch, units)`; of ragged inputs, the sequences are ragged, too. With
        `return_state` a tuple `(outputs, h, c)`, the states of shape `(batch, units)`.
        Results do not depend on the number of threads.

    Raises:
        ValueError: If shapes do not fit each other, there is no timestep, a dtype is
            not floating point (of lengths: integer), a length is known not to be within
            `inputs`, or an activation is not one of the above.
        TypeError: If a tensor that must be given is None.
        tensorflow.errors.InvalidArgumentError: If shapes do not fit, and that is known
            only when the graph runs; if lengths are out of range. From XLA it comes as
            `InternalError`; sizes that depend on values, as after `tf.boolean_mask`,
            are an `UnimplementedError` there.
        NotImplementedError: On a derivative of the gradient in forward mode on the path
            `"pybind"`.

    A derivative of the gradient (second order, forward mode) is computed in pure Keras.
    A `RuntimeWarning` says so once.

    Example:

    >>> x = keras.random.normal((2, 7, 3))
    >>> kernel, recurrent = keras.random.normal((3, 20)), keras.random.normal((5, 20))
    >>> outputs, h, c = lstm(
    ...     x, kernel, recurrent, lengths=[7, 4], return_sequences=True,
    ...     return_state=True)
    >>> outputs.shape, h.shape
    (TensorShape([2, 7, 5]), TensorShape([2, 5]))

    Reference:
        - [Hochreiter and Schmidhuber, 1997](https://doi.org/10.1162/neco.1997.9.8.1735)
        - [Gers et al., 2000](https://doi.org/10.1162/089976600300015015)
    """
    return _compute("lstm", locals())


def lstm_path(*args: Any, **kwargs: Any) -> CallPath:
    """Which path `hw3tf.ops.lstm` takes with these arguments, and why.

    Args:
        As `hw3tf.ops.lstm`, which is not run.

    Returns:
        A `hw3tf.ops.AttentionPath`, with the attributes `path` (`"op"`, `"xla"`,
        `"pybind"` or `"reference"`) and `reason`.

    Raises:
        TypeError, ValueError: As the function.

    Example:

    >>> x, k, r = np.ones((1, 4, 2)), np.ones((2, 12)), np.ones((3, 12))
    >>> print(lstm_path(x, k, r))
    op (the kernel covers the call)
    >>> print(lstm_path(x, k, r, activation="elu"))
    reference (the kernel does not cover the activation elu)
    """
    return _path(lstm, args, kwargs)


def gru(
    inputs: Any,
    kernel: Any,
    recurrent_kernel: Any,
    bias: Any = None,
    initial_state: Any = None,
    mask: Any = None,
    *,
    lengths: Any = None,
    activation: Any = "tanh",
    recurrent_activation: Any = "sigmoid",
    reset_after: bool = True,
    return_sequences: bool = False,
    return_state: bool = False,
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
    input_dropout: Any = None,
    recurrent_dropout: Any = None,
) -> Any:
    """The GRU of `keras.layers.GRU` as a function of its weights, fused.

    With `|` between the columns of the three gates, `a` the activation and `s` the
    recurrent one, a step computes `z` and `r`, the first two of `s(x @ kernel + h @
    recurrent_kernel + bias)`. The candidate is `a(x @ kernel_g + bias_g + r * (h @
    recurrent_kernel_g + recurrent_bias_g))` with `reset_after`, else `a(x @ kernel_g +
    bias_g + (r * h) @ recurrent_kernel_g)`, and the output `h = z * h + (1 - z) *
    candidate`.

    What the fused kernel covers is as in `hw3tf.ops.lstm`; `hw3tf.ops.gru_path` tells
    whether it computes a call and why.

    Args:
        inputs: Float tensor of shape `(batch, timesteps, features)`, or a
            `tf.RaggedTensor` of shape `(batch, (timesteps), features)`, which needs
            neither mask nor lengths.
        kernel: Float tensor of shape `(features, 3 * units)`, gates in the order
            update, reset, candidate. It and `recurrent_kernel` are brought to the dtype
            that they and `inputs` promote to, and so is all else.
        recurrent_kernel: Float tensor of shape `(units, 3 * units)`.
        bias: Optional float tensor, with `reset_after` of shape `(2, 3 * units)`, the
            bias of the inputs and that of the state, else `(3 * units,)`. Defaults to
            zeros.
        initial_state: Optional float tensor of shape `(batch, units)`. Defaults to
            zeros.
        mask: Optional boolean or numeric tensor of shape `(batch, timesteps)`; `True`
            or nonzero = the step takes part. A masked step keeps the states and costs
            no time. Its output is that of the step before, zero before the first step
            that takes part, as in Keras.
        lengths: Optional integer tensor of shape `(batch,)`, values from 0 to
            `timesteps`: steps from this position on are masked. The cheapest form of
            padding. Beside a mask, both count.
        activation: Function of the candidate: `"tanh"`, `"sigmoid"`, `"relu"`,
            `"linear"` or `"hard_sigmoid"`, or one of these as a function of Keras or
            TensorFlow, which the kernel computes; another name that Keras knows, or a
            function of tensors, which pure Keras computes; None = linear. Defaults to
            `"tanh"`.
        recurrent_activation: Likewise, that of the gates. Defaults to `"sigmoid"`.
        reset_after: Whether the reset gate comes after the product with
            `recurrent_kernel`, see above. Defaults to `True`.
        return_sequences: Whether to return all outputs, or the last. Defaults to
            `False`.
        return_state: Whether to return the last state, too. Defaults to `False`.
        go_backwards: Whether to begin at the last step. As in Keras, outputs come in
            the order in which they are computed. Defaults to `False`.
        zero_output_for_mask: Whether the output of a masked step is zero, the last
            output, too. Defaults to `False`.
        input_dropout: Optional float tensor of shape `(batch, features)`, or
            `(3, batch, features)`, one for each gate: what
            the inputs are multiplied by at every step, the masks of Keras's dropout.
        recurrent_dropout: Optional float tensor of shape `(batch, units)`, or
            `(3, batch, units)`: what
            the state is multiplied by before `recurrent_kernel`.

    Returns:
        As `hw3tf.ops.lstm`; with `return_state` a tuple `(outputs, h)`.

    Raises:
        ValueError: If shapes do not fit each other, there is no timestep, a dtype is
            not floating point (of lengths: integer), a length is known not to be within
            `inputs`, or an activation is not one of the above.
        TypeError: If a tensor that must be given is None.
        tensorflow.errors.InvalidArgumentError: If shapes do not fit, and that is known
            only when the graph runs; if lengths are out of range. From XLA it comes as
            `InternalError`; sizes that depend on values, as after `tf.boolean_mask`,
            are an `UnimplementedError` there.
        NotImplementedError: On a derivative of the gradient in forward mode on the path
            `"pybind"`.

    A derivative of the gradient (second order, forward mode) is computed in pure Keras.
    A `RuntimeWarning` says so once.

    Example:

    >>> x = keras.random.normal((2, 7, 3))
    >>> kernel, recurrent = keras.random.normal((3, 15)), keras.random.normal((5, 15))
    >>> gru(x, kernel, recurrent, return_sequences=True).shape
    TensorShape([2, 7, 5])

    Reference:
        - [Cho et al., 2014](https://arxiv.org/abs/1406.1078)
    """
    return _compute("gru", locals())


def gru_path(*args: Any, **kwargs: Any) -> CallPath:
    """Which path `hw3tf.ops.gru` takes with these arguments, and why.

    Args:
        As `hw3tf.ops.gru`, which is not run.

    Returns:
        A `hw3tf.ops.AttentionPath`, with the attributes `path` (`"op"`, `"xla"`,
        `"pybind"` or `"reference"`) and `reason`.

    Raises:
        TypeError, ValueError: As the function.

    Example:

    >>> x, k, r = np.ones((1, 4, 2)), np.ones((2, 9)), np.ones((3, 9))
    >>> print(gru_path(x, k, r, reset_after=False))
    op (the kernel covers the call)
    """
    return _path(gru, args, kwargs)


def simple_rnn(
    inputs: Any,
    kernel: Any,
    recurrent_kernel: Any,
    bias: Any = None,
    initial_state: Any = None,
    mask: Any = None,
    *,
    lengths: Any = None,
    activation: Any = "tanh",
    return_sequences: bool = False,
    return_state: bool = False,
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
    input_dropout: Any = None,
    recurrent_dropout: Any = None,
) -> Any:
    """`keras.layers.SimpleRNN` as a function of its weights, fused.

    A step computes `h = activation(x @ kernel + h @ recurrent_kernel + bias)`.

    What the fused kernel covers is as in `hw3tf.ops.lstm`; `hw3tf.ops.simple_rnn_path`
    tells whether it computes a call and why. For integers there is
    `hw3tf.ops.integer_rnn`.

    Args:
        inputs: Float tensor of shape `(batch, timesteps, features)`, or a
            `tf.RaggedTensor` of shape `(batch, (timesteps), features)`, which needs
            neither mask nor lengths.
        kernel: Float tensor of shape `(features, units)`. It and `recurrent_kernel` are
            brought to the dtype that they and `inputs` promote to, and so is all else.
        recurrent_kernel: Float tensor of shape `(units, units)`.
        bias: Optional float tensor of shape `(units,)`. Defaults to zeros.
        initial_state: Optional float tensor of shape `(batch, units)`. Defaults to
            zeros.
        mask: Optional boolean or numeric tensor of shape `(batch, timesteps)`; `True`
            or nonzero = the step takes part. A masked step keeps the states and costs
            no time. Its output is that of the step before, zero before the first step
            that takes part, as in Keras.
        lengths: Optional integer tensor of shape `(batch,)`, values from 0 to
            `timesteps`: steps from this position on are masked. The cheapest form of
            padding. Beside a mask, both count.
        activation: Function of the sum: `"tanh"`, `"sigmoid"`, `"relu"`,
            `"linear"` or `"hard_sigmoid"`, or one of these as a function of Keras or
            TensorFlow, which the kernel computes; another name that Keras knows, or a
            function of tensors, which pure Keras computes; None = linear. Defaults to
            `"tanh"`.
        return_sequences: Whether to return all outputs, or the last. Defaults to
            `False`.
        return_state: Whether to return the last state, too. Defaults to `False`.
        go_backwards: Whether to begin at the last step. As in Keras, outputs come in
            the order in which they are computed. Defaults to `False`.
        zero_output_for_mask: Whether the output of a masked step is zero, the last
            output, too. Defaults to `False`.
        input_dropout: Optional float tensor of shape `(batch, features)`: what
            the inputs are multiplied by at every step, the masks of Keras's dropout.
        recurrent_dropout: Optional float tensor of shape `(batch, units)`: what
            the state is multiplied by before `recurrent_kernel`.

    Returns:
        As `hw3tf.ops.lstm`; with `return_state` a tuple `(outputs, h)`.

    Raises:
        ValueError: If shapes do not fit each other, there is no timestep, a dtype is
            not floating point (of lengths: integer), a length is known not to be within
            `inputs`, or an activation is not one of the above.
        TypeError: If a tensor that must be given is None.
        tensorflow.errors.InvalidArgumentError: If shapes do not fit, and that is known
            only when the graph runs; if lengths are out of range. From XLA it comes as
            `InternalError`; sizes that depend on values, as after `tf.boolean_mask`,
            are an `UnimplementedError` there.
        NotImplementedError: On a derivative of the gradient in forward mode on the path
            `"pybind"`.

    A derivative of the gradient (second order, forward mode) is computed in pure Keras.
    A `RuntimeWarning` says so once.

    Example:

    The running sum:

    >>> x = np.array([[[5.0], [1.0], [4.0]]])
    >>> simple_rnn(x, [[1.0]], [[1.0]], activation=None, return_sequences=True)[0, :, 0]
    <tf.Tensor: shape=(3,), dtype=float64, numpy=array([ 5.,  6., 10.])>
    """
    return _compute("simple_rnn", locals())


def simple_rnn_path(*args: Any, **kwargs: Any) -> CallPath:
    """Which path `hw3tf.ops.simple_rnn` takes with these arguments, and why.

    Args:
        As `hw3tf.ops.simple_rnn`, which is not run.

    Returns:
        A `hw3tf.ops.AttentionPath`, with the attributes `path` (`"op"`, `"xla"`,
        `"pybind"` or `"reference"`) and `reason`.

    Raises:
        TypeError, ValueError: As the function.

    Example:

    >>> print(simple_rnn_path(np.ones((1, 4, 2)), np.ones((2, 3)), np.ones((3, 3))))
    op (the kernel covers the call)
    """
    return _path(simple_rnn, args, kwargs)


def _compute(cell: str, arguments: Mapping[str, Any]) -> Any:
    """The results of the function of this name.

    Args:
        cell: The name of one of the functions above.
        arguments: All of its arguments by their names.
    """
    return_state = bool(arguments["return_state"])
    tensors, options = _split(arguments)
    if any(map(_is_symbolic, keras.tree.flatten(list(tensors.values())))):
        return RnnOperation(cell, return_state, **vars(options))(**tensors)
    inputs = tensors.get("inputs")
    results = _call(cell, tensors, options).run()
    outputs = shaped(*results, options, return_state)
    if not (is_ragged(inputs) and options.return_sequences):
        return outputs
    if not return_state:
        return cut_off(outputs, inputs)
    return cut_off(outputs[0], inputs), *outputs[1:]


def _split(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], RnnOptions]:
    """The tensors that are given, and the options."""
    tensors = {name: arguments.get(name) for name in ARGUMENTS}
    return {name: x for name, x in tensors.items() if x is not None}, RnnOptions(
        activation=resolved("activation", arguments["activation"]),
        recurrent_activation=resolved(
            "recurrent_activation", arguments.get("recurrent_activation", "sigmoid")
        ),
        reset_after=bool(arguments.get("reset_after", True)),
        reverse=bool(arguments["go_backwards"]),
        return_sequences=bool(arguments["return_sequences"]),
        zero_output_for_mask=bool(arguments["zero_output_for_mask"]),
    )


def _call(cell: str, tensors: Mapping[str, Any], options: RnnOptions) -> RnnCall:
    if is_ragged(tensors.get("inputs")):
        tensors, options = padded(tensors, options)
    return RnnCall(cell, operands_of(cell, tensors, options), options)


def _path(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> CallPath:
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    return _call(function.__name__, *_split(bound.arguments)).path


def _is_symbolic(x: Any) -> bool:
    return isinstance(x, keras.KerasTensor)
