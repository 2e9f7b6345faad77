// What attention_forward and attention_backward both take, checked and seen
// through the eyes of a kernel.

#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>

#include "bindings/arrays.h"
#include "checks/attention_checks.h"
#include "kernels/attention/attention.h"

namespace hw3tf {

// Raises TypeError unless the array has the type; nothing is ever converted.
void RequireDType(const char* name, const pybind11::array& array, DType dtype);
void RequireReal(const char* name, const pybind11::array& array, DType dtype);

// Any strides, as long as the last axis is contiguous, else ValueError.
ConstArray View(const char* name, const pybind11::array& array);

// Holds pointers into the arrays it was made from: they must outlive it.
struct AttentionInputs {
  // In the order of the keywords in attention.cc.
  AttentionInputs(
      const pybind11::array& query_array, const pybind11::array& key_array,
      const pybind11::array& value_array, double scale,
      const OptionalArray& bias, const OptionalArray& mask,
      const OptionalArray& query_mask, const OptionalArray& key_mask,
      const OptionalArray& query_lengths, const OptionalArray& key_lengths,
      const OptionalArray& query_splits, const OptionalArray& key_splits,
      bool is_causal, int64_t window_before, int64_t window_after,
      double soft_cap, double dropout_rate, int64_t dropout_seed);

  // A bias with a gradient needs an element of its own for each of its own: an
  // axis that NumPy repeats with a stride of 0 is one of size 1 to the kernels.
  void UnfoldBias();

  DType dtype;
  AttentionArguments arguments;
  AttentionShape shape;
  AttentionOptions options;
  Positions positions;  // to which `options` points
  ConstArray query, key, value;
  OptionalArray bias;
};

}  // namespace hw3tf
