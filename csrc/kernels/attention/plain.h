// Attention straight from the formula: every option and type of attention.h,
// one query at a time, all arithmetic in double. The tests compare the fast
// kernels with it.
//
// The results are those that attention.h promises. Scratch per thread: O(S) in
// forward, O(H) in backward; the backward pass of a type narrower than float64
// also keeps grad_key and grad_value of one head per thread and grad_bias in
// double.

#pragma once

#include "kernels/attention/attention.h"
#include "kernels/runtime/export.h"

namespace hw3tf {

HW3TF_EXPORT bool AttentionForwardPlain(const AttentionForwardArgs& args,
                                        int num_threads);
HW3TF_EXPORT bool AttentionBackwardPlain(const AttentionBackwardArgs& args,
                                         int num_threads);

// float64 on the instruction set in use (float64-inl.h). What that leaves is
// computed in the plain form.
bool AttentionForwardFloat64(const AttentionForwardArgs& args, int num_threads);
bool AttentionBackwardFloat64(const AttentionBackwardArgs& args,
                              int num_threads);

}  // namespace hw3tf
