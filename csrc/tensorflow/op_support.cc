#include "tensorflow/op_support.h"

#include <cstdio>

#include "tensorflow/config_proto.h"
#include "tensorflow/loading.h"

namespace hw3tf {
namespace {

// In the order of Element.
constexpr struct {
  TF_DataType type;
  const char* name;
} kDataTypes[] = {
    {TF_BOOL, "bool"},     {TF_INT8, "int8"},         {TF_UINT8, "uint8"},
    {TF_INT16, "int16"},   {TF_INT32, "int32"},       {TF_INT64, "int64"},
    {TF_FLOAT, "float"},   {TF_BFLOAT16, "bfloat16"}, {TF_HALF, "half"},
    {TF_DOUBLE, "double"},
};

}  // namespace

TF_DataType DataTypeOf(Element element) {
  return kDataTypes[static_cast<int>(element)].type;
}

const char* DataTypeName(Element element) {
  return kDataTypes[static_cast<int>(element)].name;
}

Element ElementOf(TF_DataType type) {
  int i = 0;
  while (kDataTypes[i].type != type) ++i;  // no op is defined for another
  return static_cast<Element>(i);
}

void OpRun::Report() { TF_OpKernelContext_Failure(context_, status_.get()); }

void OpRun::Fail(TF_Code code, const std::string& message) {
  if (!Ok()) return;
  TF_SetStatus(status_.get(), code, message.c_str());
  Report();
}

void OpRun::Require(const std::string& error) {
  if (!error.empty()) Fail(TF_INVALID_ARGUMENT, error);
}

Tensor OpRun::Input(int index) {
  TF_Tensor* tensor = nullptr;
  if (Ok()) {
    TF_GetInput(context_, index, &tensor, status_.get());
    if (!Ok()) Report();
  }
  return Tensor(tensor);
}

Tensor OpRun::Output(int index, Element element, const Dims& dims) {
  if (!Ok()) return nullptr;
  auto bytes = static_cast<size_t>(SizeOf(element));
  for (int64_t size : dims) bytes *= static_cast<size_t>(size);
  Tensor tensor(TF_AllocateOutput(context_, index, DataTypeOf(element),
                                  dims.data(), static_cast<int>(dims.size()),
                                  bytes, status_.get()));
  if (!Ok()) Report();
  return tensor;
}

Tensor OpRun::OutputInPlace(int index, int input_index, Tensor* input) {
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

int OpRun::IntraOpThreads() {
  // TensorFlow computes constants outside of any step and session, when it
  // optimizes a graph (step 0) or infers the shapes of one that is being traced
  // (-1). It would read the configuration of none, and crash. Its header
  // log_memory.h reserves -6 to -1; functions have random steps below.
  constexpr int64_t kFirstReserved = -6;
  if (!Ok()) return 0;
  const int64_t step = TF_StepId(context_);
  if (step >= kFirstReserved && step <= 0) return 0;
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

int SessionThreads::Get(OpRun* run) {
  int threads = threads_.load(std::memory_order_relaxed);
  if (threads < 0) {
    threads = run->IntraOpThreads();
    threads_.store(threads, std::memory_order_relaxed);
  }
  return threads;
}

bool RegisterOp(const OpRegistration& op) {
  if (!LoadError().empty()) {
    std::fprintf(stderr, "hw3tf: op %s was not registered: %s\n",
                 op.name.c_str(), LoadError().c_str());
    return false;
  }
  const Status status = NewStatus();
  TF_OpDefinitionBuilder* builder = TF_NewOpDefinitionBuilder(op.name.c_str());
  for (const std::string& spec : op.attrs)
    TF_OpDefinitionBuilderAddAttr(builder, spec.c_str());
  for (const std::string& spec : op.inputs)
    TF_OpDefinitionBuilderAddInput(builder, spec.c_str());
  for (const std::string& spec : op.outputs)
    TF_OpDefinitionBuilderAddOutput(builder, spec.c_str());
  TF_OpDefinitionBuilderSetShapeInferenceFunction(builder, op.shape_function);
  TF_RegisterOpDefinition(builder, status.get());
  for (TF_DataType type : op.types) {
    if (!Ok(status)) break;
    TF_KernelBuilder* kernel = TF_NewKernelBuilder(
        op.name.c_str(), "CPU", op.create, op.compute, op.destroy);
    TF_KernelBuilder_TypeConstraint(kernel, "T", type, status.get());
    if (Ok(status))
      TF_RegisterKernelBuilder(op.name.c_str(), kernel, status.get());
  }
  if (!Ok(status))
    std::fprintf(stderr, "hw3tf: op %s was not registered: %s\n",
                 op.name.c_str(), TF_Message(status.get()));
  return Ok(status);
}

}  // namespace hw3tf
