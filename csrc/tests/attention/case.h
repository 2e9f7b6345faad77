// The cases of the attention tests: one value for each choice that attention.h
// offers.

#pragma once

#include <string>
#include <vector>

#include "kernels/attention/attention.h"

namespace hw3tf {

enum class Mask {
  kNone,
  kFull,            // (B, N, T, S)
  kOverHeads,       // (B, 1, T, S)
  kOverQueries,     // (B, N, 1, S)
  kTransposed,      // (B, N, T, S) in the order (S, T, N, B)
  kLate,            // (1, 1, 1, S): the first tile of keys is hidden
  kRowsSeeNothing,  // (B, 1, T, 1): a third of the queries see nothing
  kCount
};
enum class KeyMask { kNone, kPrefix, kHoles, kCount };
enum class Lengths { kNone, kQueries, kKeys, kBoth, kCount };
enum class Bias {
  kNone,
  kFull,        // (B, N, T, S)
  kOverRows,    // (1, N, T, S)
  kOverHeads,   // (B, 1, T, S)
  kOverAll,     // (1, 1, T, S)
  kPerKey,      // (1, N, 1, S)
  kPerQuery,    // (B, 1, T, 1)
  kScalar,      // (1, 1, 1, 1)
  kTransposed,  // (B, N, T, S) in the order (S, T, N, B)
  kInfinite,    // (B, N, T, S), -inf at some of the keys
  kCount
};
enum class Window {
  kNone,
  kSymmetric,
  kBefore,
  kAfter,
  kItself,
  kFromItself,
  kHuge,
  kCount
};
// The structure of a mask, as models make it: whole tiles of ones and of zeros.
enum class Pattern {
  kRandom,
  kCausal,
  kBand,
  kHoles,   // a square of zeros here and there
  kBlocks,  // ones along the diagonal
  kOnes,
  kZeros,
  kCount
};
// The kind of elements of queries, keys, values and gradients.
enum class Numbers {
  kNormal,
  kDenormals,  // half of them; the others are normal
  kSmall,      // integers, many of them equal
  kEqual,      // all of an array
  kWide,       // some of them 16 times as large
  kCount
};
enum class Scale { kUsual, kNegative, kLarge, kZero, kCount };
enum class Packed { kNo, kRagged, kSomeEmpty, kCount };
enum class Layout {
  kContiguous,
  kHeadsFirst,  // (B, N, T, H) in memory
  kPadded,      // elements that belong to others between the rows
  kReversed,    // from the last position to the first
  kCount
};

struct Case {
  int number;
  DType dtype;
  AttentionShape shape;
  Mask mask;
  KeyMask key_mask;
  bool query_mask;
  Lengths lengths;
  Bias bias;
  bool is_causal;
  Window window;
  Scale scale;
  bool soft_cap;
  bool dropout;
  Packed packed;
  Layout layout;
  bool grad_logsumexp;
  bool all_outputs;  // else neither logsumexp nor grad_bias is wanted
  // Only the fuzzer chooses these.
  Pattern pattern = Pattern::kRandom;
  Numbers numbers = Numbers::kNormal;
  // Arrays of a single batch entry, for all of them.
  bool one_query = false;
  bool one_key = false;
  bool one_value = false;
  bool one_mask = false;      // of queries, and of keys
  bool summed_grads = false;  // of these arrays, over the batch
  bool finite_logsumexp = false;

  std::string Name() const;
};

// The lengths and sizes that occur.
struct CaseSizes {
  std::vector<int64_t> query_len;
  std::vector<int64_t> key_len;
  std::vector<int64_t> head_dim;
  std::vector<int64_t> value_dim;
};

enum class Terms {
  kAll,
  // None that changes a score or hides a key among visible ones: what kernels
  // have their fastest loops for, and what hardly occurs where any option may.
  kFew,
  // Nor any that hides a key.
  kNone
};

// Every two choices meet in one of the cases that are added; returns how many
// such pairs there are.
int AddCases(const CaseSizes& sizes, Terms terms, std::vector<Case>* cases);

}  // namespace hw3tf
