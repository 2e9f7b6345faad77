"""`accelerate` and `restore`: attention and recurrence of a whole model on kernels."""

import types
from typing import Any

import keras

from hw3tf.acceleration import keras_hub_calls, keras_hub_layers
from hw3tf.acceleration.coverage import Verdict, qualified_name
from hw3tf.acceleration.enabling import is_enabled
from hw3tf.acceleration.generation import (
    cache_in_place,
    has_cache_in_place,
    note_on,
)
from hw3tf.acceleration.keras_layers import verdict_on_keras_layer
from hw3tf.acceleration.model_layers import reset_functions, walk
from hw3tf.acceleration.not_covered import NOT_COVERED
from hw3tf.acceleration.patches import attach, detach, is_attached
from hw3tf.acceleration.recurrent_layers import verdict_on_recurrent_layer
from hw3tf.acceleration.report import AccelerationReport, LayerReport
from hw3tf.layers.fallback import overrides
from hw3tf.layers.integer_rnn import IntegerRNN
from hw3tf.layers.rnn.stock import CELLS, STOCK_RECURRENCE
from hw3tf.ops.paths import CallPath, kernel_path, logger

FAMILIES = keras_hub_layers.FAMILIES | keras_hub_calls.FAMILIES

KERAS_ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)

# Sequence lengths from which on the kernels are faster than Keras in every case of
# benchmarks/results/lengths.json, which a test compares.
ATTENTION_GAINS_FROM = 64
RECURRENCE_GAINS_FROM = 2

# Parts of the names of layers that the report lists even if it knows nothing of them.
NAMED = {
    "Attention": "computes attention",
    "LSTM": "goes through time",
    "GRU": "goes through time",
    "RNN": "goes through time",
}


def accelerate(model: keras.layers.Layer) -> AccelerationReport:
    """Puts attention and recurrence of a model onto the fused kernels: one line, same
    weights.

    In every layer that hw3tf understands, however deep in the model, the one method
    that computes the attention, or the loop over time, is replaced, on that layer
    object alone. Weights, classes, config and names stay the same, and so do the files
    of `model.save`: stock Keras loads them without hw3tf. The results are the same up
    to rounding. Dropout in training is fused, too. In recurrent layers it drops what
    Keras would; in attention it drops other weights than Keras's random numbers would,
    with the same probability.

    hw3tf understands `keras.layers.MultiHeadAttention`, `GroupQueryAttention` and
    `Attention`, `keras_hub.layers.CachedMultiHeadAttention`, and the attention of
    KerasHub's model families; `keras.layers.LSTM`, `GRU` and `SimpleRNN`, also inside
    `Bidirectional` and `TimeDistributed`, and `keras.layers.RNN` with a cell of theirs.
    The report says for each layer whether it is fused, and why not. A layer stays as it
    is if it overrides what the kernel replaces, or holds another softmax, dropout,
    scale, cell or activation than the kernel computes. What the layer holds is checked
    again at every call and when a graph is traced; overridden methods are checked only
    now. Calls that the kernel cannot take, such as those with masks larger than the
    scores, are computed by the layer as before; the logger `hw3tf` says so at level
    DEBUG.

    In KerasHub's causal models `generate` updates its cache of keys and values in
    place, on JAX and, for eight prompts or more, on TensorFlow. There XLA compiles it
    then, whatever `jit_compile` says; samplers that draw at random draw other tokens
    from the same seed than they do where nothing is compiled.

    The model's compiled functions are made anew at the next call. If a model is part of
    another, accelerate the outer one, because it has functions of its own.

    Args:
        model: A `keras.Model`, or any other `keras.layers.Layer`. It has to be built.

    Returns:
        A `hw3tf.acceleration.AccelerationReport`, which prints as a table; its method
        `measure` times the model, before and after, on your own inputs. In a `with`
        statement it takes the change back on leaving; so does `hw3tf.restore`, at any
        time.

    Raises:
        TypeError: If `model` is not a Keras layer or model.

    Example:

    >>> x = keras.Input((10, 16))
    >>> attention = keras.layers.MultiHeadAttention(2, 8, name="attention")
    >>> model = keras.Model(x, attention(x, x))
    >>> print(hw3tf.accelerate(model))  # doctest: +ELLIPSIS
    layer      class               fused  faster from  why
    attention  MultiHeadAttention  yes    length 64    ...
    1 of 1 layers with attention or recurrence are fused. Kernel: op (the kernel ...)
    `report.measure(inputs)` times the model before and after.
    """
    _check_model("accelerate", model)
    path = kernel_path()
    reports, changed = _put_on_kernel(model, path)
    if not model.built:
        reason = "the model is not built: call it once, then accelerate it again"
        reports.append(LayerReport(model.name, type(model).__name__, False, reason))
    if path.path in ("op", "ffi"):  # the others have no XLA
        changed += _put_caches_in_place(model)
    if changed:
        reset_functions(model)
    generating = (layer for _, layer in walk(model) if has_cache_in_place(layer))
    notes = sorted(filter(None, set(map(note_on, generating))))
    report = AccelerationReport(model, reports, path, changed, notes)
    logger.debug("accelerate:\n%s", report)
    return report


def _put_on_kernel(model: Any, path: CallPath) -> tuple[list[LayerReport], list[Any]]:
    """What is to say of each layer in `model` with attention or recurrence, and those
    that changed."""
    reports, changed, cells = [], [], set[int]()
    for name, layer in walk(model):
        if isinstance(layer, keras.layers.RNN):  # it comes before its cells
            cells.update(map(id, layer._flatten_layers(include_self=False)))
        verdict = None if id(layer) in cells else _verdict(layer)
        if verdict is None:
            continue
        fused, reason = verdict.attributes is not None, verdict.reason
        if path.path == "reference" and fused:
            fused, reason = False, path.reason
        elif verdict.attributes:
            attach(layer, verdict.attributes)
            changed.append(layer)
        gains = _gains_from(layer) if fused else None
        reports.append(LayerReport(name, type(layer).__name__, fused, reason, gains))
    return reports, changed


