#include "operations/dims.h"

#include <algorithm>
#include <cstdio>

namespace hw3tf {
namespace {

std::string Sentence(const char* name, const std::string& must,
                     const std::string& received) {
  return "`" + std::string(name) + "` must " + must + ". Received: " + name +
         received;
}

}  // namespace

std::string ToString(const Dims& dims) {
  std::string text = "(";
  for (size_t i = 0; i < dims.size(); ++i)
    text += (i ? ", " : "") + std::to_string(dims[i]);
  return text + (dims.size() == 1 ? ",)" : ")");
}

std::string WrongShape(const char* name, const std::string& expected,
                       const Dims& received) {
  return Sentence(name, "have " + expected, ".shape=" + ToString(received));
}

std::string WrongValue(const char* name, const std::string& expected,
                       double received) {
  char text[32];
  std::snprintf(text, sizeof(text), "=%.9g", received);
  return Sentence(name, "be " + expected, text);
}

std::string WrongValue(const char* name, const std::string& expected,
                       int64_t received, const std::string& at) {
  return Sentence(name, "be " + expected, at + "=" + std::to_string(received));
}

std::string WrongDType(const char* name, const std::string& expected,
                       const std::string& received) {
  return Sentence(name, "have " + expected, ".dtype=" + received);
}

std::string CheckDims(const char* name, const Dims& received,
                      const Dims& expected) {
  if (received == expected) return "";
  return WrongShape(name, "shape " + ToString(expected), received);
}

std::string At(int64_t index) { return "[" + std::to_string(index) + "]"; }

std::string CheckLengths(const char* name, const int32_t* lengths,
                         int64_t batch, const char* of, int64_t limit) {
  for (int64_t b = 0; b < batch; ++b)
    if (lengths[b] < 0 || lengths[b] > limit)
      return WrongValue(name,
                        "between 0 and the length of `" + std::string(of) +
                            "`, " + std::to_string(limit),
                        lengths[b], At(b));
  return "";
}

bool BroadcastsTo(const Dims& wanted, const Dims& received) {
  if (received.size() > wanted.size()) return false;
  const size_t missing = wanted.size() - received.size();
  for (size_t i = 0; i < received.size(); ++i)
    if (received[i] != 1 && received[i] != wanted[missing + i]) return false;
  return true;
}

std::string WrongBroadcast(const char* name, const std::string& names,
                           const Dims& wanted, const Dims& received) {
  return Sentence(name, "broadcast to (" + names + ") = " + ToString(wanted),
                  ".shape=" + ToString(received));
}

bool Countable(const Dims& dims) {
  int64_t bytes = sizeof(double);
  for (int64_t size : dims)
    if (__builtin_mul_overflow(bytes, size ? size : 1, &bytes)) return false;
  return true;
}

bool IsEmpty(const Dims& dims) {
  return std::find(dims.begin(), dims.end(), 0) != dims.end();
}

Dims ContiguousStrides(const Dims& dims) {
  Dims strides(dims.size());
  int64_t stride = 1;
  for (size_t i = dims.size(); i-- > 0; stride *= dims[i]) strides[i] = stride;
  return strides;
}

ScoreStrides BroadcastStrides(const Dims& dims, const Dims& strides) {
  int64_t of[4] = {0, 0, 0, 0};
  for (size_t i = 0; i < dims.size(); ++i)
    if (dims[i] > 1) of[4 - dims.size() + i] = strides[i];
  return {of[0], of[1], of[2], of[3]};
}

Strides RowStrides(const Dims& dims, const Dims& strides) {
  const size_t length = dims.size() - 3;
  const bool one = length == 0 || dims[0] == 1;  // serves every batch entry
  return {one ? 0 : strides[0], strides[length], strides[length + 1]};
}

}  // namespace hw3tf
