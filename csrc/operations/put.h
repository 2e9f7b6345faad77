// Functions that put parts of a call into the arguments of a kernel, for the
// tables; made from pointers to members.

#pragma once

#include <type_traits>

#include "operations/description.h"

namespace hw3tf {

// The class and the type of a pointer to a member.
template <typename Pointer>
struct Member;
template <typename C, typename M>
struct Member<M C::*> {
  using Class = C;
  using Type = M;
};

// The object with the member: the arguments of the kernel, their options or, if
// they have such a part, their operands.
template <typename Args, auto kMember>
auto& At(void* args) {
  using Class = typename Member<decltype(kMember)>::Class;
  if constexpr (std::is_same_v<Class, Args>)
    return static_cast<Args*>(args)->*kMember;
  else if constexpr (std::is_same_v<Class, decltype(Args::options)>)
    return static_cast<Args*>(args)->options.*kMember;
  else
    return static_cast<Args*>(args)->operands.*kMember;
}

// A pointer to the first element; nullptr if the array is not given.
template <typename Args, auto kData>
void PutData(void* args, const Array& array) {
  auto& data = At<Args, kData>(args);
  using Pointer = std::remove_reference_t<decltype(data)>;
  data = static_cast<Pointer>(array.given ? array.data : nullptr);
}

template <typename Args, auto kRows>
void PutRows(void* args, const Array& array) {
  At<Args, kRows>(args) = {array.data, RowStrides(array.dims, array.strides)};
}

template <typename Args, auto kData, auto kStrides>
void PutScores(void* args, const Array& array) {
  PutData<Args, kData>(args, array);
  if (array.given)
    At<Args, kStrides>(args) = BroadcastStrides(array.dims, array.strides);
}

// (B, length), or (1, length) for every batch entry.
template <typename Args, auto kData, auto kStride>
void PutPositionMask(void* args, const Array& array) {
  PutData<Args, kData>(args, array);
  if (array.given)
    At<Args, kStride>(args) = array.dims[0] == 1 ? 0 : array.dims[1];
}

template <typename Args, auto kMember>
void PutValue(void* args, const Value& value) {
  auto& member = At<Args, kMember>(args);
  using M = std::remove_reference_t<decltype(member)>;
  if constexpr (std::is_same_v<M, bool>)
    member = value.integer != 0;
  else if constexpr (std::is_floating_point_v<M>)
    member = value.number;
  else
    member = static_cast<M>(value.integer);
}

template <typename Args, auto kMember>
void PutOutput(void* args, const Dims&, void* data) {
  At<Args, kMember>(args) = data;
}

// Nothing is computed for a result without elements.
template <typename Args, auto kMember>
void PutUnlessEmpty(void* args, const Dims& dims, void* data) {
  At<Args, kMember>(args) = IsEmpty(dims) ? nullptr : data;
}

template <typename Args, auto kRows>
void PutOutputRows(void* args, const Dims& dims, void* data) {
  At<Args, kRows>(args) = {data, RowStrides(dims, ContiguousStrides(dims))};
}

// All but the shape, of a call that was checked.
template <typename Args>
Args Filled(const Call& call, const Output* outputs) {
  const Operation& operation = call.operation;
  Args args{};
  for (const TypeParameter& type : operation.types)
    if (type.put) type.put(&args, call.types[static_cast<int>(type.type)]);
  for (int i = 0; i < operation.operands.size(); ++i)
    operation.operands[i].put(&args, call.operands[i]);
  for (int i = 0; i < operation.attributes.size(); ++i)
    if (operation.attributes[i].put)
      operation.attributes[i].put(&args, call.attributes[i]);
  for (int i = 0; i < operation.results.size(); ++i)
    operation.results[i].put(&args, outputs[i].dims, outputs[i].data);
  return args;
}

}  // namespace hw3tf
