"""The cases of recurrence/layers/run.py: their sizes, their inputs, and what is
checked.

Sizes are (B, T, F, U): batch, timesteps, features, units. Weights are those of Keras,
gates in Keras's order; the GRU is `reset_after`, as Keras's default and all peers'.
"""

import dataclasses
import math

import numpy as np

GATES = {"lstm": 4, "gru": 3, "simple_rnn": 1}
# Largest error against float64, relative to the largest number. Float32 of all
# libraries stays below an eighth of it; TF32 or bfloat16 would be ten times over it.
TOLERANCE = 1e-5
SAMPLES = 200


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table.

    Args:
        cell: "lstm", "gru" or "simple_rnn".
        sizes: (B, T, F, U).
        training: Forward, and the gradients of inputs and all weights.
        shortest: The batch is padded on the right; lengths are uniform from this to T.
        layers: How many, one on top of the other.
        bidirectional: Each layer is two, and returns the outputs of both.
        is_curve: A point of the picture.
        ahead: The bar: times the speed of the best peer.
        of_peak: The bar: share of the peak.
        of_cache: The bar: GB/s per thread at which recurrent weights are read, each
            once in a step; for a batch of 1.
    """

    cell: str
    sizes: tuple
    training: bool = False
    shortest: int | None = None
    layers: int = 1
    bidirectional: bool = False
    is_curve: bool = False
    ahead: float | None = None
    of_peak: float | None = None
    of_cache: float | None = None

    @property
    def group(self):
        return "curve" if self.is_curve else self.cell

    @property
    def name(self):
        name = "curve-" if self.is_curve else ""
        name += f"{self.cell}-{'training' if self.training else 'forward'}"
        name += f"-{'x'.join(map(str, self.sizes))}"
        name += "-padded" if self.shortest else ""
        name += "-bidirectional" if self.bidirectional else ""
        return name + (f"-{self.layers}-layers" if self.layers > 1 else "")

    @property
    def lengths(self):
        """Of the sequences of a padded batch; None if there is no padding."""
        if self.shortest is None:
            return None
        rng = np.random.default_rng(0)
        return rng.integers(self.shortest, self.sizes[1] + 1, self.sizes[0])

    @property
    def taking_part(self):
        """The mask of a padded batch, (B, T); None if there is no padding."""
        if self.shortest is None:
            return None
        return np.arange(self.sizes[1]) < self.lengths[:, None]

    @property
    def directions(self):
        return 2 if self.bidirectional else 1

    @property
    def flops(self):
        """Of the products of steps that take part; training counts three times."""
        batch, timesteps, _, units = self.sizes
        steps = batch * timesteps
        if self.shortest is not None:
            steps = int(self.lengths.sum())
        columns = GATES[self.cell] * units
        rows = sum(shapes[0][0] + units for shapes in self.weight_shapes)
        return 2 * steps * rows * columns * (3 if self.training else 1)

    @property
    def weight_shapes(self):
        """(kernel, recurrent kernel, bias) of each layer and direction."""
        *_, features, units = self.sizes
        columns = GATES[self.cell] * units
        bias = (2, columns) if self.cell == "gru" else (columns,)
        shapes = []
        for layer in range(self.layers):
            rows = self.directions * units if layer else features
            one = ((rows, columns), (units, columns), bias)
            shapes += [one] * self.directions
        return shapes

    @property
    def result_shapes(self):
        """Name -> shape of all that is computed."""
        batch, timesteps, features, units = self.sizes
        shapes = {"outputs": (batch, timesteps, self.directions * units)}
        if self.training:
            shapes["grad_inputs"] = (batch, timesteps, features)
            names = ("grad_kernel", "grad_recurrent_kernel", "grad_bias")
            for i, weights in enumerate(self.weight_shapes):
                shapes |= {f"{n}_{i}": s for n, s in zip(names, weights, strict=True)}
        return shapes

    @property
    def bytes_of_inputs_and_outputs(self):
        batch, timesteps, features, _ = self.sizes
        shapes = [(batch, timesteps, features), *self.result_shapes.values()]
        shapes += [shape for weights in self.weight_shapes for shape in weights]
        if self.training:
            shapes.append(self.result_shapes["outputs"])  # their gradient
        return 4 * sum(map(math.prod, shapes))

    @property
    def bytes_from_cache(self):
        """Of recurrent weights in all steps of the forward pass."""
        shapes = [recurrent for _, recurrent, _ in self.weight_shapes]
        return 4 * self.sizes[1] * sum(map(math.prod, shapes))


def table():
    """The cases of the table, with their bars."""
    long, rows = (64, 256, 128, 128), (64, 28, 28, 128)
    small, large, one = (32, 100, 16, 64), (32, 200, 256, 512), (1, 200, 64, 128)
    padded, bert = (64, 512, 64, 128), (32, 256, 128, 256)

    def forward(cell, sizes, ahead, of_peak=None, **more):
        return Case(cell, sizes, ahead=ahead, of_peak=of_peak, **more)

    def training(cell, sizes, ahead, of_peak=None, **more):
        return forward(cell, sizes, ahead, of_peak, training=True, **more)

    return [
        forward("lstm", long, 1.2, 0.88),
        training("lstm", long, 1.45, 0.85),
        forward("gru", long, 1.25, 0.86),
        training("gru", long, 2.6, 0.82),
        forward("simple_rnn", long, 1.5, 0.75),
        training("simple_rnn", long, 2, 0.75),
        forward("lstm", rows, 1.15, 0.85),
        training("lstm", rows, 2, 0.85),
        forward("gru", rows, 1.25, 0.8),
        training("gru", rows, 2.8, 0.8),
        forward("lstm", small, 1.3, 0.77),
        training("lstm", small, 2.1, 0.77),
        training("gru", small, 6, 0.7),
        forward("lstm", large, 1.07, 0.92),
        training("lstm", large, 1.35, 0.88),
        training("gru", large, 1.75, 0.86),
        forward("lstm", one, 1.6, of_cache=100),
        training("lstm", one, 2),
        training("gru", one, 8),
        forward("lstm", padded, 1.9, shortest=20),
        training("lstm", padded, 1.9, shortest=20),
        training("gru", bert, 1.6, layers=2, bidirectional=True),
    ]


# What a curve goes over: the title of its axis, and the sizes at each of its points.
CURVES = {
    "timesteps, T": {t: (32, t, 128, 128) for t in (16, 64, 128, 256, 1024)},
    "batch, B": {b: (b, 128, 128, 128) for b in (1, 4, 16, 32, 64, 256)},
    "units and features, U = F": {u: (32, 128, u, u) for u in (32, 64, 128, 256, 512)},
}


def curve():
    """Rate over timesteps, batch and units: forward and training."""
    sizes = [sizes for points in CURVES.values() for sizes in points.values()]
    return [
        Case("lstm", each, training=training, is_curve=True)
        for training in (False, True)
        for each in dict.fromkeys(sizes)
    ]


def shrunk(case):
    """The same kind of case, small enough to see only whether all works."""
    batch, timesteps, features, units = case.sizes
    shortest = None if case.shortest is None else 2
    sizes = (min(batch, 3), min(timesteps, 7), min(features, 5), min(units, 8))
    if case.is_curve:  # which stays one
        sizes = tuple(max(1, size // 32) for size in case.sizes)
    return dataclasses.replace(case, sizes=sizes, shortest=shortest)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Arrays in float32.

    Attributes:
        inputs: (B, T, F).
        weights: (kernel, recurrent kernel, bias) of each layer and direction.
        grad_outputs: (B, T, directions * U), zero where a step is masked; None in a
            forward pass.
    """

    inputs: np.ndarray
    weights: list
    grad_outputs: np.ndarray | None


