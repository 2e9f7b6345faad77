// What the op files share: ownership of the C API's objects, and the way from
// TensorFlow's tensors and errors to ours.

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "checks/attention_checks.h"
#include "tensorflow/tf_c_api.h"

namespace hw3tf {

struct Deleter {
  void operator()(TF_Status* status) const { TF_DeleteStatus(status); }
  void operator()(TF_Tensor* tensor) const { TF_DeleteTensor(tensor); }
  void operator()(TF_Buffer* buffer) const { TF_DeleteBuffer(buffer); }
  void operator()(TF_ShapeHandle* shape) const { TF_DeleteShapeHandle(shape); }
};
using Status = std::unique_ptr<TF_Status, Deleter>;
using Tensor = std::unique_ptr<TF_Tensor, Deleter>;
using Buffer = std::unique_ptr<TF_Buffer, Deleter>;
using ShapeHandle = std::unique_ptr<TF_ShapeHandle, Deleter>;

inline Status NewStatus() { return Status(TF_NewStatus()); }
inline bool Ok(const Status& status) {
  return TF_GetCode(status.get()) == TF_OK;
}

// One run of a kernel. The first failure is reported to TensorFlow; after it
// every further call does nothing, so a kernel may test Ok() once.
class Call {
 public:
  explicit Call(TF_OpKernelContext* context)
      : context_(context), status_(NewStatus()) {}

  bool Ok() const { return hw3tf::Ok(status_); }
  void Fail(TF_Code code, const std::string& message);

  Tensor Input(int index);
  Tensor Output(int index, const Dims& dims);  // float32
  // A mask input, or an empty one of rank 1, which stands for "no mask".
  const uint8_t* Mask(const Tensor& tensor) const;

  // intra_op_parallelism_threads of the session; 0 if it is not set.
  int IntraOpThreads();

 private:
  void Report();

  TF_OpKernelContext* context_;
  Status status_;
};

Dims DimsOf(const Tensor& tensor);
const float* Floats(const Tensor& tensor);
ConstArray View(const Tensor& tensor);
MutableArray MutableView(const Tensor& tensor);

// The attributes that both attention ops have, and what the first run caches.
struct AttentionKernelState {
  float scale = 1.0f;
  bool is_causal = false;
  std::atomic<int> intra_op_threads{-1};  // -1: not read yet

  int Threads(Call* call);
};
void* CreateAttentionKernel(TF_OpKernelConstruction* construction);
void DeleteAttentionKernel(void* kernel);

// The inputs query, key, value, query_mask, key_mask of both attention ops.
struct AttentionInputs {
  Tensor query, key, value, query_mask, key_mask;
  AttentionShape shape;
  AttentionOptions options;

  // Reports to `call` what is wrong with them.
  AttentionInputs(Call* call, const AttentionKernelState& state);
};

// Registers an op and its CPU kernel. Failures go to standard error: there is
// nobody to return them to while the library loads.
struct OpRegistration {
  const char* name;
  std::initializer_list<const char*> attrs, inputs, outputs;
  void (*shape_function)(TF_ShapeInferenceContext*, TF_Status*);
  void (*compute)(void*, TF_OpKernelContext*);
};
bool RegisterOp(const OpRegistration& op);

}  // namespace hw3tf
