#include "tensorflow/attention_inputs.h"

#include <utility>
#include <vector>

namespace hw3tf {
namespace {

DType DTypeOf(TF_DataType type) {
  switch (type) {
    case TF_DOUBLE:
      return DType::kFloat64;
    case TF_BFLOAT16:
      return DType::kBfloat16;
    case TF_HALF:
      return DType::kFloat16;
    default:
      return DType::kFloat32;
  }
}

void* Create(TF_OpKernelConstruction* construction) {
  const Status status = NewStatus();
  auto kernel = std::make_unique<AttentionKernel>();
  TF_Bool is_causal = 0, finite_logsumexp = 0;
  TF_OpKernelConstruction_GetAttrType(construction, "T", &kernel->type,
                                      status.get());
  if (Ok(status))
    TF_OpKernelConstruction_GetAttrType(construction, "Real",
                                        &kernel->real_type, status.get());
  if (Ok(status))
    TF_OpKernelConstruction_GetAttrBool(construction, "is_causal", &is_causal,
                                        status.get());
  if (Ok(status))
    TF_OpKernelConstruction_GetAttrBool(construction, "finite_logsumexp",
                                        &finite_logsumexp, status.get());
  if (Ok(status))
    TF_OpKernelConstruction_GetAttrInt64(construction, "window_before",
                                         &kernel->window_before, status.get());
  if (Ok(status))
    TF_OpKernelConstruction_GetAttrInt64(construction, "window_after",
                                         &kernel->window_after, status.get());
  kernel->dtype = DTypeOf(kernel->type);
  kernel->is_causal = is_causal != 0;
  kernel->finite_logsumexp = finite_logsumexp != 0;
  if (Ok(status)) {
    const std::string error =
        CheckReal("bias", kernel->dtype,
                  kernel->real_type == TF_DOUBLE ? "float64" : "float32");
    if (!error.empty())
      TF_SetStatus(status.get(), TF_INVALID_ARGUMENT, error.c_str());
  }
  if (!Ok(status)) TF_OpKernelConstruction_Failure(construction, status.get());
  return kernel.release();
}

void Destroy(void* kernel) { delete static_cast<AttentionKernel*>(kernel); }

}  // namespace

AttentionInputs::AttentionInputs(Call* call, const AttentionKernel& kernel) {
  for (int i = 0; i < kAttentionInputs; ++i) tensors[i] = call->Input(i);
  if (!call->Ok()) return;
  call->Require(CheckDims("dropout_seed", DimsOf(tensors[kDropoutSeed]), {}));
  call->Require(CheckDims("numbers", DimsOf(tensors[kNumbers]), {3}));
  if (!call->Ok()) return;

  Operand operands[kAttentionOperands];
  for (int i = 0; i < kAttentionOperands; ++i)
    operands[i] = {i <= kValue ? DimsOf(tensors[i]) : Given(tensors[i]),
                   TF_TensorData(tensors[i].get())};
  const auto* values =
      static_cast<const double*>(TF_TensorData(tensors[kNumbers].get()));
  AttentionOptions numbers;
  numbers.scale = values[0];
  numbers.soft_cap = values[1];
  numbers.dropout_rate = values[2];
  numbers.dropout_seed =
      *static_cast<const uint64_t*>(TF_TensorData(tensors[kDropoutSeed].get()));
  numbers.is_causal = kernel.is_causal;
  numbers.window_before = kernel.window_before;
  numbers.window_after = kernel.window_after;
  call->Require(Set(kernel.dtype, numbers, operands));
}

bool RegisterAttentionOp(const char* name,
                         std::initializer_list<const char*> more_inputs,
                         std::initializer_list<const char*> outputs,
                         void (*shape_function)(TF_ShapeInferenceContext*,
                                                TF_Status*),
                         void (*compute)(void*, TF_OpKernelContext*)) {
  std::vector<const char*> inputs{
      "query: T",           "key: T",
      "value: T",           "bias: Real",
      "mask: bool",         "query_mask: bool",
      "key_mask: bool",     "query_lengths: int32",
      "key_lengths: int32", "query_splits: int64",
      "key_splits: int64",  "dropout_seed: int64",
      "numbers: double",  // scale, soft_cap, dropout_rate
  };
  inputs.insert(inputs.end(), more_inputs);
  return RegisterOp({
      name,
      {"T: {float, bfloat16, half, double}", "Real: {float, double}",
       "is_causal: bool = false", "window_before: int = -1",
       "window_after: int = -1",
       // Models saved by 0.1 have no such attribute, and want -infinity.
       "finite_logsumexp: bool = false",
       // The bits of `numbers`, for gradients of the gradient, which must know
       // them when a graph is made (hw3tf/ops/fronts/tensorflow_op.py).
       "number_bits: list(int) = []"},
      inputs,
      outputs,
      shape_function,
      {TF_FLOAT, TF_BFLOAT16, TF_HALF, TF_DOUBLE},
      Guarded<Create>,
      compute,
      Destroy,
  });
}

}  // namespace hw3tf
