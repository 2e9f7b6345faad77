"""Runtimes for graphs made elsewhere: onnxruntime and OpenVINO. Forward only."""

import ml_dtypes
import numpy as np
from attention.peers import heads_first, keys_taking_part
from libraries.peer import Peer


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
        # Its causal mask is aligned at the bottom right.
        if heads == kv_heads and not (case.is_causal and queries < keys):
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
