"""JAX's dot-product attention, compiled by XLA, and the kernel in its place."""

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

    def attention(self):
        return self.jax.nn.dot_product_attention

    def masks(self, case):
        mask = keys_taking_part(case)
        return {} if mask is None else {"mask": mask[:, None, None, :]}

    def prepare(self, case, inputs, way):
        jax, attention = self.jax, self.attention()

        def forward(masks, *qkv):
            return (attention(*qkv, is_causal=case.is_causal, **masks),)

        def train(masks, query, key, value, grad_output):
            (output,), pull = jax.vjp(lambda *x: forward(masks, *x), query, key, value)
            return output, *pull((grad_output,))

        masks = jax.tree.map(jax.numpy.asarray, self.masks(case))
        tensors = [jax.numpy.asarray(x) for x in inputs.values()]
        function = jax.jit(train if case.training else forward)
        return lambda: jax.block_until_ready(function(masks, *tensors))


class Hw3tfJax(Jax):
    packages = ("hw3tf", "jax", "jaxlib")

    def __init__(self, threads):
        os.environ["KERAS_BACKEND"] = "jax"
        super().__init__(threads)
        import hw3tf.jax

        self.hw3tf = hw3tf
        hw3tf.ops.set_num_threads(threads)

    def attention(self):
        return self.hw3tf.jax.dot_product_attention

    def masks(self, case):
        if case.lengths is None:
            return {}
        # Padded queries are left out, too, as in what TensorFlow calls.
        names = ("query_seq_lengths", "key_value_seq_lengths")
        return dict.fromkeys(names, case.lengths.astype("int32"))
