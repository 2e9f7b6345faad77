"""One call of the kernel in the terms of Keras's and KerasHub's layers."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras

from hw3tf.layers.fallback import Refused
from hw3tf.ops.attention.call import AttentionCall, sees_nothing
from hw3tf.ops.attention.options import AttentionOptions
from hw3tf.ops.attention.symbolic import is_symbolic, node
from hw3tf.ops.branches import cond


def attend(
    query: Any,
    key: Any,
    value: Any,
    *,
    mask: Any = None,
    zeros_without_keys: bool = True,
    dropout: Any = None,
    training: Any = None,
    return_scores: bool = False,
    instead: Callable[[], Any] | None = None,
    **options: Any,
) -> tuple[Any, Any]:
    """Attention as these layers define it, on the kernel.

    A dropout that leaves no weights, of rate 1, gives zeros.

    Args:
        query, key, value: Tensors, as for `hw3tf.ops.dot_product_attention`.
        mask: Boolean or numeric tensor, nonzero = takes part; of shape `(batch,
            query_length, key_length)`, the same with an axis of heads, or
            `(query_length, key_length)`.
        zeros_without_keys: Whether a query that sees no key gets zeros, as from
            `keras.layers.Softmax`, or the mean of the values, as from
            `keras.ops.dot_product_attention`.
        dropout: The `keras.layers.Dropout` of the attention weights, or None.
        training: Whether to apply it.
        return_scores: Whether to return the weights, too, before dropout.
        instead: Computes the output where `mask` proves to be larger than the scores
            when a graph runs; as `fitting_or`. Neither with `zeros_without_keys` nor
            with `return_scores`.
        options: Other attributes of `AttentionOptions`.

    Returns:
        The output, and the weights or None.

    Raises:
        Refused: If the arguments are not what `hw3tf.ops.dot_product_attention` takes.
    """
    drops = dropout is not None and training and dropout.rate > 0
    all_drops = drops and dropout.rate >= 1
    if drops and not all_drops:  # the seed is drawn when nothing can fail any more
        options |= {"dropout_rate": dropout.rate, "dropout_seed": 0}
    asked = AttentionOptions(mask=_of_scores(mask, zeros_without_keys), **options)
    zeros = zeros_without_keys and _may_see_no_key(query, key, asked)
    seed = functools.partial(_drawn_seed, dropout) if asked.dropout_rate else None
    if is_symbolic(query, key, value, asked):
        results = _symbolic(query, key, value, asked, seed, zeros, return_scores)
        return _output_and_scores(results, zeros, return_scores)
    call = kernel_call(query, key, value, asked)
    run = functools.partial(
        call.run, zeros, return_scores, finite_logsumexp=True, draw_seed=seed
    )
    results = fitting_or(call, run, instead) if instead else run()
    output, scores = _output_and_scores(results, zeros, return_scores)
    if all_drops:  # a product, not zeros: the weights keep their gradients, of 0
        output = keras.ops.multiply(output, keras.ops.zeros((), output.dtype))
    return output, scores


def kernel_call(
    query: Any, key: Any, value: Any, options: AttentionOptions
) -> AttentionCall:
    """An `AttentionCall`, or `Refused`."""
    try:
        return AttentionCall(query, key, value, options)
    except (TypeError, ValueError) as error:
        raise Refused(str(error)) from error


def _of_scores(mask: Any, strict: bool) -> Any:
    """`mask` as booleans with the four axes of the scores, None for None."""
    if mask is None:
        return None
    mask = boolean(mask, strict=strict)
    while len(mask.shape) < 4:
        mask = keras.ops.expand_dims(mask, -3)
    return mask


def fitting_or(
    call: AttentionCall, fused: Callable[[], Any], instead: Callable[[], Any]
) -> Any:
    """`fused()`, or `instead()` if the mask or the bias of `call` is larger than the
    scores: Keras's own formula broadcasts the scores to them, the kernel does not.

    Where the shapes are known, the checks of `AttentionCall` have decided that already
    and there is no condition in the graph. Nor is there one under XLA, where what the
    gradient of a branch needs would be of unknown size outside: the kernel refuses
    such a mask there.
    """
    if call.path.path == "xla":
        return fused()
    sizes = [keras.ops.shape(x) for x in (call.query, call.key)]
    scores = (sizes[0][2], sizes[0][1], sizes[1][1])
    known = (call.query.shape[2], call.query.shape[1], call.key.shape[1])
    fits = None
    for x in (call.options.mask, call.options.bias):
        if x is None:
            continue
        # Not the batch: the kernel broadcasts it as Keras does.
        for axis in range(-min(3, len(x.shape)), 0):
            if x.shape[axis] == 1 or None not in (x.shape[axis], known[axis]):
                continue
            size = keras.ops.shape(x)[axis]
            fit = keras.ops.logical_or(size == 1, size == scores[axis])
            fits = fit if fits is None else keras.ops.logical_and(fits, fit)
    return fused() if fits is None else cond(fits, fused, instead)


def _symbolic(
    query: Any,
    key: Any,
    value: Any,
    options: AttentionOptions,
    seed: Callable[[], Any] | None,
    return_logsumexp: bool,
    return_scores: bool,
) -> Any:
    """The results of a call that becomes a part of a functional model: where somebody
    calls the `call` of a layer, not the layer, with inputs of a model."""
    if seed is not None:
        options = replace(options, dropout_seed=seed())
    return node(
        query,
        key,
        value,
        options,
        return_logsumexp=return_logsumexp,
        return_attention_scores=return_scores,
    )


def _output_and_scores(
    results: Any, zeros_without_keys: bool, return_scores: bool
) -> tuple[Any, Any]:
    """The output and the scores or None, from what the call of the kernel returns."""
    output, *more = list(results) if isinstance(results, tuple) else [results]
    scores = more.pop() if return_scores else None
    if zeros_without_keys:
        no_key = sees_nothing(more[0])
        output = _zeroed(output, keras.ops.transpose(no_key, (0, 2, 1))[..., None])
        if return_scores:
            scores = _zeroed(scores, no_key[..., None])
    return output, scores


def boolean(mask: Any, strict: bool = True) -> Any:
    """`mask` as booleans: above 0.5, as `keras.layers.Softmax` reads numbers; if
    not `strict`, nonzero."""
    if keras.backend.standardize_dtype(mask.dtype) == "bool":
        return mask
    if strict:
        return keras.ops.greater(mask, keras.ops.cast(0.5, mask.dtype))
    return keras.ops.cast(mask, "bool")


def _drawn_seed(dropout: Any) -> Any:
    """A seed for the kernel: each call in training draws from the seed generator of
    the `keras.layers.Dropout`, as the layer itself does."""
    state = dropout.seed_generator.next()
    if keras.backend.backend() == "jax":  # no int64: the words of the same seed
        return keras.ops.stack([state[1], state[0]])
    state = keras.ops.cast(state, "int64")
    return state[0] * 2**32 + state[1]


def _may_see_no_key(query: Any, key: Any, options: AttentionOptions) -> bool:
    """Whether there may be a query that sees no key. Causality leaves it one."""
    given = (options.mask, options.query_mask, options.key_mask)
    if any(x is not None for x in given):
        return True
    lengths = query.shape[1], key.shape[1]
    shorter = None in lengths or lengths[0] > lengths[1]
    return shorter and options.sliding_window is not None


def _zeroed(tensor: Any, where: Any) -> Any:
    """`tensor` with zeros `where`, in most calls nowhere: then it is not read. With
    8 sequences of 128, reading it took 14 % of the time of attention."""

    def zeroed() -> Any:
        return keras.ops.where(where, keras.ops.zeros((), tensor.dtype), tensor)

    if isinstance(tensor, keras.KerasTensor):  # not seen by a model in a branch
        return zeroed()
    return cond(keras.ops.any(where), zeroed, lambda: tensor)
