"""What a model gains on inputs of its own: `AccelerationReport.measure`."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras

from hw3tf.acceleration.model_layers import walk
from hw3tf.acceleration.patches import attach, attached, detach, is_attached
from hw3tf.acceleration.table import table
from hw3tf.ops import fronts

ELSEWHERE = "(outside of them)"
MIN_ROUNDS = 3


@dataclass(frozen=True)
class LayerMeasurement:
    """The time that one layer spends in the kernels.

    Attributes:
        path: As in `LayerReport`.
        calls: Calls of a kernel in one call of the model.
        seconds: Their time together.
    """

    path: str
    calls: int
    seconds: float


@dataclass(frozen=True)
class Measurement:
    """A model before and after `hw3tf.accelerate`, on given inputs; prints as a table.

    Attributes:
        layers: List of `LayerMeasurement`, in the order of the calls. Calls outside of
            the layers that `accelerate` changed, as those of hw3tf's own layers, are in
            one that is named `"(outside of them)"`; they are the same in both models.
        stock, accelerated: Seconds of a call of the model, the best of several.
    """

    layers: list[LayerMeasurement]
    stock: float
    accelerated: float

    @property
    def ratio(self) -> float:
        """How many times as fast the model is after `accelerate`."""
        return self.stock / self.accelerated

    @property
    def share(self) -> float:
        """The kernels' share of the accelerated model's time, from 0 to 1."""
        return min(1.0, self._kernels / self.accelerated)

    @property
    def stock_share(self) -> float:
        """The share of the stock model's time that the kernels took over, from 0 to 1:
        all but what the accelerated model spends outside of them."""
        return min(1.0, max(0.0, 1 - self._others / self.stock))

    @property
    def limit(self) -> float:
        """`ratio` if the kernels took no time: no kernel can bring more."""
        return self.stock / self._others if self._others else float("inf")

    @property
    def _kernels(self) -> float:
        return sum(layer.seconds for layer in self.layers)

    @property
    def _others(self) -> float:
        return max(0.0, self.accelerated - self._kernels)

    @property
    def _whole(self) -> str:
        stock, accelerated = (f"{1e3 * x:,.1f}" for x in (self.stock, self.accelerated))
        return (
            f"A call of the model: {stock} ms stock, {accelerated} ms accelerated, "
            f"{self.ratio:.2f}x as fast."
        )

    def __str__(self) -> str:
        if not self.layers:
            return f"No kernel was seen at work. {self._whole}"
        rows = [("layer", "calls", "kernel, ms", "of the model")]
        for layer in self.layers:
            share = f"{layer.seconds / self.accelerated:.1%}"
            row = layer.path, str(layer.calls), f"{1e3 * layer.seconds:,.3f}", share
            rows.append(row)
        return (
            f"{table(rows)}\n{self._whole}\n"
            f"The kernels took over {self.stock_share:.0%} of the stock model's time; "
            f"they are {self.share:.0%} of the accelerated one's.\n"
            f"If they took no time, the model would be {self.limit:.2f}x as fast."
        )

    __repr__ = __str__


def measure(model: Any, inputs: Any, seconds: float) -> Measurement:
    """See `AccelerationReport.measure`."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`measure` needs a `keras.Model`, whose `predict_on_batch` it times. "
            f"`accelerate` was given a layer: {model!r}"
        )
    if not seconds >= 0:
        raise ValueError(f"`seconds` must be at least 0. Received: {seconds!r}")
    changed = {layer: name for name, layer in walk(model) if is_attached(layer)}
    if not changed:
        raise ValueError(
            "No layer of the model is on the kernels by `accelerate`: there is nothing "
            "to measure, or it has been restored"
        )
    predict = model.predict_function
    numpy = keras.ops.convert_to_numpy
    states = [(v, numpy(v)) for v in model.non_trainable_variables]
    try:
        accelerated = _compiled(model, inputs)
        with _detached(list(changed)):
            stock = _compiled(model, inputs)
        kernels = _kernels(model, inputs, changed, seconds / 3)
        times = _in_turn({"stock": stock, "accelerated": accelerated}, 2 * seconds / 3)
    finally:
        model.predict_function = predict
        for variable, value in states:
            variable.assign(value)
    return Measurement(kernels, **times)


