"""Pure Keras, with everything: where the kernels do not serve, and what they leave out.

`attention` has two arguments more than the kernels' fronts and returns what they ask
for, as it has the scores.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras

from hw3tf import reference
from hw3tf.ops.attention.options import AttentionOptions, real_dtype
from hw3tf.ops.recurrence.options import RecurrenceOptions
from hw3tf.ops.rnn.options import RnnOptions

PACKED = ("query_splits", "key_splits")


def attention(
    query: Any, key: Any, value: Any, options: AttentionOptions, **returned: bool
) -> Any:
    """Output, logsumexp and scores, as `hw3tf.reference.dot_product_attention`.

    Args:
        returned: `return_logsumexp`, `return_attention_scores`, `finite_logsumexp`.
    """
    return reference.dot_product_attention(
        query, key, value, **_asked(options), **returned
    )


def attention_in_real(
    query: Any, key: Any, value: Any, options: AttentionOptions
) -> tuple[Any, Any]:
    """Output, in the dtype of `query`, and logsumexp, both summed in float32 or wider
    as in the kernels: what is differentiated where they have no derivative."""
    cast, dtype = keras.ops.cast, query.dtype
    query, key, value = (cast(x, real_dtype(dtype)) for x in (query, key, value))
    output, logsumexp = attention(
        query, key, value, options, return_logsumexp=True, finite_logsumexp=True
    )
    return cast(output, dtype), logsumexp


def ragged_attention(
    query: Any, key: Any, value: Any, options: AttentionOptions
) -> Any:
    """The output of ragged tensors, as a ragged tensor."""
    return reference.ragged_dot_product_attention(query, key, value, **_asked(options))


def attention_scores(
    query: Any, key: Any, options: AttentionOptions, logsumexp: Any
) -> Any:
    """The weights before dropout, in the dtype of `query`: the logits once more,
    and their matrix, which the kernel does not keep."""
    ops = keras.ops
    real = real_dtype(query.dtype)
    logits = _of_options(
        reference.attention_logits, options, ops.cast(query, real), ops.cast(key, real)
    )
    visible = _of_options(reference.visible_keys, options, logits)
    scores = reference.attention_scores(logits, visible, logsumexp)
    return ops.cast(scores, query.dtype)


def _asked(options: AttentionOptions) -> dict[str, Any]:
    """The options that are not at their defaults, as keywords of `hw3tf.reference`: it
    refuses one that it does not have."""
    defaults = {name: x.default for name, x in options.__dataclass_fields__.items()}
    return {
        name: x
        for name, x in vars(options).items()
        if name not in PACKED
        and (x is not None if defaults[name] is None else x != defaults[name])
    }


def _of_options(
    function: Callable[..., Any], options: AttentionOptions, *tensors: Any
) -> Any:
    """What `function` makes of the tensors and of those options that it takes."""
    keywords = {name: getattr(options, name) for name in names_taken(function)}
    return function(*tensors, **keywords)


@functools.cache
def names_taken(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the options that a function takes."""
    names = AttentionOptions.__dataclass_fields__
    return tuple(
        name for name in inspect.signature(function).parameters if name in names
    )


def integer_rnn(
    tensors: Mapping[str, Any], options: RecurrenceOptions, state_dtype: str
) -> Any:
    """The states."""
    return reference.integer_rnn(**tensors, **vars(options))


def rnn(
    cell: str, tensors: Mapping[str, Any], options: RnnOptions
) -> tuple[Any, Any, Any]:
    """Outputs, the last `h`, and the last `c` or None."""
    return reference.rnn(cell, **tensors, **vars(options))
