"""Exact attention on the CPU by eight libraries: one small class each.

A class imports its library when it is made, so that every process holds one. Each
gets its inputs in the layout that it likes best, before the clock starts; where it
has several ways to compute a case, all are tried and the quickest is measured.
"""

import importlib.metadata
import inspect
import os

import ml_dtypes
import numpy as np


class Peer:
    """What the worker asks of a library.

    Args:
        threads: Threads to use, set through the library's own means.
    """

    packages = ()

    def versions(self):
        return {name: importlib.metadata.version(name) for name in self.packages}

    def refuses(self, case):
        """Why the library cannot compute the case; empty if it can."""
        return ""

    def ways(self, case):
        """Names of the ways to compute it."""
        return [""]

    def prepare(self, case, inputs, way):
        """A function of no arguments that computes the case and returns when it is
        done: the output, and the gradients of query, key and value if it trains."""
        raise NotImplementedError

    def to_numpy(self, outputs):
        """Its outputs in layout (B, T, N, H)."""
        return [np.asarray(x) for x in outputs]

    def note(self):
        """Something the table should say about how it was computed."""
        return ""


def heads_first(x):
    return np.ascontiguousarray(x.swapaxes(1, 2))


def keys_taking_part(case):
    """The padding mask in its smallest form, (B, S); None if nothing is padded."""
    if case.lengths is None:
        return None
    return np.arange(case.sizes[2]) < case.lengths[:, None]


class _TensorFlow(Peer):
    """What runs in a `tf.function`: a step, or a step with its gradient."""

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

        tensors = [tf.constant(x) for x in (*inputs.values(), *masks.values())]
        function = tf.function(
            train if case.training else lambda *args: (forward(*args),),
            autograph=False,
            jit_compile=self.jit_compile,
        )
        # Calling what is traced spares Python half of its 200 us: a model pays it
        # once for all its layers.
        traced = function.get_concrete_function(*tensors)
        return lambda: traced(*tensors)

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


class Torch(Peer):
    packages = ("torch",)

    def __init__(self, threads):
        import torch

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        self.torch = torch

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
        attention = torch.nn.functional.scaled_dot_product_attention

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
        return [x.detach().float().transpose(1, 2).numpy() for x in outputs]


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


class OnnxRuntime(Peer):
    """Graphs of one node, inputs and outputs bound to arrays."""

    packages = ("onnxruntime", "onnx")

    def __init__(self, threads):
        import onnx
        import onnxruntime

        self.onnx, self.runtime = onnx, onnxruntime
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.options.log_severity_level = 4

    def refuses(self, case):
        if case.training:
            return "onnxruntime has no backward pass"
        return "" if case.dtype == "float32" else f"no kernel for {case.dtype}"

    def ways(self, case):
        _, queries, keys, heads, kv_heads, _ = case.sizes
        ways = ["Attention"]
        if heads == kv_heads:
            ways.append("MultiHeadAttention")
        if case.is_causal and queries == keys:
            ways.append("GroupQueryAttention")
        return ways

    def prepare(self, case, inputs, way):
        batch, queries, keys, heads, kv_heads, size = case.sizes
        mask = keys_taking_part(case)
        flat = {k: x.reshape(*x.shape[:2], -1) for k, x in inputs.items()}
        first = {k: heads_first(x) for k, x in inputs.items()}
        attributes, domain = {"num_heads": heads}, "com.microsoft"
        shape, names = (batch, queries, heads * size), ["query", "key", "value"]
        outputs = {"output": shape}
        if way == "Attention":  # of ONNX itself, since opset 23
            feeds, domain = first, ""
            attributes = {"is_causal": int(case.is_causal)}
            outputs = {"output": (batch, heads, queries, size)}
            if mask is not None:
                whole = np.broadcast_to(
                    mask[:, None, None], (batch, 1, queries, keys)
                ).copy()
                feeds, names = {**feeds, "mask": whole}, [*names, "mask"]
        elif way == "MultiHeadAttention":
            # Keys and values with heads first spare it a transposition.
            feeds = {**first, "query": flat["query"]}
            attributes["unidirectional"] = int(case.is_causal)
            if mask is not None:
                feeds["lengths"] = case.lengths.astype(np.int32)
                names = [*names, "", "lengths"]
        else:
            attributes["kv_num_heads"] = kv_heads
            feeds = {
                **flat,
                "last": np.full(batch, keys - 1, np.int32),
                "total": np.asarray([keys], np.int32),
            }
            names = [*names, "", "", "last", "total"]
            present = (batch, kv_heads, keys, size)
            outputs |= {"present_key": present, "present_value": present}
        return self._bound(way, domain, names, attributes, feeds, outputs)

    def _bound(self, way, domain, names, attributes, feeds, outputs):
        helper = self.onnx.helper
        infos = [
            helper.make_tensor_value_info(
                k, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape
            )
            for k, x in feeds.items()
        ]
        results = [
            helper.make_tensor_value_info(k, self.onnx.TensorProto.FLOAT, shape)
            for k, shape in outputs.items()
        ]
        node = helper.make_node(way, names, list(outputs), domain=domain, **attributes)
        model = helper.make_model(
            helper.make_graph([node], way, infos, results),
            opset_imports=[
                helper.make_opsetid("", 23),
                helper.make_opsetid("com.microsoft", 1),
            ],
            ir_version=10,
        )
        session = self.runtime.InferenceSession(
            model.SerializeToString(),
            self.options,
            providers=["CPUExecutionProvider"],
        )
        binding = session.io_binding()
        values = self.runtime.OrtValue
        inputs = {name: values.ortvalue_from_numpy(x) for name, x in feeds.items()}
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        bound = {
            name: values.ortvalue_from_shape_and_type(shape, np.float32, "cpu")
            for name, shape in outputs.items()
        }
        for name, value in bound.items():
            binding.bind_ortvalue_output(name, value)
        heads = attributes.get("num_heads")

        def call():
            assert inputs  # kept alive, as the binding may only point at them
            session.run_with_iobinding(binding)
            return bound["output"], heads

        return call

    def to_numpy(self, outputs):
        output, heads = outputs[0].numpy(), outputs[1]
        if heads is None:  # of the way "Attention"
            return [output.swapaxes(1, 2)]
        return [output.reshape(*output.shape[:2], heads, -1)]


