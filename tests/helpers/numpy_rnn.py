"""LSTM, GRU and simple RNN as formulas in NumPy, with derivatives by hand: a judge that
is faster than `hw3tf.reference.rnn`, which is one step of Keras after the other."""

import numpy as np

from hw3tf.reference.rnn import GATES


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def relu6(x):
    return np.minimum(np.maximum(x, 0), 6)


# The function, and its derivative by its argument `x` and its value `y`.
ACTIVATIONS = {
    "tanh": (np.tanh, lambda x, y: 1 - y * y),
    "sigmoid": (sigmoid, lambda x, y: y * (1 - y)),
    "relu": (lambda x: np.maximum(x, 0), lambda x, y: (x > 0).astype(x.dtype)),
    "linear": (lambda x: x, lambda x, y: np.ones_like(x)),
    "hard_sigmoid": (
        lambda x: relu6(x + 3) / 6,
        lambda x, y: ((x + 3 > 0) & (x + 3 < 6)).astype(x.dtype) / 6,
    ),
}


def valid_steps(shape, mask, lengths):
    """(B, T, 1), True where a step takes part, or None if all do."""
    if mask is None and lengths is None:
        return None
    valid = np.ones(shape, bool)
    if mask is not None:
        valid &= mask
    if lengths is not None:
        valid &= np.arange(shape[1]) < lengths[:, None]
    return valid[:, :, None]


class Products:
    """`x @ kernel`, after `x` has been multiplied by the factors of each gate.

    Attributes:
        gradient: Of the kernel, the sum over the calls of `backward`.
    """

    def __init__(self, kernel, factors, gates):
        width = kernel.shape[1] // gates
        self.kernel, self.gradient = kernel, np.zeros_like(kernel)
        if factors is None or len(factors) == 1:
            one = None if factors is None else factors[0]
            self.parts = [(one, slice(None))]
        else:
            self.parts = [
                (factor, slice(g * width, (g + 1) * width))
                for g, factor in enumerate(factors)
            ]

    @staticmethod
    def times(x, factor):
        if factor is None:
            return x
        return x * (factor[:, None] if x.ndim == 3 else factor)

    def forward(self, x):
        return np.concatenate(
            [
                self.times(x, factor) @ self.kernel[:, columns]
                for factor, columns in self.parts
            ],
            axis=-1,
        )

    def backward(self, x, grad):
        """The gradient of `x`."""
        total = np.zeros_like(x)
        for factor, columns in self.parts:
            rows, own = self.times(x, factor), grad[..., columns]
            total += self.times(own @ self.kernel[:, columns].T, factor)
            self.gradient[:, columns] += rows.reshape(
                -1, rows.shape[-1]
            ).T @ own.reshape(-1, own.shape[-1])
        return total


class Lstm:
    def __init__(self, recurrent, of_state, of_gates, reset_after):
        self.products = [recurrent(0, 4)]
        self.of_state, self.of_gates = of_state, of_gates

    def forward(self, sums, states):
        """The states after the step, and what `backward` needs."""
        (a, _), (s, _), (h, c) = self.of_state, self.of_gates, states
        x = np.split(sums + self.products[0].forward(h), 4, axis=-1)
        y = [s(x[0]), s(x[1]), a(x[2]), s(x[3])]
        after = y[1] * c + y[0] * y[2]
        squashed = a(after)
        return [y[3] * squashed, after], (h, c, x, y, after, squashed)

    def backward(self, kept, grads):
        """The gradients of the sums, of the products' results and of the states."""
        (_, da), (_, ds), (grad_h, grad_c) = self.of_state, self.of_gates, grads
        h, c, x, (i, f, g, o), after, squashed = kept
        grad_c = grad_c + grad_h * o * da(after, squashed)
        sums = np.concatenate(
            [
                grad_c * g * ds(x[0], i),
                grad_c * c * ds(x[1], f),
                grad_c * i * da(x[2], g),
                grad_h * squashed * ds(x[3], o),
            ],
            axis=-1,
        )
        return sums, sums, [self.products[0].backward(h, sums), grad_c * f]


class Gru:
    def __init__(self, recurrent, of_state, of_gates, reset_after):
        self.products = [recurrent(0, 2), recurrent(2, 3)]
        self.of_state, self.of_gates = of_state, of_gates
        self.reset_after = reset_after

    def forward(self, sums, states):
        (a, _), (s, _), (h,) = self.of_state, self.of_gates, states
        x = np.split(sums, 3, axis=-1)
        for_z, for_r = np.split(self.products[0].forward(h), 2, axis=-1)
        x[0], x[1] = x[0] + for_z, x[1] + for_r
        z, r = s(x[0]), s(x[1])
        inner = self.products[1].forward(h if self.reset_after else r * h)
        x[2] = x[2] + (r * inner if self.reset_after else inner)
        candidate = a(x[2])
        return [z * h + (1 - z) * candidate], (h, x, z, r, inner, candidate)

    def backward(self, kept, grads):
        (_, da), (_, ds), (grad,) = self.of_state, self.of_gates, grads
        h, x, z, r, inner, candidate = kept
        of_candidate = grad * (1 - z) * da(x[2], candidate)
        before = grad * z
        if self.reset_after:
            of_inner = of_candidate * r
            before = before + self.products[1].backward(h, of_inner)
            grad_r = of_candidate * inner
        else:
            of_inner = of_candidate
            of_reset = self.products[1].backward(r * h, of_inner)
            before = before + of_reset * r
            grad_r = of_reset * h
        gates = np.concatenate(
            [(grad * h - grad * candidate) * ds(x[0], z), grad_r * ds(x[1], r)], axis=-1
        )
        before = before + self.products[0].backward(h, gates)
        sums = np.concatenate([gates, of_candidate], axis=-1)
        return sums, np.concatenate([gates, of_inner], axis=-1), [before]


