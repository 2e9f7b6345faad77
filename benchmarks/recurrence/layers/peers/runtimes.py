"""Runtimes for graphs made elsewhere: onnxruntime and OpenVINO. Forward only."""

import numpy as np
from libraries.peer import Peer
from recurrence.layers.peers import in_order, time_first

KINDS = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "RNN"}
# The gates of ONNX in places of Keras's: i, o, f, c for i, f, c, o.
ORDER = {"lstm": (0, 3, 1, 2), "gru": (0, 1, 2), "simple_rnn": (0,)}


class _Runtime(Peer):
    def refuses(self, case):
        if case.training:
            return f"{self.packages[0]} has no backward pass"
        several = case.layers > 1 or case.bidirectional
        return "written for one layer in one direction" if several else ""

    def to_numpy(self, outputs):  # (T, directions, B, U)
        return [time_first(np.asarray(outputs[0])[:, 0])]


def graph(onnx, case, inputs):
    """A model of one node, the weights in it, and what it is given: name -> array."""
    kernel, recurrent_kernel, bias = (
        in_order(x, ORDER[case.cell]) for x in inputs.weights[0]
    )
    bias = bias if case.cell == "gru" else np.stack([bias, np.zeros_like(bias)])
    weights = {"W": kernel.T, "R": recurrent_kernel.T, "B": bias.ravel()}
    feeds = {"X": time_first(inputs.inputs)}
    if case.lengths is not None:
        feeds["sequence_lens"] = case.lengths.astype(np.int32)
    batch, timesteps, _, units = case.sizes
    attributes = {"hidden_size": units}
    if case.cell == "gru":
        attributes["linear_before_reset"] = 1
    helper = onnx.helper
    names = ["X", "W", "R", "B", *(name for name in feeds if name != "X")]
    node = helper.make_node(KINDS[case.cell], names, ["Y"], **attributes)
    infos = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape
        )
        for name, x in feeds.items()
    ]
    shape = (timesteps, 1, batch, units)
    results = [helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, shape)]
    constants = [
        onnx.numpy_helper.from_array(np.ascontiguousarray(x[None]), name)
        for name, x in weights.items()
    ]
    model = helper.make_model(
        helper.make_graph([node], "layer", infos, results, constants),
        opset_imports=[helper.make_opsetid("", 22)],
        ir_version=10,
    )
    return model.SerializeToString(), feeds


class OnnxRuntime(_Runtime):
    """Inputs and outputs bound to arrays."""

    packages = ("onnxruntime", "onnx")

    def __init__(self, threads):
        import onnx
        import onnxruntime

        self.onnx, self.runtime = onnx, onnxruntime
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.options.log_severity_level = 4

    def prepare(self, case, inputs, way):
        model, feeds = graph(self.onnx, case, inputs)
        session = self.runtime.InferenceSession(
            model, self.options, providers=["CPUExecutionProvider"]
        )
        binding, values = session.io_binding(), self.runtime.OrtValue
        bound = {name: values.ortvalue_from_numpy(x) for name, x in feeds.items()}
        for name, value in bound.items():
            binding.bind_ortvalue_input(name, value)
        batch, timesteps, _, units = case.sizes
        shape = (timesteps, 1, batch, units)
        output = values.ortvalue_from_shape_and_type(shape, np.float32, "cpu")
        binding.bind_ortvalue_output("Y", output)

        def call():
            assert feeds, bound  # kept alive, as the binding may only point at them
            session.run_with_iobinding(binding)
            return (output,)

        return call

    def to_numpy(self, outputs):
        return super().to_numpy([outputs[0].numpy()])


class OpenVino(_Runtime):
    """The same models."""

    packages = ("openvino", "onnx")

    def __init__(self, threads):
        import onnx
        import openvino

        self.onnx, self.openvino = onnx, openvino
        self.core = openvino.Core()
        self.options = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,
            # Without it float32 is computed in bfloat16 where the processor has it.
            "INFERENCE_PRECISION_HINT": "f32",
            "EXECUTION_MODE_HINT": "ACCURACY",
        }

    def prepare(self, case, inputs, way):
        model, feeds = graph(self.onnx, case, inputs)
        model = self.core.read_model(model)
        compiled = self.core.compile_model(model, "CPU", self.options)
        request = compiled.create_infer_request()
        for name, x in feeds.items():
            tensor = self.openvino.Tensor(x, shared_memory=True)
            request.set_tensor(name, tensor)

        def call():
            assert feeds  # OpenVINO reads them without keeping them alive
            request.infer()
            return (request.get_output_tensor(0).data,)

        return call
