"""JAX's dot-product attention, compiled by XLA."""

import os

from attention.peers import keys_taking_part
from libraries.peer import Peer


class Jax(Peer):
    packages = ("jax", "jaxlib")

    def __init__(self, threads):
        # Its pool has as many threads as the process may use processors, and no
        # other switch.
        os.environ.update(NPROC=str(threads), JAX_PLATFORMS="cpu")
        import jax

        self.jax = jax

    def prepare(self, case, inputs, way):
        jax = self.jax
        mask = keys_taking_part(case)
        mask = None if mask is None else jax.numpy.asarray(mask[:, None, None, :])

        def attention(mask):
            return lambda *qkv: jax.nn.dot_product_attention(
                *qkv, mask=mask, is_causal=case.is_causal
            )

        def forward(mask, query, key, value):
            return (attention(mask)(query, key, value),)

        def train(mask, query, key, value, grad_output):
            output, pull = jax.vjp(attention(mask), query, key, value)
            return output, *pull(grad_output)

        tensors = [jax.numpy.asarray(x) for x in inputs.values()]
        function = jax.jit(train if case.training else forward)
        return lambda: jax.block_until_ready(function(mask, *tensors))
