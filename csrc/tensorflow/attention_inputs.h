// What the kernels of Hw3tfAttention and Hw3tfAttentionGrad share: attributes,
// and the inputs that both begin with.

#pragma once

#include "tensorflow/attention_operands.h"
#include "tensorflow/op_support.h"

namespace hw3tf {

// The attributes, read once, and what the first run caches.
struct AttentionKernel {
  TF_DataType type = TF_FLOAT;       // T
  TF_DataType real_type = TF_FLOAT;  // Real
  DType dtype = DType::kFloat32;
  bool is_causal = false, finite_logsumexp = false;
  int64_t window_before = -1, window_after = -1;
  SessionThreads threads;
};

// The inputs of Hw3tfAttention are the operands, in their order, and these;
// those of the gradient go on. An optional one that is not given is empty, of
// rank 1.
enum AttentionInput {
  kDropoutSeed = kAttentionOperands,
  kNumbers,
  kAttentionInputs,
};

struct AttentionInputs : AttentionOperands {
  Tensor tensors[kAttentionInputs];

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
