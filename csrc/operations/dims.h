// Shapes, and the sentences that refuse one: which argument, what was expected,
// what was received. An empty string means that nothing is wrong.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/attention/attention.h"

namespace hw3tf {

using Dims = std::vector<int64_t>;

// "(2, 5, 4)"
std::string ToString(const Dims& dims);

// "`key` must have <expected>. Received: key.shape=(2, 5, 4)"
std::string WrongShape(const char* name, const std::string& expected,
                       const Dims& received);

// "`scale` must be <expected>. Received: scale=inf"; `at`, as in "[3]", is the
// place within the argument.
std::string WrongValue(const char* name, const std::string& expected,
                       double received);
std::string WrongValue(const char* name, const std::string& expected,
                       int64_t received, const std::string& at = "");

// "`key` must have <expected>. Received: key.dtype=float64"
std::string WrongDType(const char* name, const std::string& expected,
                       const std::string& received);

// "[3]"
std::string At(int64_t index);

std::string CheckDims(const char* name, const Dims& received,
                      const Dims& expected);

// Each of `batch` lengths is within 0..limit, the length of `of`.
std::string CheckLengths(const char* name, const int32_t* lengths,
                         int64_t batch, const char* of, int64_t limit);

// NumPy's rules: axes are aligned at the right, each is 1 or that of `wanted`,
// whose axes have these names, "batch, num_heads".
bool BroadcastsTo(const Dims& wanted, const Dims& received);
std::string WrongBroadcast(const char* name, const std::string& names,
                           const Dims& wanted, const Dims& received);

// Whether 8-byte elements of this shape can be counted in bytes. An axis of
// size 0 counts as 1, because strides are products of the other axes.
bool Countable(const Dims& dims);

// Whether an axis has size 0.
bool IsEmpty(const Dims& dims);

Dims ContiguousStrides(const Dims& dims);

// Of an array over the scores, (B, N, T, S), to which it broadcasts, from its
// strides in elements.
ScoreStrides BroadcastStrides(const Dims& dims, const Dims& strides);

// Of (batch, length, heads, size) or, packed, (length, heads, size). The stride
// of a batch of 1 is 0.
Strides RowStrides(const Dims& dims, const Dims& strides);

}  // namespace hw3tf
