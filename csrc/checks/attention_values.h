// What attention_checks.cc checks beside shapes: numbers, and the values of the
// small arrays that say where rows begin and end. A kernel would follow a wrong
// one out of its arrays.

#pragma once

#include "operations/dims.h"
#include "kernels/attention/attention.h"

namespace hw3tf {

// Longer sequences could overflow the kernels' 32-bit positions, wider heads
// the sizes of their scratch memory.
constexpr int64_t kLongest = INT32_MAX / 2;

// "float32", also the name of what `Real` is for a type (attention.h).
const char* Name(DType dtype);
const char* RealName(DType dtype);

std::string CheckDropoutRate(const char* name, double rate);

// Scale, soft cap, dropout rate and windows. A window that is wider than any
// sequence becomes "no limit": its edges could not be computed.
std::string CheckNumbers(DType dtype, AttentionOptions* options);

// Each of `lengths` is within 0..limit, the length of `of`.
std::string CheckLengths(const char* name, const int32_t* lengths,
                         int64_t batch, const char* of, int64_t limit);

// `splits`, batch + 1 of them, ascend from 0 to the number of rows of `of`.
// Sets the largest length.
std::string CheckSplits(const char* name, const int64_t* splits, int64_t batch,
                        const char* of, int64_t rows, int64_t* longest);

}  // namespace hw3tf
