"""PyTorch's recurrent layers."""

import numpy as np
from libraries.peer import Peer
from recurrence.layers.peers import in_order, time_first

KINDS = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "RNN"}
# Its gates in places of Keras's: r, z, n of the GRU for z, r, h; and back alike.
ORDER = {"lstm": (0, 1, 2, 3), "gru": (1, 0, 2), "simple_rnn": (0,)}


class Torch(Peer):
    """Time comes first; what is padded is a packed sequence."""

    packages = ("torch",)

    def __init__(self, threads):
        import torch

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        self.torch, self.uses_onednn = torch, True

    def ways(self, case):
        return ["with oneDNN", "without oneDNN"]

    def prepare(self, case, inputs, way):
        torch, wants_onednn = self.torch, way == "with oneDNN"
        _, _, features, units = case.sizes
        layers = getattr(torch.nn, KINDS[case.cell])(
            features, units, num_layers=case.layers, bidirectional=case.bidirectional
        )
        parameters = list(layers.parameters())
        arrays = [
            torch.from_numpy(x)
            for weights in inputs.weights
            for x in self._weights(case, weights)
        ]
        with torch.no_grad():
            for parameter, x in zip(parameters, arrays, strict=True):
                parameter.copy_(x)
        given, whole = self._sequences(case, inputs.inputs)
        x = given if case.lengths is None else given.data

        def run():
            if self.uses_onednn != wants_onednn:  # the switch is of the process
                torch.backends.mkldnn.set_flags(wants_onednn)
                self.uses_onednn = wants_onednn
            y = layers(given)[0]
            return y if case.lengths is None else y.data

        def forward():
            with torch.inference_mode():
                return case, whole, (run(),)

        if not case.training:
            return forward
        grad, _ = self._sequences(case, inputs.grad_outputs)
        grad = grad if case.lengths is None else grad.data
        x.requires_grad_()
        leaves = [x, *parameters]

        def train():
            y = run()
            return case, whole, (y, *torch.autograd.grad(y, leaves, grad))

        return train

    def _weights(self, case, weights):
        """Those of Keras as those of PyTorch, in its order."""
        kernel, recurrent_kernel, bias = (
            in_order(x, ORDER[case.cell]) for x in weights
        )
        biases = (bias, np.zeros_like(bias)) if bias.ndim == 1 else bias
        return np.ascontiguousarray(kernel.T), recurrent_kernel.T.copy(), *biases

    def _sequences(self, case, x):
        """(B, T, ...) as PyTorch takes it, and the way back of its data."""
        torch = self.torch
        if case.lengths is None:
            return torch.from_numpy(time_first(x)), time_first
        rnn = torch.nn.utils.rnn
        packed = rnn.pack_padded_sequence(
            torch.from_numpy(x),
            torch.from_numpy(case.lengths),
            batch_first=True,
            enforce_sorted=False,
        )

        def whole(data):
            sequence = packed._replace(data=torch.from_numpy(data))
            total = {"batch_first": True, "total_length": case.sizes[1]}
            return rnn.pad_packed_sequence(sequence, **total)[0].numpy()

        return packed, whole

    def to_numpy(self, outputs):
        case, whole, tensors = outputs
        arrays = [x.detach().numpy() for x in tensors]
        found = [whole(x) for x in arrays[:2]]  # outputs, gradient of the inputs
        of_weights = [in_order(x.T, ORDER[case.cell]) for x in arrays[2:]]
        for i in range(0, len(of_weights), 4):
            kernel, recurrent_kernel, bias, recurrent_bias = of_weights[i : i + 4]
            bias = np.stack([bias, recurrent_bias]) if case.cell == "gru" else bias
            found += [kernel, recurrent_kernel, bias]
        return found
