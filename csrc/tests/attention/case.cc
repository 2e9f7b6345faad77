#include "tests/attention/case.h"

#include <cstdio>

#include "tests/pairwise.h"

namespace hw3tf {
namespace {

enum Factor {
  kDType,
  kMask,
  kKeyMask,
  kQueryMask,
  kLengths,
  kBias,
  kCausal,
  kWindow,
  kScale,
  kSoftCap,
  kDropout,
  kPacked,
  kLayout,
  kGradLogsumexp,
  kOutputs,
  kBatch,
  kKvHeads,
  kGroup,
  kQueryLen,
  kKeyLen,
  kHeadDim,
  kValueDim,
  kFactors
};

constexpr int64_t kGroups[] = {1, 2, 3};

template <typename Enum>
constexpr int Count() {
  return static_cast<int>(Enum::kCount);
}

int Count(const std::vector<int64_t>& sizes) {
  return static_cast<int>(sizes.size());
}

// Masks and lengths over (B, length) are not for packed sequences, whose splits
// say the same.
bool Together(int f, int a, int g, int b) {
  const bool per_sequence = g == kKeyMask || g == kQueryMask || g == kLengths;
  return !(f == kPacked && a != 0 && per_sequence && b != 0);
}

Case FromLevels(const CaseSizes& sizes, const Levels& row, int number) {
  const auto level = [&](Factor f) { return row[f]; };
  const auto size = [&](const std::vector<int64_t>& list, Factor f) {
    return list[static_cast<size_t>(row[f])];
  };
  Case c;
  c.number = number;
  c.dtype = static_cast<DType>(level(kDType));
  c.mask = static_cast<Mask>(level(kMask));
  c.key_mask = static_cast<KeyMask>(level(kKeyMask));
  c.query_mask = level(kQueryMask) != 0;
  c.lengths = static_cast<Lengths>(level(kLengths));
  c.bias = static_cast<Bias>(level(kBias));
  c.is_causal = level(kCausal) != 0;
  c.window = static_cast<Window>(level(kWindow));
  c.scale = static_cast<Scale>(level(kScale));
  c.soft_cap = level(kSoftCap) != 0;
  c.dropout = level(kDropout) != 0;
  c.packed = static_cast<Packed>(level(kPacked));
  c.layout = static_cast<Layout>(level(kLayout));
  c.grad_logsumexp = level(kGradLogsumexp) != 0;
  c.all_outputs = level(kOutputs) == 0;
  c.shape.batch = 1 + level(kBatch);
  // Room for empty sequences beside the longest.
  if (c.packed != Packed::kNo) c.shape.batch += 2;
  c.shape.num_kv_heads = 1 + level(kKvHeads);
  c.shape.num_heads = c.shape.num_kv_heads * kGroups[level(kGroup)];
  c.shape.query_len = size(sizes.query_len, kQueryLen);
  c.shape.key_len = size(sizes.key_len, kKeyLen);
  c.shape.head_dim = size(sizes.head_dim, kHeadDim);
  c.shape.value_dim = size(sizes.value_dim, kValueDim);
  return c;
}

}  // namespace

int AddCases(const CaseSizes& sizes, Terms terms, std::vector<Case>* cases) {
  Levels counts(kFactors, 2);  // where nothing else is said
  counts[kDType] = 4;
  counts[kMask] = Count<Mask>();
  counts[kKeyMask] = Count<KeyMask>();
  counts[kLengths] = Count<Lengths>();
  counts[kBias] = Count<Bias>();
  counts[kWindow] = Count<Window>();
  counts[kScale] = Count<Scale>();
  counts[kPacked] = Count<Packed>();
  counts[kLayout] = Count<Layout>();
  counts[kGroup] = 3;
  counts[kQueryLen] = Count(sizes.query_len);
  counts[kKeyLen] = Count(sizes.key_len);
  counts[kHeadDim] = Count(sizes.head_dim);
  counts[kValueDim] = Count(sizes.value_dim);
  if (terms != Terms::kAll) {
    for (Factor f : {kMask, kBias, kSoftCap, kDropout}) counts[f] = 1;
    counts[kKeyMask] = 1 + static_cast<int>(KeyMask::kPrefix);
  }
  if (terms == Terms::kNone)
    for (Factor f : {kKeyMask, kQueryMask, kLengths, kCausal, kWindow, kPacked})
      counts[f] = 1;
  PairwiseArray array(counts, Together);
  for (const Levels& row : array.Rows())
    cases->push_back(FromLevels(sizes, row, static_cast<int>(cases->size())));
  return array.pairs();
}

std::string Case::Name() const {
  char text[400];
  std::snprintf(
      text, sizeof(text),
      "case %d: dtype %d, B %d, T %d, S %d, N %d, K %d, H %d, V %d, mask %d, "
      "key_mask %d, query_mask %d, lengths %d, bias %d, causal %d, window %d, "
      "scale %d, soft cap %d, dropout %d, packed %d, layout %d, "
      "grad_logsumexp %d, all outputs %d, pattern %d, numbers %d, one batch %d"
      "%d%d%d, summed %d, finite %d",
      number, static_cast<int>(dtype), static_cast<int>(shape.batch),
      static_cast<int>(shape.query_len), static_cast<int>(shape.key_len),
      static_cast<int>(shape.num_heads), static_cast<int>(shape.num_kv_heads),
      static_cast<int>(shape.head_dim), static_cast<int>(shape.value_dim),
      static_cast<int>(mask), static_cast<int>(key_mask), query_mask,
      static_cast<int>(lengths), static_cast<int>(bias), is_causal,
      static_cast<int>(window), static_cast<int>(scale), soft_cap, dropout,
      static_cast<int>(packed), static_cast<int>(layout), grad_logsumexp,
      all_outputs, static_cast<int>(pattern), static_cast<int>(numbers),
      one_query, one_key, one_value, one_mask, summed_grads, finite_logsumexp);
  return text;
}

}  // namespace hw3tf
