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
  TF_Bool is_causal = 0;
  TF_OpKernelConstruction_GetAttrType(construction, "T", &kernel->type,
                                      status.get());
  if (Ok(status))
    TF_OpKernelConstruction_GetAttrType(construction, "Real",
                                        &kernel->real_type, status.get());
  if (Ok(status))
    TF_OpKernelConstruction_GetAttrBool(construction, "is_causal", &is_causal,
                                        status.get());
  if (Ok(status))
    TF_OpKernelConstruction_GetAttrInt64(construction, "window_before",
                                         &kernel->window_before, status.get());
  if (Ok(status))
    TF_OpKernelConstruction_GetAttrInt64(construction, "window_after",
                                         &kernel->window_after, status.get());
  kernel->dtype = DTypeOf(kernel->type);
  kernel->is_causal = is_causal != 0;
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

// nullptr if it is not given.
template <typename T>
const T* Data(const Tensor& tensor) {
  return Given(tensor) ? static_cast<const T*>(TF_TensorData(tensor.get()))
                       : nullptr;
}

ScoreStrides StridesOf(const std::optional<Dims>& dims) {
  if (!dims) return {0, 0, 0, 0};
  return BroadcastStrides(*dims, ContiguousStrides(*dims));
}

}  // namespace

AttentionInputs::AttentionInputs(Call* call, const AttentionKernel& kernel) {
  for (int i = 0; i < kAttentionInputs; ++i) tensors[i] = call->Input(i);
  if (!call->Ok()) return;
  call->Require(CheckDims("dropout_seed", DimsOf(tensors[kDropoutSeed]), {}));
  call->Require(CheckDims("numbers", DimsOf(tensors[kNumbers]), {3}));
  if (!call->Ok()) return;

  arguments = {DimsOf(tensors[kQuery]),     DimsOf(tensors[kKey]),
               DimsOf(tensors[kValue]),     Given(tensors[kBias]),
               Given(tensors[kMask]),       Given(tensors[kQueryMask]),
               Given(tensors[kKeyMask]),    Given(tensors[kQueryLengths]),
               Given(tensors[kKeyLengths]), Given(tensors[kQuerySplits]),
               Given(tensors[kKeySplits])};
  const auto* numbers =
      static_cast<const double*>(TF_TensorData(tensors[kNumbers].get()));
  options.scale = numbers[0];
  options.soft_cap = numbers[1];
  options.dropout_rate = numbers[2];
  options.dropout_seed =
      *static_cast<const uint64_t*>(TF_TensorData(tensors[kDropoutSeed].get()));
  options.is_causal = kernel.is_causal;
  options.window_before = kernel.window_before;
  options.window_after = kernel.window_after;
  options.query_mask = Data<uint8_t>(tensors[kQueryMask]);
  options.key_mask = Data<uint8_t>(tensors[kKeyMask]);
  options.query_lengths = Data<int32_t>(tensors[kQueryLengths]);
  options.key_lengths = Data<int32_t>(tensors[kKeyLengths]);
  options.query_splits = Data<int64_t>(tensors[kQuerySplits]);
  options.key_splits = Data<int64_t>(tensors[kKeySplits]);
  call->Require(CheckAttention(kernel.dtype, arguments, &options, &shape));
  if (!call->Ok()) return;
  options.bias = Data<void>(tensors[kBias]);
  options.bias_strides = StridesOf(arguments.bias);
  options.mask = Data<uint8_t>(tensors[kMask]);
  options.mask_strides = StridesOf(arguments.mask);
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
       "window_after: int = -1"},
      inputs,
      outputs,
      shape_function,
      {TF_FLOAT, TF_BFLOAT16, TF_HALF, TF_DOUBLE},
      Create,
      compute,
      Destroy,
  });
}

}  // namespace hw3tf
