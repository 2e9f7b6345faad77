// What both ways into the kernels check: shapes of an attention call. One place
// for the rules and for their wording; pybind11 raises the message as
// ValueError, TensorFlow as InvalidArgumentError.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/attention.h"

namespace hw3tf {

using Dims = std::vector<int64_t>;

// "(2, 5, 4)"
std::string ToString(const Dims& dims);

// The shapes of the arguments as received; a mask that was not given is
// nullptr.
struct AttentionDims {
  Dims query, key, value;
  const Dims* query_mask = nullptr;
  const Dims* key_mask = nullptr;
};

// Fills `shape` and returns "", or returns what is wrong: which argument, what
// was expected, what was received.
std::string CheckAttention(const AttentionDims& dims, AttentionShape* shape);

// Likewise for an argument whose shape follows from the others.
std::string CheckDims(const char* name, const Dims& received,
                      const Dims& expected);

Dims OutputDims(const AttentionShape& shape);
Dims StatisticsDims(const AttentionShape& shape);

// Strides of a C-contiguous (batch, length, heads, size) array.
Strides ContiguousStrides(const Dims& dims);

}  // namespace hw3tf
