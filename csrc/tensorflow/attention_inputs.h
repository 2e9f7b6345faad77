// What the kernels of Hw3tfAttention and Hw3tfAttentionGrad share: attributes,
// and the inputs that both begin with.

#pragma once

#include "checks/attention_checks.h"
#include "kernels/attention.h"
#include "tensorflow/op_support.h"

namespace hw3tf {

// The attributes, read once, and what the first run caches.
struct AttentionKernel {
  TF_DataType type = TF_FLOAT;       // T
  TF_DataType real_type = TF_FLOAT;  // Real
  DType dtype = DType::kFloat32;
  bool is_causal = false;
  int64_t window_before = -1, window_after = -1;
  SessionThreads threads;
};

// The order of the inputs of Hw3tfAttention; those of the gradient go on. An
// optional one that is not given is empty, of rank 1.
enum AttentionInput {
  kQuery,
  kKey,
  kValue,
  kBias,
  kMask,
  kQueryMask,
  kKeyMask,
  kQueryLengths,
  kKeyLengths,
  kQuerySplits,
  kKeySplits,
  kDropoutSeed,
  kNumbers,
  kAttentionInputs,
};

struct AttentionInputs {
  Tensor tensors[kAttentionInputs];
  AttentionArguments arguments;
  AttentionShape shape;
  AttentionOptions options;

  // Reports to `call` what is wrong with them.
  AttentionInputs(Call* call, const AttentionKernel& kernel);
};

// The definition of an op with those attributes and inputs: RegisterOp, with
// the inputs that follow them.
bool RegisterAttentionOp(const char* name,
                         std::initializer_list<const char*> more_inputs,
                         std::initializer_list<const char*> outputs,
                         void (*shape_function)(TF_ShapeInferenceContext*,
                                                TF_Status*),
                         void (*compute)(void*, TF_OpKernelContext*));

}  // namespace hw3tf
