"""PyTorch's scaled dot-product attention, and the kernel in its place."""

import os

import ml_dtypes
import numpy as np
from attention.peers import heads_first, keys_taking_part
from libraries.peer import Peer


class Torch(Peer):
    packages = ("torch",)

    def __init__(self, threads):
        import torch

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        self.torch = torch

    def attention(self):
        return self.torch.nn.functional.scaled_dot_product_attention

    def prepare(self, case, inputs, way):
        torch = self.torch

        def tensor(x):
            x = heads_first(x)
            if x.dtype == ml_dtypes.bfloat16:
                return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
            return torch.from_numpy(x)

        query, key, value, *grads = (tensor(x) for x in inputs.values())
        options = {"is_causal": case.is_causal}
        if case.sizes[3] != case.sizes[4]:
            options["enable_gqa"] = True
        mask = keys_taking_part(case)
        if mask is not None:
            options["attn_mask"] = torch.from_numpy(mask[:, None, None, :])
        attention = self.attention()

        def forward():
            with torch.inference_mode():
                return (attention(query, key, value, **options),)

        def train():
            output = attention(query, key, value, **options)
            return output, *torch.autograd.grad(output, leaves, grads)

        leaves = (query, key, value)
        if case.training:
            for leaf in leaves:
                leaf.requires_grad_()
        return train if case.training else forward

    def to_numpy(self, outputs):
        def numbers(x):
            return x.float() if x.dtype == self.torch.bfloat16 else x

        return [numbers(x.detach()).transpose(1, 2).numpy() for x in outputs]


class Hw3tfTorch(Torch):
    packages = ("hw3tf", "torch")

    def __init__(self, threads):
        os.environ["KERAS_BACKEND"] = "torch"
        super().__init__(threads)
        import hw3tf.torch

        self.hw3tf = hw3tf
        hw3tf.ops.set_num_threads(threads)

    def attention(self):
        return self.hw3tf.torch.scaled_dot_product_attention
