// Parts that the op files share: ownership of the C API's objects, conversion
// of TensorFlow's tensors and errors to ours.

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "operations/array.h"
#include "tensorflow/exceptions.h"
#include "tensorflow/tf_c_api.h"

namespace hw3tf {

struct Deleter {
  void operator()(TF_Status* status) const { TF_DeleteStatus(status); }
  void operator()(TF_Tensor* tensor) const { TF_DeleteTensor(tensor); }
  void operator()(TF_Buffer* buffer) const { TF_DeleteBuffer(buffer); }
  void operator()(TF_ShapeHandle* shape) const { TF_DeleteShapeHandle(shape); }
  void operator()(TF_DimensionHandle* size) const {
    TF_DeleteDimensionHandle(size);
  }
};
using Status = std::unique_ptr<TF_Status, Deleter>;
using Tensor = std::unique_ptr<TF_Tensor, Deleter>;
using Buffer = std::unique_ptr<TF_Buffer, Deleter>;
using ShapeHandle = std::unique_ptr<TF_ShapeHandle, Deleter>;
using DimensionHandle = std::unique_ptr<TF_DimensionHandle, Deleter>;

inline Status NewStatus() { return Status(TF_NewStatus()); }
inline bool Ok(const Status& status) {
  return TF_GetCode(status.get()) == TF_OK;
}

// The types of TensorFlow, and their names in the definition of an op.
TF_DataType DataTypeOf(Element element);
const char* DataTypeName(Element element);
Element ElementOf(TF_DataType type);

// One run of a kernel. The first failure is reported to TensorFlow; after it
// every further call does nothing, so a kernel may test Ok() once.
class OpRun {
 public:
  explicit OpRun(TF_OpKernelContext* context)
      : context_(context), status_(NewStatus()) {}

  bool Ok() const { return hw3tf::Ok(status_); }
  void Fail(TF_Code code, const std::string& message);
  // Fails unless `error` is empty.
  void Require(const std::string& error);

  Tensor Input(int index);
  Tensor Output(int index, Element element, const Dims& dims);
  // An output of the shape and type of an input, in the input's memory if
  // nobody else will read that.
  Tensor OutputInPlace(int index, int input_index, Tensor* input);

  // intra_op_parallelism_threads of the session; 0 if it is not set.
  int IntraOpThreads();

 private:
  void Report();

  TF_OpKernelContext* context_;
  Status status_;
};

// What OpRun::IntraOpThreads says, asked once per kernel: the sessions of a
// kernel are one.
class SessionThreads {
 public:
  int Get(OpRun* run);

 private:
  std::atomic<int> threads_{-1};  // -1: not asked yet
};

Dims DimsOf(const Tensor& tensor);

// What TensorFlow calls: functions of ours that may throw (exceptions.h). The
// message of a failure is copied.
void Fail(TF_OpKernelContext* context, TF_Code code, const char* message);
void Fail(TF_OpKernelConstruction* construction, TF_Code code,
          const char* message);

template <void (*kCompute)(void*, TF_OpKernelContext*)>
void Guarded(void* kernel, TF_OpKernelContext* context) {
  WithoutExceptions(
      [&] { kCompute(kernel, context); },
      [&](TF_Code code, const char* message) { Fail(context, code, message); });
}

template <void (*kShape)(TF_ShapeInferenceContext*, TF_Status*)>
void Guarded(TF_ShapeInferenceContext* context, TF_Status* status) {
  WithoutExceptions([&] { kShape(context, status); },
                    [&](TF_Code code, const char* message) {
                      TF_SetStatus(status, code, message);
                    });
}

template <void* (*kCreate)(TF_OpKernelConstruction*)>
void* Guarded(TF_OpKernelConstruction* construction) {
  void* kernel = nullptr;
  WithoutExceptions([&] { kernel = kCreate(construction); },
                    [&](TF_Code code, const char* message) {
                      Fail(construction, code, message);
                    });
  return kernel;
}

// Registers an op and its CPU kernels, one for each type of the attribute `T`.
// Failures go to standard error: there is nobody to return them to while the
// library loads.
struct OpRegistration {
  std::string name;
  std::vector<std::string> attrs, inputs, outputs;
  void (*shape_function)(TF_ShapeInferenceContext*, TF_Status*);
  std::vector<TF_DataType> types;
  void* (*create)(TF_OpKernelConstruction*);
  void (*compute)(void*, TF_OpKernelContext*);
  void (*destroy)(void*);
};
bool RegisterOp(const OpRegistration& op);

}  // namespace hw3tf
