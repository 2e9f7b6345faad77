// The TensorFlow op Hw3tfAttentionGrad.

#include "kernels/attention/attention.h"
#include "tensorflow/attention_inputs.h"

namespace hw3tf {
namespace {

enum AttentionGradInput {
  kOutput = kAttentionInputs,
  kStatistics,
  kGradOutput,
  kGradLogsumexp,
};

// Every gradient has the shape of what it is the gradient of.
constexpr int kGradientOf[] = {kQuery, kKey, kValue, kBias};

void BackwardShape(TF_ShapeInferenceContext* context, TF_Status* status) {
  const ShapeHandle shape(TF_NewShapeHandle());
  for (int i = 0; i < 4; ++i) {
    TF_ShapeInferenceContextGetInput(context, kGradientOf[i], shape.get(),
                                     status);
    if (TF_GetCode(status) != TF_OK) return;
    TF_ShapeInferenceContextSetOutput(context, i, shape.get(), status);
    if (TF_GetCode(status) != TF_OK) return;
  }
}

void BackwardCompute(void* state, TF_OpKernelContext* context) {
  auto* kernel = static_cast<AttentionKernel*>(state);
  Call call(context);
  const AttentionInputs in(&call, *kernel);
  const Tensor output = call.Input(kOutput);
  const Tensor statistics = call.Input(kStatistics);
  const Tensor grad_output = call.Input(kGradOutput);
  const Tensor grad_logsumexp = call.Input(kGradLogsumexp);
  if (!call.Ok()) return;
  const std::optional<Dims> grad_logsumexp_dims = Given(grad_logsumexp);
  call.Require(
      CheckResults(in.arguments, {DimsOf(output), DimsOf(statistics),
                                  DimsOf(grad_output), grad_logsumexp_dims}));
  Tensor grads[4];
  for (int i = 0; i < 4 && call.Ok(); ++i)
    grads[i] = call.Output(i, i < 3 ? kernel->type : kernel->real_type,
                           DimsOf(in.tensors[kGradientOf[i]]));
  if (!call.Ok()) return;
  const AttentionBackwardArgs args{
      kernel->dtype,
      in.shape,
      in.options,
      View(in.tensors[kQuery]),
      View(in.tensors[kKey]),
      View(in.tensors[kValue]),
      View(output),
      TF_TensorData(statistics.get()),
      View(grad_output),
      grad_logsumexp_dims ? TF_TensorData(grad_logsumexp.get()) : nullptr,
      MutableView(grads[0]),
      MutableView(grads[1]),
      MutableView(grads[2]),
      HasGradBias(in.arguments) ? TF_TensorData(grads[3].get()) : nullptr};
  if (!AttentionBackward(args, kernel->threads.Get(&call)))
    call.Fail(TF_RESOURCE_EXHAUSTED,
              "out of memory for the scratch arrays of the gradient of "
              "attention");
}

[[maybe_unused]] const bool registered = RegisterAttentionOp(
    "Hw3tfAttentionGrad",
    {"output: T", "statistics: Real", "grad_output: T", "grad_logsumexp: Real"},
    {"grad_query: T", "grad_key: T", "grad_value: T", "grad_bias: Real"},
    Guarded<BackwardShape>, Guarded<BackwardCompute>);

}  // namespace
}  // namespace hw3tf