def _put_caches_in_place(model: Any) -> list[Any]:
    """The causal models of KerasHub in `model`, changed so that they generate without
    copies of their caches."""
    changed = []
    for _, layer in walk(model):
        attributes = None if is_attached(layer) else cache_in_place(layer)
        if attributes:
            attach(layer, attributes)
            changed.append(layer)
    return changed


def _gains_from(layer: Any) -> int | None:
    """`LayerReport.gains_from` of a layer that is fused."""
    if isinstance(layer, IntegerRNN):  # Keras has no such layer
        return None
    recurrent = isinstance(layer, keras.layers.RNN)
    return RECURRENCE_GAINS_FROM if recurrent else ATTENTION_GAINS_FROM


def restore(model: keras.layers.Layer) -> int:
    """Takes `hw3tf.accelerate` back: the model computes as before, exactly.

    Args:
        model: The model that was given to `accelerate`, or a part of it.

    Returns:
        The number of layers that were restored; a causal model of KerasHub is one, too.

    Raises:
        TypeError: If `model` is not a Keras layer or model.

    Example:

    >>> x = keras.Input((10, 16))
    >>> model = keras.Model(x, keras.layers.MultiHeadAttention(2, 8)(x, x))
    >>> _ = hw3tf.accelerate(model)
    >>> hw3tf.restore(model)
    1
    """
    _check_model("restore", model)
    restored = sum(detach(layer) for _, layer in walk(model))
    if restored:
        reset_functions(model)
    return restored


def _check_model(function: str, model: Any) -> None:
    if isinstance(model, keras.layers.Layer):
        return
    hint = ""
    if any(cls.__module__.split(".")[0] == "tf_keras" for cls in type(model).__mro__):
        hint = (
            ". This is a model of Keras 2 (tf_keras): build it with Keras 3, "
            "`import keras`, with TF_USE_LEGACY_KERAS not set"
        )
    raise TypeError(
        f"`{function}` takes a Keras model or layer as `model`. Received: "
        f"{model!r} (of type {type(model).__name__}){hint}"
    )


def _verdict(layer: Any) -> Verdict | None:
    """A `Verdict`, or None for a layer without attention and recurrence."""
    if has_cache_in_place(layer):
        return None
    if is_attached(layer):
        return Verdict({}, "accelerated already")
    for cls in type(layer).__mro__:
        name = qualified_name(cls)
        if name.startswith("hw3tf.layers."):
            return _verdict_on_ours(layer, cls)
        if name in FAMILIES:
            return FAMILIES[name].verdict(layer, cls)
        if name in NOT_COVERED:
            return Verdict(None, NOT_COVERED[name])
    return (
        verdict_on_keras_layer(layer)
        or verdict_on_recurrent_layer(layer)
        or _verdict_on_function(layer)
        or _verdict_on_name(layer)
    )


def _verdict_on_ours(layer: Any, our_class: type) -> Verdict | None:
    if isinstance(layer, KERAS_ATTENTION):
        differs = layer._differs(("_compute_attention", "_masked_softmax"))
    elif isinstance(layer, IntegerRNN):
        differs = ""
    elif isinstance(layer, keras.layers.RNN):
        differs = overrides(layer, our_class, ("inner_loop",))
        differs = differs or STOCK_RECURRENCE.changed(layer)
    else:
        return None
    if differs:
        return Verdict(None, differs)
    return Verdict({}, "a layer of hw3tf, fused by itself")


def _verdict_on_function(layer: Any) -> Verdict | None:
    """The verdict on a user's layer that calls `keras.ops.dot_product_attention`:
    `enable` puts that onto the kernel."""
    for cls in type(layer).__mro__:
        if cls.__module__.split(".")[0] in ("keras", "keras_hub"):
            continue
        functions = (getattr(f, "__func__", f) for f in vars(cls).values())
        codes = [f.__code__ for f in functions if hasattr(f, "__code__")]
        if not any(map(_names_the_function, codes)):
            continue
        what = f"`{cls.__name__}` calls `keras.ops.dot_product_attention`"
        if is_enabled():
            return Verdict({}, f"{what}, on the kernel by `hw3tf.enable()`")
        return Verdict(None, f"{what}: `hw3tf.enable()` puts that on the kernel")
    return None


def _names_the_function(code: types.CodeType) -> bool:
    """Whether `code`, or a function inside it, uses `dot_product_attention`."""
    inside = [x for x in code.co_consts if isinstance(x, types.CodeType)]
    return "dot_product_attention" in code.co_names or any(
        map(_names_the_function, inside)
    )


def _verdict_on_name(layer: Any) -> Verdict | None:
    """The verdict on a layer whose name says what it is, so that the report lists it:
    an unknown one, or a cell outside of a layer."""
    name = type(layer).__name__
    if isinstance(layer, tuple(CELLS)):
        return Verdict(
            None, "the model calls it step by step: only whole layers are fused"
        )
    does = next((what for part, what in NAMED.items() if part in name), None)
    if does is None or "Mask" in name or "Cell" in name:
        return None
    if any(_verdict(child) for child in layer._flatten_layers(include_self=False)):
        return None
    return Verdict(None, f"hw3tf does not know how `{name}` {does}")
