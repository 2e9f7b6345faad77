// What both ways into the kernels check of an attention call. One place for the
// rules and for their wording; pybind11 raises the message as ValueError,
// TensorFlow as InvalidArgumentError.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "operations/dims.h"
#include "kernels/attention/attention.h"

namespace hw3tf {

// The shapes of the arguments as received; nullopt is what was not given.
struct AttentionArguments {
  Dims query, key, value;
  std::optional<Dims> bias, mask;
  std::optional<Dims> query_mask, key_mask;
  std::optional<Dims> query_lengths, key_lengths;
  std::optional<Dims> query_splits, key_splits;
};

// Whether the type with the name `received` is `dtype`, that of query, or what
// `Real` (attention.h) is for it.
std::string CheckDType(const char* name, DType dtype,
                       const std::string& received);
std::string CheckReal(const char* name, DType dtype,
                      const std::string& received);

// Lengths and splits as they were checked: whoever holds the caller's arrays
// may change them while a kernel runs, which would follow them out of its
// arrays.
struct Positions {
  std::vector<int32_t> query_lengths, key_lengths;
  std::vector<int64_t> query_splits, key_splits;
};

// Fills `shape` and returns "", or returns what is wrong.
//
// `options` comes with its numbers and with pointers to lengths and splits, of
// the sizes that `arguments` tells. They are copied to `positions`, to which
// `options` points then, and checked there. Strides of the masks of positions
// are set, those of bias and mask are not looked at.
std::string CheckAttention(DType dtype, const AttentionArguments& arguments,
                           AttentionOptions* options, AttentionShape* shape,
                           Positions* positions);

// Of what the forward pass returns, once CheckAttention has let it pass.
Dims OutputDims(const AttentionArguments& arguments);
Dims StatisticsDims(const AttentionArguments& arguments);
Dims LogsumexpDims(const AttentionArguments& arguments);

// What the backward pass takes beside the arguments of the forward pass.
struct AttentionResults {
  Dims output, statistics, grad_output;
  std::optional<Dims> grad_logsumexp;
};
std::string CheckResults(const AttentionArguments& arguments,
                         const AttentionResults& results);

// Whether there is a gradient of the bias to compute: without scores a bias may
// have no elements, where its strides say 1.
bool HasGradBias(const AttentionArguments& arguments);

// For AttentionDropoutMask: `dims` are (B, N, T, S).
std::string CheckDropoutMask(const Dims& dims, double rate,
                             AttentionShape* shape);

}  // namespace hw3tf
