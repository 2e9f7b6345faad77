#include "tensorflow/op_support.h"

#include <cstdio>

#include "tensorflow/config_proto.h"
#include "tensorflow/loading.h"

namespace hw3tf {
namespace {

size_t SizeOf(TF_DataType type) {
  switch (type) {
    case TF_DOUBLE:
    case TF_INT64:
      return 8;
    case TF_BFLOAT16:
    case TF_HALF:
      return 2;
    default:
      return 4;
  }
}

}  // namespace

void Call::Report() { TF_OpKernelContext_Failure(context_, status_.get()); }

void Call::Fail(TF_Code code, const std::string& message) {
  if (!Ok()) return;
  TF_SetStatus(status_.get(), code, message.c_str());
  Report();
}

void Call::Require(const std::string& error) {
  if (!error.empty()) Fail(TF_INVALID_ARGUMENT, error);
}

Tensor Call::Input(int index) {
  TF_Tensor* tensor = nullptr;
  if (Ok()) {
    TF_GetInput(context_, index, &tensor, status_.get());
    if (!Ok()) Report();
  }
  return Tensor(tensor);
}

Tensor Call::Output(int index, TF_DataType type, const Dims& dims) {
  if (!Ok()) return nullptr;
  size_t bytes = SizeOf(type);
  for (int64_t size : dims) bytes *= static_cast<size_t>(size);
  Tensor tensor(TF_AllocateOutput(context_, index, type, dims.data(),
                                  static_cast<int>(dims.size()), bytes,
                                  status_.get()));
  if (!Ok()) Report();
  return tensor;
}

Tensor Call::OutputInPlace(int index, int input_index, Tensor* input) {
  if (!Ok()) return nullptr;
  const Dims dims = DimsOf(*input);
  input->reset();  // TensorFlow counts it as one who will read
  int forwarded = -1;
  Tensor output(TF_ForwardInputOrAllocateOutput(
      context_, &input_index, 1, index, dims.data(),
      static_cast<int>(dims.size()), &forwarded, status_.get()));
  if (!Ok()) Report();
  *input = Input(input_index);
  return output;
}

int Call::IntraOpThreads() {
  if (!Ok()) return 0;
  const Buffer buffer(TF_NewBuffer());
  const Status status = NewStatus();  // without it the default is right
  TF_GetSerializedConfigProto(context_, buffer.get(), status.get());
  if (!hw3tf::Ok(status) || !buffer->data) return 0;
  const auto* data = static_cast<const uint8_t*>(buffer->data);
  return FindIntraOpThreads(data, data + buffer->length);
}

Dims DimsOf(const Tensor& tensor) {
  Dims dims;
  for (int i = 0; i < TF_NumDims(tensor.get()); ++i)
    dims.push_back(TF_Dim(tensor.get(), i));
  return dims;
}

void Fail(TF_OpKernelContext* context, TF_Code code, const char* message) {
  const Status status = NewStatus();
  TF_SetStatus(status.get(), code, message);
  TF_OpKernelContext_Failure(context, status.get());
}

void Fail(TF_OpKernelConstruction* construction, TF_Code code,
          const char* message) {
  const Status status = NewStatus();
  TF_SetStatus(status.get(), code, message);
  TF_OpKernelConstruction_Failure(construction, status.get());
}

int SessionThreads::Get(Call* call) {
  int threads = threads_.load(std::memory_order_relaxed);
  if (threads < 0) {
    threads = call->IntraOpThreads();
    threads_.store(threads, std::memory_order_relaxed);
  }
  return threads;
}

std::optional<Dims> Given(const Tensor& tensor) {
  Dims dims = DimsOf(tensor);
  if (dims == Dims{0}) return std::nullopt;
  return dims;
}

ConstArray View(const Tensor& tensor) {
  const auto [data, strides] = MutableView(tensor);
  return {data, strides};
}

MutableArray MutableView(const Tensor& tensor) {
  const Dims dims = DimsOf(tensor);
  return {TF_TensorData(tensor.get()),
          RowStrides(dims, ContiguousStrides(dims))};
}

bool RegisterOp(const OpRegistration& op) {
  if (!LoadError().empty()) {
    std::fprintf(stderr, "hw3tf: op %s was not registered: %s\n", op.name,
                 LoadError().c_str());
    return false;
  }
  const Status status = NewStatus();
  TF_OpDefinitionBuilder* builder = TF_NewOpDefinitionBuilder(op.name);
  for (const char* spec : op.attrs)
    TF_OpDefinitionBuilderAddAttr(builder, spec);
  for (const char* spec : op.inputs)
    TF_OpDefinitionBuilderAddInput(builder, spec);
  for (const char* spec : op.outputs)
    TF_OpDefinitionBuilderAddOutput(builder, spec);
  TF_OpDefinitionBuilderSetShapeInferenceFunction(builder, op.shape_function);
  TF_RegisterOpDefinition(builder, status.get());
  for (TF_DataType type : op.types) {
    if (!Ok(status)) break;
    TF_KernelBuilder* kernel =
        TF_NewKernelBuilder(op.name, "CPU", op.create, op.compute, op.destroy);
    TF_KernelBuilder_TypeConstraint(kernel, "T", type, status.get());
    if (Ok(status)) TF_RegisterKernelBuilder(op.name, kernel, status.get());
  }
  if (!Ok(status))
    std::fprintf(stderr, "hw3tf: op %s was not registered: %s\n", op.name,
                 TF_Message(status.get()));
  return Ok(status);
}

}  // namespace hw3tf