def _compiled(model: Any, inputs: Any) -> Callable[[], Any]:
    """A call of `model` as it is now, compiled as `predict` compiles it."""
    model.predict_function = None
    model.predict_on_batch(inputs)
    function = model.predict_function

    def call() -> Any:
        model.predict_function = function
        return model.predict_on_batch(inputs)

    return call


@contextlib.contextmanager
def _detached(layers: list[Any]) -> Iterator[None]:
    """`layers` as they were before `accelerate`."""
    attributes = [attached(layer) for layer in layers]
    for layer in layers:
        detach(layer)
    try:
        yield
    finally:
        for layer, values in zip(layers, attributes, strict=True):
            attach(layer, values)


def _in_turn(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """The seconds of the fastest call of each; the order changes in every round."""
    best = dict.fromkeys(calls, float("inf"))
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < MIN_ROUNDS or time.perf_counter() < end:
        for name in sorted(calls, reverse=rounds % 2 == 1):
            start = time.perf_counter()
            calls[name]()
            best[name] = min(best[name], time.perf_counter() - start)
        rounds += 1
    return best


class _Stopwatch:
    """The times of the calls of kernels, as (layer, seconds), one list for each call of
    the model."""

    def __init__(self) -> None:
        self.layer = ELSEWHERE
        self.calls: list[tuple[str, float]] = []

    def watch(self, path: str, front: Any) -> Any:
        """`front` with timed functions; pure Keras is no kernel."""
        return front if path == "reference" else _TimedFront(front, self)

    def within(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` of the layer `name`."""

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            before, self.layer = self.layer, name
            try:
                return function(*args, **kwargs)
            finally:
                self.layer = before

        return run


class _TimedFront:
    """A module of `hw3tf.ops.fronts` whose functions are timed."""

    def __init__(self, front: Any, stopwatch: _Stopwatch) -> None:
        self._front, self._stopwatch = front, stopwatch

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self._front, name)

        def run(*args: Any, **kwargs: Any) -> Any:
            _wait_for((args, kwargs))
            start = time.perf_counter()
            results = function(*args, **kwargs)
            _wait_for(results)
            took = time.perf_counter() - start
            self._stopwatch.calls.append((self._stopwatch.layer, took))
            return results

        return run


def _wait_for(tensors: Any) -> None:
    """Until they are computed: JAX returns arrays before it has filled them."""
    for x in keras.tree.flatten(tensors):
        if hasattr(x, "block_until_ready"):
            x.block_until_ready()


def _kernels(
    model: Any, inputs: Any, changed: dict[Any, str], seconds: float
) -> list[LayerMeasurement]:
    """The time in the kernels by layer, of each call the shortest of several, in calls
    of the model outside of a graph."""
    stopwatch = _Stopwatch()
    found: list[list[tuple[str, float]]] = []
    end = time.perf_counter() + seconds
    with _watched(stopwatch, changed), _eagerly(model):
        while len(found) < MIN_ROUNDS or time.perf_counter() < end:
            model.predict_on_batch(inputs)
            found.append(stopwatch.calls)
            stopwatch.calls = []
    numbers = [len(calls) for calls in found]
    if len(set(numbers)) > 1:
        raise ValueError(
            "The kernels cannot be timed: the model calls them in a graph of its own, "
            f"and not in every call. Calls seen: {numbers}"
        )
    layers: dict[str, list[float]] = {}
    for calls in zip(*found, strict=True):
        layers.setdefault(calls[0][0], []).append(min(took for _, took in calls))
    return [
        LayerMeasurement(name, len(times), sum(times)) for name, times in layers.items()
    ]


@contextlib.contextmanager
def _eagerly(model: Any) -> Iterator[None]:
    """`predict_on_batch` of `model` compiles nothing."""
    before, model.predict_function = model.run_eagerly, None
    model.run_eagerly = True
    try:
        yield
    finally:
        model.run_eagerly = before


@contextlib.contextmanager
def _watched(stopwatch: _Stopwatch, changed: dict[Any, str]) -> Iterator[None]:
    """`stopwatch` times the kernels, and knows in which of the layers they are."""
    before = {layer: attached(layer) for layer in changed}
    try:
        for layer, name in changed.items():
            detach(layer)
            timed = {
                key: stopwatch.within(name, x) if callable(x) else x
                for key, x in before[layer].items()
            }
            attach(layer, timed)
        fronts.watch = stopwatch.watch
        yield
    finally:
        fronts.watch = None
        for layer, attributes in before.items():
            detach(layer)
            attach(layer, attributes)
