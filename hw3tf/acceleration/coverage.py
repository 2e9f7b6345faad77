"""Verdicts on single layers: whether the kernel can take over, and what to replace."""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from hw3tf.layers.attention.stock import NOTHING
from hw3tf.layers.fallback import Checks, Refused, overrides
from hw3tf.ops.paths import logger


@dataclass(frozen=True)
class Verdict:
    """Whether the kernel can take over a layer.

    Attributes:
        attributes: Names and values to replace on the layer, empty if it is on the
            kernel already; None if the kernel cannot take over.
        reason: A phrase that says what is replaced, or why nothing is.
    """

    attributes: dict[str, Any] | None
    reason: str


@dataclass(frozen=True)
class Family:
    """How the layers of one class go to the kernel.

    Attributes:
        replace: Function of the layer. It returns a dict of names and functions to
            replace on it, or a phrase that says why this layer has to stay as it is.
            The functions raise `Refused` for what the kernel cannot take, before they
            change anything; then the layer's own method runs.
        methods: Names of the methods that `replace` reproduces or relies on. A
            subclass that overrides one of them computes something else.
        stock: Other parts of the layer that must be as Keras made them, now and at
            every call.
    """

    replace: Callable[[Any], dict[str, Any] | str]
    methods: Sequence[str]
    stock: Checks = NOTHING

    def verdict(self, layer: Any, known_class: type) -> Verdict:
        changed = overrides(layer, known_class, self.methods)
        changed = changed or self.stock.changed(layer)
        if changed:
            return Verdict(None, changed)
        attributes = self.replace(layer)
        if isinstance(attributes, str):
            return Verdict(None, attributes)
        functions = {name: f for name, f in attributes.items() if callable(f)}
        # Needed by the layer's own method, as key heads are no longer repeated for it.
        shared = len(functions) < len(attributes)
        guarded = {
            name: guard(layer, function, own_method(layer, name, shared), self.stock)
            for name, function in functions.items()
        }
        reason = f"`{next(iter(functions))}` is on the kernel"
        return Verdict(attributes | guarded, reason)


def guard(
    layer: Any,
    function: Callable[..., Any],
    own: Callable[..., Any],
    stock: Checks = NOTHING,
) -> Callable[..., Any]:
    """`function`, or `own` with the same arguments if `layer` has been changed since or
    `function` refuses the arguments. Errors are then those of the layer itself."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        reason = stock.changed(layer)
        if not reason:
            try:
                return function(*args, **kwargs)
            except Refused as refused:
                reason = str(refused)
        logger.debug("%s runs as in Keras: %s", layer.name, reason)
        return own(*args, **kwargs)

    # TensorFlow's AutoGraph would warn that it cannot convert the call; functions with
    # this attribute it leaves as they are.
    vars(run)["autograph_info__"] = {}
    return run


def own_method(layer: Any, name: str, shared: bool = False) -> Callable[..., Any]:
    """The method `name` that the class of `layer` has.

    `shared`: several query heads share a head of the keys and values that the method is
    called with, and it needs a copy of that head for each of them.
    """

    function = getattr(type(layer), name)

    def method(*args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(function).bind(layer, *args, **kwargs)
        if shared:
            query, *others = list(bound.arguments)[1:4]
            for each in others:
                repeats = (
                    bound.arguments[query].shape[2] // bound.arguments[each].shape[2]
                )
                bound.arguments[each] = keras.ops.repeat(
                    bound.arguments[each], repeats, axis=2
                )
        return function(*bound.args, **bound.kwargs)

    return method


def qualified_name(cls: type) -> str:
    """Module and name, to tell a class without importing its package."""
    return f"{cls.__module__}.{cls.__qualname__}"
