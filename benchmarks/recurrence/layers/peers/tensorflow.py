"""hw3tf, its kernel alone, and stock Keras without and with XLA, and in float64."""

import functools
import logging

import numpy as np
from harness import InARow
from libraries.peer import Peer
from recurrence.layers.cases import make_inputs

# To call a traced function takes Python 0.1 to 0.7 ms (the more, the colder its
# caches), which a model pays once for all its layers. Below so much work it would be
# most of the time, and so many layers are timed as one call.
LAYERS, SHORT_FLOPS = 4, 1e9


class _TensorFlow(Peer):
    """Layers in a `tf.function`: a forward pass, or one with its gradients.

    Short ones are timed as several, each of which has its own inputs and weights, and
    begins with the last states of the one before, so that none can be left out or run
    beside another.
    """

    packages = ("tensorflow", "keras")
    jit_compile = None
    dtype = "float32"

    def __init__(self, threads):
        import keras
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self.keras, self.tf = keras, tf

    @property
    def kinds(self):
        """Where the layers are."""
        return self.keras.layers

    def model(self, case, weights, return_state=False):
        """Layers with these weights: a function, and its variables."""
        names = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "SimpleRNN"}
        kind, keras = getattr(self.kinds, names[case.cell]), self.keras
        layers = []
        for _ in range(case.layers):
            layer = kind(
                case.sizes[-1],
                return_sequences=True,
                return_state=return_state,
                dtype=self.dtype,
            )
            if case.bidirectional:
                layer = keras.layers.Bidirectional(layer, dtype=self.dtype)
            layers.append(layer)
        shape = case.sizes[:3]
        for layer in layers:
            layer.build(shape)
            shape = (*shape[:2], case.result_shapes["outputs"][-1])
        variables = [x for layer in layers for x in layer.trainable_variables]
        for variable, x in zip(variables, sum(weights, ()), strict=True):
            variable.assign(x)

        def run(inputs, **options):
            for layer in layers:
                inputs = layer(inputs, training=case.training, **options)
            return inputs

        return run, [variable.value for variable in variables]

    def prepare(self, case, inputs, way):
        run, leaves = self.model(case, inputs.weights)
        mask = case.taking_part
        options = {} if mask is None else {"mask": self.tf.constant(mask)}

        def forward(x):
            return (run(x, **options),)

        def train(x, grad_outputs):
            with self.tf.GradientTape() as tape:
                tape.watch(x)
                y = run(x, **options)
            grads = tape.gradient(y, [x, *leaves], output_gradients=grad_outputs)
            return y, *grads

        once = self._traced(train if case.training else forward, self._tensors(inputs))
        if case.flops > SHORT_FLOPS or len(inputs.weights) > 1:
            return once

        @functools.cache
        def row():
            return self._row(case)

        return InARow(once, lambda: row()(), LAYERS)

    def _row(self, case):
        """The call of `LAYERS` layers."""
        tf = self.tf
        inputs = [make_inputs(case, seed) for seed in range(LAYERS)]
        models = [self.model(case, x.weights, return_state=True) for x in inputs]
        leaves = [leaf for _, own in models for leaf in own]

        def forward(xs):
            outputs, states = [], None
            for (run, _), x in zip(models, xs, strict=True):
                y, *states = run(x, initial_state=states)
                outputs.append(y)
            return outputs

        def train(xs, grads_of_outputs):
            with tf.GradientTape() as tape:
                tape.watch(xs)
                outputs = forward(xs)
            grads = tape.gradient(
                outputs, [*xs, *leaves], output_gradients=grads_of_outputs
            )
            return outputs, grads

        tensors = list(map(list, zip(*map(self._tensors, inputs), strict=True)))
        return self._traced(train if case.training else forward, tensors)

    def _tensors(self, inputs):
        arrays = [inputs.inputs, inputs.grad_outputs]
        return [self.tf.constant(x, self.dtype) for x in arrays if x is not None]

    def _traced(self, function, tensors):
        # Calling what is traced spares Python half of its time.
        function = self.tf.function(
            function, autograph=False, jit_compile=self.jit_compile
        ).get_concrete_function(*tensors)
        return lambda: function(*tensors)

    def to_numpy(self, outputs):
        return [x.numpy() for x in outputs]


class Hw3tf(_TensorFlow):
    packages = ("hw3tf", "tensorflow", "keras")

    def __init__(self, threads):
        super().__init__(threads)
        self.said = set()
        logger, handler = logging.getLogger("hw3tf"), logging.Handler()
        handler.emit = lambda record: self.said.add(record.getMessage())
        logger.setLevel(logging.DEBUG)
        logger.addHandler(handler)

    @property
    def kinds(self):
        import hw3tf

        return hw3tf.layers

    def prepare(self, case, inputs, way):
        self.said.clear()
        return super().prepare(case, inputs, way)

    def note(self):
        """What the layers did not leave to the op."""
        return "; ".join(x for x in sorted(self.said) if "takes the path op" not in x)


class Keras(_TensorFlow):
    pass


class KerasXla(_TensorFlow):
    jit_compile = True


class Hw3tfCore(Peer):
    """The kernel alone, on NumPy arrays: what layer and op above it cost."""

    packages = ("hw3tf",)

    def __init__(self, threads):
        from hw3tf import _core

        _core.set_num_threads(threads)
        self.core = _core

    def refuses(self, case):
        more = case.layers > 1 or case.bidirectional
        return "the kernel computes one layer in one direction" if more else ""

    def prepare(self, case, inputs, way):
        kernel, recurrent_kernel, bias = inputs.weights[0]
        operands = {
            "inputs": inputs.inputs,
            "kernel": kernel,
            "recurrent_kernel": recurrent_kernel,
        }
        biases = {"bias": bias}
        if case.cell == "gru":
            biases = {"bias": bias[0], "recurrent_bias": bias[1]}
        options = {**biases, "return_sequences": True}
        if case.lengths is not None:
            options["lengths"] = case.lengths.astype(np.int32)
        forward = getattr(self.core, f"{case.cell}_forward")
        backward = getattr(self.core, f"{case.cell}_backward")

        def call():
            outputs, *_, kept = forward(**operands, **options, keep=case.training)
            if not case.training:
                return (outputs,)
            grads = backward(
                **operands,
                outputs=outputs,
                kept=kept,
                grad_outputs=inputs.grad_outputs,
                **options,
            )
            return outputs, *grads[: len(operands) + len(biases)]

        return call

    def to_numpy(self, outputs):
        *rest, bias = outputs
        if len(outputs) == 6:  # the two biases of a GRU
            *rest, bias = outputs[:4] + (np.stack(outputs[4:]),)
        return [*rest, bias]


class Judge(_TensorFlow):
    """Keras in float64: what all must compute."""

    dtype = "float64"
