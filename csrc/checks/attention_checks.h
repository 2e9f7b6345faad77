// What both ways into the kernels check of an attention call. One place for the
// rules and for their wording; pybind11 raises the message as ValueError,
// TensorFlow as InvalidArgumentError.

#pragma once

#include <optional>
#include <string>

#include "checks/dims.h"
#include "kernels/attention.h"

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

// Fills `shape` and returns "", or returns what is wrong.
//
// `options` comes with its numbers and with pointers to lengths and splits, of
// the sizes that `arguments` tells; the values there are checked, too. The
// strides of bias and mask are not looked at.
std::string CheckAttention(DType dtype, const AttentionArguments& arguments,
                           AttentionOptions* options, AttentionShape* shape);

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
