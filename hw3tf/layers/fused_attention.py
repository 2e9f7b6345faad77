"""One call of the kernel in the terms of Keras's and KerasHub's layers."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras

from hw3tf.ops import dot_product_attention
from hw3tf.ops.attention_call import AttentionCall
from hw3tf.ops.attention_paths import sees_nothing


class Refused(ValueError):
    """The kernel cannot take these arguments. Nothing has happened yet: no dropout
    was drawn, no Keras mask taken off."""


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
    instead: Callable[[], tuple[Any, Any]] | None = None,
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
        instead: What to compute where `mask` proves to be larger than the scores when
            a graph runs; as `fitting_or`.
        options: Other arguments of `hw3tf.ops.dot_product_attention`.

    Returns:
        The output, and the weights or None.

    Raises:
        Refused: If the arguments are not what `hw3tf.ops.dot_product_attention` takes.
    """
    if mask is not None:
        mask = boolean(mask, strict=zeros_without_keys)
        while len(mask.shape) < 4:
            mask = keras.ops.expand_dims(mask, -3)
    zeros_without_keys = zeros_without_keys and _may_see_no_key(
        query, key, mask, options
    )
    drops = dropout is not None and training and dropout.rate > 0
    all_drops = drops and dropout.rate >= 1
    if drops and not all_drops:  # the seed is drawn when nothing can fail any more
        options |= {"dropout_rate": dropout.rate, "dropout_seed": 0}
    returned = zeros_without_keys, return_scores
    if any(isinstance(x, keras.KerasTensor) for x in (query, key, value)):
        return _symbolic(query, key, value, options | {"mask": mask}, dropout, returned)
    try:
        call = AttentionCall(query, key, value, mask=mask, **options)
    except (TypeError, ValueError) as error:
        raise Refused(str(error)) from error

    def fused() -> tuple[Any, Any]:
        if call.options.dropout_rate:
            call.options = replace(call.options, dropout_seed=_drawn_seed(dropout))
        results = call.run(*returned, finite_logsumexp=True)
        return _output_and_scores(results, *returned)

    output, scores = fitting_or(call, fused, instead) if instead else fused()
    if all_drops:  # a product, not zeros: the weights keep their gradients, of 0
        output = keras.ops.multiply(output, keras.ops.zeros((), output.dtype))
    return output, scores


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
    return fused() if fits is None else keras.ops.cond(fits, fused, instead)


def _symbolic(
    query: Any,
    key: Any,
    value: Any,
    options: dict[str, Any],
    dropout: Any,
    returned: tuple[bool, bool],
) -> tuple[Any, Any]:
    """`attend` where it becomes a part of a functional model: where somebody calls the
    `call` of a layer, not the layer, with inputs of a model."""
    if "dropout_seed" in options:
        options["dropout_seed"] = _drawn_seed(dropout)
    names = ("return_logsumexp", "return_attention_scores")
    options |= dict(zip(names, returned, strict=True))
    results = dot_product_attention(query, key, value, **options)
    return _output_and_scores(results, *returned)


def _output_and_scores(
    results: Any, zeros_without_keys: bool, return_scores: bool
) -> Any:
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
    state = keras.ops.cast(dropout.seed_generator.next(), "int64")
    return state[0] * 2**32 + state[1]


def _may_see_no_key(query, key, mask, options):
    """Whether there may be a query that sees no key. Causality leaves it one."""
    given = (mask, options.get("query_mask"), options.get("key_mask"))
    if any(x is not None for x in given):
        return True
    lengths = query.shape[1], key.shape[1]
    shorter = None in lengths or lengths[0] > lengths[1]
    return shorter and options.get("sliding_window") is not None


def _zeroed(tensor: Any, where: Any) -> Any:
    """`tensor` with zeros `where`, in most calls nowhere: then it is not read. With
    8 sequences of 128, reading it took 14 % of the time of attention."""

    def zeroed() -> Any:
        return keras.ops.where(where, keras.ops.zeros((), tensor.dtype), tensor)

    if isinstance(tensor, keras.KerasTensor):  # not seen by a model in a branch
        return zeroed()
    return keras.ops.cond(keras.ops.any(where), zeroed, lambda: tensor)
