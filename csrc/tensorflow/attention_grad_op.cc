// The TensorFlow op Hw3tfAttentionGrad.

#include "kernels/attention.h"
#include "tensorflow/op_support.h"

namespace hw3tf {
namespace {

// Every gradient has the shape of what it is the gradient of.
void BackwardShape(TF_ShapeInferenceContext* context, TF_Status* status) {
  const ShapeHandle shape(TF_NewShapeHandle());
  for (int i = 0; i < 3; ++i) {
    TF_ShapeInferenceContextGetInput(context, i, shape.get(), status);
    if (TF_GetCode(status) != TF_OK) return;
    TF_ShapeInferenceContextSetOutput(context, i, shape.get(), status);
    if (TF_GetCode(status) != TF_OK) return;
  }
}

void BackwardCompute(void* kernel, TF_OpKernelContext* context) {
  auto* state = static_cast<AttentionKernelState*>(kernel);
  Call call(context);
  const AttentionInputs in(&call, *state);
  const Tensor output = call.Input(5);
  const Tensor statistics = call.Input(6);
  const Tensor grad_output = call.Input(7);
  if (!call.Ok()) return;
  for (const std::string& error :
       {CheckDims("output", DimsOf(output), OutputDims(in.shape)),
        CheckDims("statistics", DimsOf(statistics), StatisticsDims(in.shape)),
        CheckDims("grad_output", DimsOf(grad_output), OutputDims(in.shape))})
    if (!error.empty()) return call.Fail(TF_INVALID_ARGUMENT, error);
  const Tensor grad_query = call.Output(0, DimsOf(in.query));
  const Tensor grad_key = call.Output(1, DimsOf(in.key));
  const Tensor grad_value = call.Output(2, DimsOf(in.value));
  if (!call.Ok()) return;
  const AttentionBackwardArgs args{in.shape,
                                   in.options,
                                   View(in.query),
                                   View(in.key),
                                   View(in.value),
                                   View(output),
                                   Floats(statistics),
                                   View(grad_output),
                                   MutableView(grad_query),
                                   MutableView(grad_key),
                                   MutableView(grad_value)};
  if (!AttentionBackward(args, state->Threads(&call)))
    call.Fail(TF_RESOURCE_EXHAUSTED,
              "out of memory for the scratch arrays of "
              "the gradient of attention");
}

[[maybe_unused]] const bool registered = RegisterOp({
    "Hw3tfAttentionGrad",
    {"scale: float", "is_causal: bool"},
    {"query: float", "key: float", "value: float", "query_mask: bool",
     "key_mask: bool", "output: float", "statistics: float",
     "grad_output: float"},
    {"grad_query: float", "grad_key: float", "grad_value: float"},
    BackwardShape,
    BackwardCompute,
});

}  // namespace
}  // namespace hw3tf
