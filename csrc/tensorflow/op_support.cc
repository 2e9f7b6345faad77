#include "tensorflow/op_support.h"

#include <cstdio>
#include <new>

namespace hw3tf {
namespace {

// Reads a protocol buffer's base-128 number; returns the position after it, or
// nullptr at the end of the data.
const uint8_t* ReadVarint(const uint8_t* at, const uint8_t* end,
                          uint64_t* value) {
  *value = 0;
  for (int shift = 0; at < end && shift < 64; shift += 7) {
    const uint8_t byte = *at++;
    *value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (!(byte & 0x80)) return at;
  }
  return nullptr;
}

// tensorflow.ConfigProto: int32 intra_op_parallelism_threads = 2.
int FindIntraOpThreads(const uint8_t* at, const uint8_t* end) {
  while (at && at < end) {
    uint64_t key, value;
    at = ReadVarint(at, end, &key);
    if (!at) break;
    switch (key & 7) {
      case 0:
        at = ReadVarint(at, end, &value);
        if (at && key >> 3 == 2)
          return static_cast<int32_t>(value) > 0 ? static_cast<int32_t>(value)
                                                 : 0;
        break;
      case 1:
        at = end - at < 8 ? nullptr : at + 8;
        break;
      case 2:
        at = ReadVarint(at, end, &value);
        if (at)
          at = value > static_cast<uint64_t>(end - at) ? nullptr : at + value;
        break;
      case 5:
        at = end - at < 4 ? nullptr : at + 4;
        break;
      default:
        return 0;
    }
  }
  return 0;
}

}  // namespace

void Call::Report() { TF_OpKernelContext_Failure(context_, status_.get()); }

void Call::Fail(TF_Code code, const std::string& message) {
  if (!Ok()) return;
  TF_SetStatus(status_.get(), code, message.c_str());
  Report();
}

Tensor Call::Input(int index) {
  TF_Tensor* tensor = nullptr;
  if (Ok()) {
    TF_GetInput(context_, index, &tensor, status_.get());
    if (!Ok()) Report();
  }
  return Tensor(tensor);
}

Tensor Call::Output(int index, const Dims& dims) {
  if (!Ok()) return nullptr;
  size_t bytes = sizeof(float);
  for (int64_t size : dims) bytes *= static_cast<size_t>(size);
  Tensor tensor(TF_AllocateOutput(context_, index, TF_FLOAT, dims.data(),
                                  static_cast<int>(dims.size()), bytes,
                                  status_.get()));
  if (!Ok()) Report();
  return tensor;
}

const uint8_t* Call::Mask(const Tensor& tensor) const {
  if (!Ok() || TF_NumDims(tensor.get()) == 1) return nullptr;
  return static_cast<const uint8_t*>(TF_TensorData(tensor.get()));
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

const float* Floats(const Tensor& tensor) {
  return static_cast<const float*>(TF_TensorData(tensor.get()));
}

ConstArray View(const Tensor& tensor) {
  return {Floats(tensor), ContiguousStrides(DimsOf(tensor))};
}

MutableArray MutableView(const Tensor& tensor) {
  return {static_cast<float*>(TF_TensorData(tensor.get())),
          ContiguousStrides(DimsOf(tensor))};
}

int AttentionKernelState::Threads(Call* call) {
  int threads = intra_op_threads.load(std::memory_order_relaxed);
  if (threads < 0) {
    threads = call->IntraOpThreads();
    intra_op_threads.store(threads, std::memory_order_relaxed);
  }
  return threads;
}

void* CreateAttentionKernel(TF_OpKernelConstruction* construction) {
  const Status status = NewStatus();
  auto state = std::make_unique<AttentionKernelState>();
  TF_Bool is_causal = 0;
  TF_OpKernelConstruction_GetAttrFloat(construction, "scale", &state->scale,
                                       status.get());
  if (Ok(status))
    TF_OpKernelConstruction_GetAttrBool(construction, "is_causal", &is_causal,
                                        status.get());
  if (!Ok(status)) TF_OpKernelConstruction_Failure(construction, status.get());
  state->is_causal = is_causal != 0;
  return state.release();
}

void DeleteAttentionKernel(void* kernel) {
  delete static_cast<AttentionKernelState*>(kernel);
}

AttentionInputs::AttentionInputs(Call* call, const AttentionKernelState& state)
    : query(call->Input(0)),
      key(call->Input(1)),
      value(call->Input(2)),
      query_mask(call->Input(3)),
      key_mask(call->Input(4)),
      shape{},
      options{state.scale, state.is_causal, call->Mask(query_mask),
              call->Mask(key_mask)} {
  if (!call->Ok()) return;
  const Dims query_mask_dims = DimsOf(query_mask);
  const Dims key_mask_dims = DimsOf(key_mask);
  // An empty mask of rank 1 stands for "none"; any other of rank 1 is wrong,
  // and told so by the check.
  const auto given = [](const Dims& dims) {
    return dims.size() == 1 && dims[0] == 0 ? nullptr : &dims;
  };
  const std::string error =
      CheckAttention({DimsOf(query), DimsOf(key), DimsOf(value),
                      given(query_mask_dims), given(key_mask_dims)},
                     &shape);
  if (!error.empty()) call->Fail(TF_INVALID_ARGUMENT, error);
}

bool RegisterOp(const OpRegistration& op) {
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
  if (Ok(status))
    TF_RegisterKernelBuilder(
        op.name,
        TF_NewKernelBuilder(op.name, "CPU", &CreateAttentionKernel, op.compute,
                            &DeleteAttentionKernel),
        status.get());
  if (!Ok(status))
    std::fprintf(stderr, "hw3tf: op %s was not registered: %s\n", op.name,
                 TF_Message(status.get()));
  return Ok(status);
}

}  // namespace hw3tf