class OpenVino(Peer):
    packages = ("openvino",)

    def __init__(self, threads):
        import openvino

        self.openvino = openvino
        self.core = openvino.Core()
        self.options = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,
        }

    def refuses(self, case):
        return "OpenVINO has no backward pass" if case.training else ""

    def prepare(self, case, inputs, way):
        ops, types = self.openvino.opset13, self.openvino.Type
        dtype = types.bf16 if case.dtype == "bfloat16" else types.f32
        heads, kv_heads = case.sizes[3:5]
        arrays = [heads_first(x) for x in inputs.values()]
        parameters = [ops.parameter(x.shape, dtype) for x in arrays]
        query, key, value = parameters
        if heads != kv_heads:  # the operator only broadcasts heads
            key, value = (self._repeated(x, heads // kv_heads) for x in (key, value))
        more = {}
        mask = keys_taking_part(case)
        if mask is not None:
            arrays.append(mask[:, None, None, :])
            parameters.append(ops.parameter(arrays[-1].shape, types.boolean))
            more["attention_mask"] = parameters[-1]
        node = ops.scaled_dot_product_attention(
            query, key, value, causal=case.is_causal, **more
        )
        # Without the hint OpenVINO computes float32 models in bfloat16 where the
        # processor has it.
        hints = {
            "INFERENCE_PRECISION_HINT": dtype.get_type_name(),
            "EXECUTION_MODE_HINT": "ACCURACY" if dtype == types.f32 else "PERFORMANCE",
        }
        model = self.openvino.Model([ops.result(node)], parameters)
        compiled = self.core.compile_model(model, "CPU", {**self.options, **hints})
        request = compiled.create_infer_request()
        for i, x in enumerate(arrays):
            request.set_input_tensor(i, self._tensor(x))

        def call():
            assert arrays  # OpenVINO reads them without keeping them alive
            request.infer()
            return (request.get_output_tensor(0),)

        return call

    def _repeated(self, x, times):
        ops = self.openvino.opset13
        batch, kv_heads, keys, size = (n.get_length() for n in x.partial_shape)
        shape = [batch, kv_heads, times, keys, size]
        x = ops.broadcast(ops.unsqueeze(x, ops.constant(2)), ops.constant(shape))
        shape = [batch, kv_heads * times, keys, size]
        return ops.reshape(x, ops.constant(shape), False)

    def _tensor(self, x):
        tensor, bf16 = self.openvino.Tensor, self.openvino.Type.bf16
        if x.dtype == ml_dtypes.bfloat16:  # NumPy's float16 stands for the two bytes
            return tensor(x.view(np.float16), list(x.shape), bf16)
        return tensor(x, shared_memory=True)

    def to_numpy(self, outputs):
        output = outputs[0].data
        if outputs[0].element_type == self.openvino.Type.bf16:
            output = np.array(output).view(ml_dtypes.bfloat16)
        return [output.swapaxes(1, 2)]


PEERS = {
    "hw3tf": Hw3tf,
    "hw3tf-core": Hw3tfCore,
    "torch": Torch,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "jax": Jax,
    "keras": Keras,
    "keras-xla": KerasXla,
}