def make_inputs(case, seed=0):
    """Standard normal inputs, weights as PyTorch begins with, biases included."""
    rng = np.random.default_rng([1, seed])
    batch, timesteps, features, units = case.sizes

    def weight(shape):
        return rng.uniform(-1, 1, shape).astype(np.float32) / np.float32(units) ** 0.5

    inputs = rng.standard_normal((batch, timesteps, features), np.float32)
    weights = [tuple(map(weight, shapes)) for shapes in case.weight_shapes]
    grad_outputs = None
    if case.training:
        shape = case.result_shapes["outputs"]
        grad_outputs = rng.standard_normal(shape, np.float32)
        if case.shortest is not None:
            grad_outputs *= case.taking_part[..., None]
    return Inputs(inputs, weights, grad_outputs)


def sampled(case):
    """Which numbers of the results are checked: name -> where, as arrays are indexed.
    Outputs of masked steps are not: libraries fill them with this and that."""
    rng = np.random.default_rng(2)
    where = {}
    for name, shape in case.result_shapes.items():
        where[name] = [rng.integers(n, size=SAMPLES) for n in shape]
        if name == "outputs" and case.shortest is not None:
            of_each = case.lengths[where[name][0]]
            where[name][1] = rng.integers(of_each)
    return {name: tuple(x.tolist() for x in index) for name, index in where.items()}


def wrong(case, rows, right):
    """What is wrong with a library's sampled numbers; empty if nothing is."""
    for name, expected in right.items():
        expected = np.asarray(expected)
        error = np.abs(np.asarray(rows[name], np.float64) - expected).max()
        worst = float(error / np.abs(expected).max())
        if not worst <= TOLERANCE:
            return f"wrong: {name} is off by {worst:.1e}, allowed are {TOLERANCE:.0e}"
    return ""
