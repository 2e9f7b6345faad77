// An array of a call, as every front hands it over.

#pragma once

#include <cstdint>
#include <vector>

#include "operations/dims.h"

namespace hw3tf {

// Of arrays.
enum class Element : uint8_t {
  kBool,
  kInt8,
  kUint8,
  kInt16,
  kInt32,
  kInt64,
  kFloat32,
  kBfloat16,
  kFloat16,
  kFloat64,
};

// "float32"
const char* Name(Element element);
int SizeOf(Element element);  // in bytes

struct Array {
  bool given = false;
  Dims dims;
  Dims strides;  // in elements
  const void* data = nullptr;
  std::vector<char> copy;  // what `data` points to, where it had to be copied
};

// The first `count` elements of an array with one axis, copied; of an array of
// one element, that one for each. The array becomes the copy.
template <typename T>
const T* CopyOf(Array* array, int64_t count) {
  const auto* from = static_cast<const T*>(array->data);
  const bool one = array->dims[0] == 1;
  array->copy.resize(static_cast<size_t>(count) * sizeof(T));
  auto* to = reinterpret_cast<T*>(array->copy.data());
  for (int64_t i = 0; i < count; ++i) to[i] = from[one ? 0 : i];
  array->data = to;
  return to;
}

// Memory of a result, C-contiguous.
struct Output {
  Dims dims;
  void* data = nullptr;
};

}  // namespace hw3tf
