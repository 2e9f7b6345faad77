"""hw3tf, its kernel alone, and stock Keras without and with XLA."""

import inspect

import numpy as np
from attention.peers import keys_taking_part
from harness import InARow
from libraries.peer import Peer

# As many attention layers as a model has: BERT-base 12, and 4 where a layer takes
# long. To call a traced function takes Python 0.1 to 0.7 ms (the more, the colder its
# caches), which a model pays once, and a short forward pass 1.5 ms.
LAYERS, FEW_LAYERS, LONG_FLOPS = 12, 4, 1e10


class _TensorFlow(Peer):
    """A function in a `tf.function`: a step, or a step with its gradient. Forward
    passes are timed as several of them, the output of one the query of the next."""

    packages = ("tensorflow", "keras")
    jit_compile = None

    def __init__(self, threads):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self.tf = tf

    def masks(self, case):
        keys = keys_taking_part(case)
        return {} if keys is None else {"mask": keys[:, None, None, :]}

    def prepare(self, case, inputs, way):
        tf = self.tf
        attention, masks = self.attention(), self.masks(case)

        def forward(query, key, value, *values):
            options = dict(zip(masks, values, strict=True))
            return attention(query, key, value, is_causal=case.is_causal, **options)

        def train(query, key, value, grad_output, *values):
            leaves = [query, key, value]
            with tf.GradientTape() as tape:
                tape.watch(leaves)
                output = forward(*leaves, *values)
            return output, *tape.gradient(output, leaves, output_gradients=grad_output)

        count = LAYERS if case.flops < LONG_FLOPS else FEW_LAYERS

        def layers(query, key, value, *values):
            for _ in range(count):
                query = forward(query, key, value, *values)
            return query

        tensors = [tf.constant(x) for x in (*inputs.values(), *masks.values())]

        def traced(function):
            # Calling what is traced spares Python half of its time.
            function = tf.function(
                function, autograph=False, jit_compile=self.jit_compile
            ).get_concrete_function(*tensors)
            return lambda: function(*tensors)

        if case.training:
            return traced(train)
        return InARow(traced(lambda *args: (forward(*args),)), traced(layers), count)

    def to_numpy(self, outputs):
        return [x.numpy() for x in outputs]


class Hw3tf(_TensorFlow):
    packages = ("hw3tf", "tensorflow", "keras")
    path = None

    def attention(self):
        import hw3tf

        def attention(*args, **kwargs):
            self.path = hw3tf.ops.attention_path(*args, **kwargs)
            return hw3tf.ops.dot_product_attention(*args, **kwargs)

        return attention

    def masks(self, case):
        import hw3tf

        if case.lengths is None:
            return {}
        names = inspect.signature(hw3tf.ops.dot_product_attention).parameters
        if "key_lengths" in names:
            lengths = case.lengths.astype(np.int32)
            return {"query_lengths": lengths, "key_lengths": lengths}
        mask = keys_taking_part(case)
        return {"query_mask": mask, "key_mask": mask}

    def note(self):
        return "" if self.path.path == "op" else str(self.path)


class Keras(_TensorFlow):
    def attention(self):
        import keras

        return keras.ops.dot_product_attention

    def refuses(self, case):
        few = case.sizes[4] == 1 and case.sizes[3] > 1
        return "Keras refuses one key head for several query heads" if few else ""


class KerasXla(Keras):
    jit_compile = True


class Hw3tfCore(Peer):
    """The kernel alone, on NumPy arrays: what the op above it costs."""

    packages = ("hw3tf",)

    def __init__(self, threads):
        from hw3tf import _core

        _core.set_num_threads(threads)
        self.core = _core

    def prepare(self, case, inputs, way):
        options = {"scale": case.sizes[5] ** -0.5, "is_causal": case.is_causal}
        options |= {"dropout_rate": case.dropout, "dropout_seed": 7}
        if case.as_mask:
            ones = np.ones((1, 1, *case.sizes[1:3]), bool)
            options |= {"is_causal": False, "mask": np.tril(ones)}
        if case.lengths is not None and "key_lengths" in (
            self.core.attention_forward.__doc__
        ):
            lengths = case.lengths.astype(np.int32)
            options |= {"query_lengths": lengths, "key_lengths": lengths}
        else:
            mask = keys_taking_part(case)
            options |= {"query_mask": mask, "key_mask": mask}
        qkv = {name: inputs[name] for name in ("query", "key", "value")}

        def call():
            output, statistics, *_ = self.core.attention_forward(**qkv, **options)
            if not case.training:
                return (output,)
            grad_query, grad_key, grad_value, *_ = self.core.attention_backward(
                **qkv,
                output=output,
                statistics=statistics,
                grad_output=inputs["grad_output"],
                **options,
            )
            return output, grad_query, grad_key, grad_value

        return call