class Simple:
    def __init__(self, recurrent, of_state, of_gates, reset_after):
        self.products, self.of_state = [recurrent(0, 1)], of_state

    def forward(self, sums, states):
        x = sums + self.products[0].forward(states[0])
        y = self.of_state[0](x)
        return [y], (states[0], x, y)

    def backward(self, kept, grads):
        h, x, y = kept
        sums = grads[0] * self.of_state[1](x, y)
        return sums, sums, [self.products[0].backward(h, sums)]


STEPS = {"lstm": Lstm, "gru": Gru, "simple_rnn": Simple}


class Recurrent(Products):
    """The products with `h` of some gates, and their bias."""

    def __init__(self, kernel, bias, factors, gates):
        super().__init__(kernel, factors, gates)
        self.bias = bias

    def forward(self, x):
        products = super().forward(x)
        return products if self.bias is None else products + self.bias


def recurrent_part(cell, arrays):
    """A function that makes the products of the gates `first` to `last - 1`."""
    kernel, factors = arrays["recurrent_kernel"], arrays.get("recurrent_dropout")
    bias, units = arrays.get("recurrent_bias"), len(kernel)

    def make(first, last):
        columns = slice(first * units, last * units)
        own = factors
        if factors is not None and len(factors) != 1:
            own = factors[first:last]
        return Recurrent(
            kernel[:, columns],
            None if bias is None else bias[columns],
            own,
            last - first,
        )

    return make


def rnn(
    cell,
    arrays,
    dtype="float64",
    *,
    activation="tanh",
    recurrent_activation="sigmoid",
    reset_after=True,
    reverse=False,
    return_sequences=False,
    zero_output_for_mask=False,
):
    """Results and gradients of a call, by name.

    It is computed in `dtype`, the sums in the order of `hw3tf.reference.rnn`: its error
    in float32 stands for that of Keras.

    Args:
        arrays: As `rnn_checks.make_arrays` returns them. `grad_outputs` is of all
            timesteps, or of those returned.
        dtype: "float64" or "float32".
    """
    arrays = {
        k: x if x.dtype.kind in "bi" else x.astype(dtype) for k, x in arrays.items()
    }
    inputs, kernel = arrays["inputs"], arrays["kernel"]
    valid = valid_steps(inputs.shape[:2], arrays.get("mask"), arrays.get("lengths"))
    if valid is not None:
        inputs = np.where(valid, inputs, inputs.dtype.type(0))
    products = Products(kernel, arrays.get("input_dropout"), GATES[cell])
    sums = products.forward(inputs)
    if "bias" in arrays:
        sums = sums + arrays["bias"]
    step = STEPS[cell](
        recurrent_part(cell, arrays),
        ACTIVATIONS[activation],
        ACTIVATIONS[recurrent_activation],
        reset_after,
    )
    batch, timesteps, _ = inputs.shape
    zeros = np.zeros((batch, len(arrays["recurrent_kernel"])), dtype)
    letters = "hc" if cell == "lstm" else "h"
    states = [arrays.get(f"initial_{x}", zeros) for x in letters]

    order = range(timesteps)[::-1] if reverse else range(timesteps)
    outputs, kept, output = [], [], zeros
    for t in order:
        after, saved = step.forward(sums[:, t], states)
        output_before, output = output, after[0]
        if valid is not None:
            see = valid[:, t]
            otherwise = zeros if zero_output_for_mask else output_before
            output = np.where(see, after[0], otherwise)
            after = [np.where(see, x, y) for x, y in zip(after, states, strict=True)]
        states = after
        outputs.append(output)
        kept.append(saved)
    outputs = np.stack(outputs, axis=1) if return_sequences else output[:, None]
    results = {"outputs": outputs}
    results |= {f"last_{x}": y for x, y in zip(letters, states, strict=True)}

    grad_sums = np.zeros_like(sums)
    grad_recurrent_bias = np.zeros_like(sums[0, 0]) if timesteps else 0
    grads, of_output = [arrays[f"grad_last_{x}"] for x in letters], zeros
    upstream = arrays["grad_outputs"]
    for number, t in reversed([*enumerate(order)]):
        if return_sequences:
            of_output = of_output + upstream[:, number]
        elif number == timesteps - 1:
            of_output = upstream[:, 0]
        passed = [zeros] * len(grads)
        if valid is not None:
            see = valid[:, t]
            passed = [np.where(see, zeros, x) for x in grads]
            grads = [np.where(see, x, zeros) for x in grads]
            grads[0] = grads[0] + np.where(see, of_output, zeros)
            hidden = zeros if zero_output_for_mask else of_output
            of_output = np.where(see, zeros, hidden)
        else:
            grads[0], of_output = grads[0] + of_output, zeros
        grad_sums[:, t], of_products, before = step.backward(kept[number], grads)
        grad_recurrent_bias = grad_recurrent_bias + of_products.sum(0)
        grads = [x + y for x, y in zip(before, passed, strict=True)]

    of_inputs = products.backward(inputs, grad_sums)
    if valid is not None:
        of_inputs = np.where(valid, of_inputs, zeros.dtype.type(0))
    found = {
        "inputs": of_inputs,
        "kernel": products.gradient,
        "recurrent_kernel": np.concatenate([x.gradient for x in step.products], 1),
        "bias": grad_sums.sum((0, 1)),
        "recurrent_bias": grad_recurrent_bias,
    }
    found |= {f"initial_{x}": y for x, y in zip(letters, grads, strict=True)}
    results |= {f"gradient of {k}": x for k, x in found.items() if k in arrays}
    assert all(x.dtype == dtype for x in results.values())
    return results
