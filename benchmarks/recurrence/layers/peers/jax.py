"""Recurrent layers as `jax.lax.scan`, compiled by XLA, and the kernels in its place."""

import os

from libraries.peer import Peer
from recurrence.layers.peers import time_first


class Jax(Peer):
    """Time comes first, and inputs are multiplied before the scan, all at once."""

    packages = ("jax", "jaxlib")

    def __init__(self, threads):
        # Its pool has as many threads as the process may use processors, and no
        # other switch.
        os.environ.update(NPROC=str(threads), JAX_PLATFORMS="cpu")
        import jax

        self.jax = jax

    def ways(self, case):
        return ["scan", "scan unrolled by 4"]

    def prepare(self, case, inputs, way):
        jax, numpy = self.jax, self.jax.numpy
        unroll = 1 if way == "scan" else 4
        step = getattr(self, f"_{case.cell}")
        mask = case.taking_part
        mask = None if mask is None else numpy.asarray(mask.T[..., None])

        def direction(x, weights, reverse):
            kernel, recurrent_kernel, bias = weights
            shape = (x.shape[1], recurrent_kernel.shape[0])
            states = (numpy.zeros(shape), numpy.zeros(shape))
            own, recurrent_bias = bias if case.cell == "gru" else (bias, None)
            products = x @ kernel + own

            def body(states, given):
                product, takes_part = given
                new = step(product, states, recurrent_kernel, recurrent_bias)
                if takes_part is not None:
                    pairs = zip(new, states, strict=True)
                    new = tuple(numpy.where(takes_part, a, b) for a, b in pairs)
                return new, new[0]

            options = {"reverse": reverse, "unroll": unroll}
            return jax.lax.scan(body, states, (products, mask), **options)[1]

        def forward(x, weights):
            weights = iter(weights)
            for _ in range(case.layers):
                outputs = [
                    direction(x, next(weights), reverse)
                    for reverse in (False, True)[: case.directions]
                ]
                x = numpy.concatenate(outputs, -1)
            return x

        def train(x, weights, grad_outputs):
            y, pull = jax.vjp(forward, x, weights)
            return y, pull(grad_outputs)

        arrays = [time_first(inputs.inputs), inputs.weights]
        if case.training:
            arrays.append(time_first(inputs.grad_outputs))
        arguments = jax.tree.map(numpy.asarray, arrays)
        function = jax.jit(train if case.training else forward)
        return lambda: jax.block_until_ready(function(*arguments))

    def _lstm(self, product, states, recurrent_kernel, _):
        h, c = states
        sigmoid, tanh = self.jax.nn.sigmoid, self.jax.numpy.tanh
        gates = product + h @ recurrent_kernel
        i, f, g, o = self.jax.numpy.split(gates, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(c), c

    def _gru(self, product, states, recurrent_kernel, recurrent_bias):
        h, unused = states
        split, sigmoid = self.jax.numpy.split, self.jax.nn.sigmoid
        z, r, g = split(product, 3, -1)
        own_z, own_r, own_g = split(h @ recurrent_kernel + recurrent_bias, 3, -1)
        z, r = sigmoid(z + own_z), sigmoid(r + own_r)
        return z * h + (1 - z) * self.jax.numpy.tanh(g + r * own_g), unused

    def _simple_rnn(self, product, states, recurrent_kernel, _):
        h, unused = states
        return self.jax.numpy.tanh(product + h @ recurrent_kernel), unused

    def to_numpy(self, outputs):
        leaves = self.jax.tree.leaves(outputs)
        sequences = 1 if len(leaves) == 1 else 2  # outputs, gradient of the inputs
        arrays = super().to_numpy(leaves)
        return [*map(time_first, arrays[:sequences]), *arrays[sequences:]]


class Hw3tfJax(Peer):
    packages = ("hw3tf", "jax", "jaxlib")

    def __init__(self, threads):
        os.environ.update(NPROC=str(threads), JAX_PLATFORMS="cpu", KERAS_BACKEND="jax")
        import jax

        import hw3tf

        self.jax, self.ops = jax, hw3tf.ops
        hw3tf.ops.set_num_threads(threads)

    def prepare(self, case, inputs, way):
        jax, numpy = self.jax, self.jax.numpy
        run, lengths = getattr(self.ops, case.cell), case.lengths
        more = {} if lengths is None else {"lengths": lengths.astype("int32")}

        def direction(x, weights, backwards):
            outputs = run(
                x, *weights, return_sequences=True, go_backwards=backwards, **more
            )
            return outputs[:, ::-1] if backwards else outputs

        def forward(x, weights):
            weights = iter(weights)
            for _ in range(case.layers):
                outputs = [
                    direction(x, next(weights), backwards)
                    for backwards in (False, True)[: case.directions]
                ]
                x = outputs[0] if len(outputs) == 1 else numpy.concatenate(outputs, -1)
            return x

        def train(x, weights, grad_outputs):
            y, pull = jax.vjp(forward, x, weights)
            return y, pull(grad_outputs)

        arrays = [inputs.inputs, inputs.weights]
        if case.training:
            arrays.append(inputs.grad_outputs)
        arguments = jax.tree.map(numpy.asarray, arrays)
        function = jax.jit(train if case.training else forward)
        return lambda: jax.block_until_ready(function(*arguments))

    def to_numpy(self, outputs):
        return super().to_numpy(self.jax.tree.leaves(outputs))
