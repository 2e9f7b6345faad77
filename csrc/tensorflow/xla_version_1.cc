// The headers of custom calls as version 1 had them.

#include "tensorflow/xla_target.h"

namespace hw3tf {
namespace {

// Ranks and sizes, which have not changed.
void AddSizes(const int64_t* ranks, int64_t operands,
              std::vector<int64_t>* header) {
  const int64_t* end = ranks + operands;
  for (int64_t i = 0; i < operands; ++i)
    if (ranks[i] > 0) end += ranks[i];
  header->insert(header->end(), ranks, end);
}

std::vector<int64_t> AttentionHeader(const int64_t* header, int64_t operands) {
  enum { kDType, kFlags, kBefore, kAfter, kThreads, kScale, kSoftCap, kRate };
  constexpr int64_t kTypes[] = {0, 3, 2, 1};  // bfloat16 came second
  const int64_t type = kTypes[header[kDType]];
  const bool is_gradient = operands > 11;
  std::vector<int64_t> words{
      is_gradient ? 6 : 7, operands,       type,
      type == 1,  // float64
      header[kThreads],    header[kScale],
      header[kFlags] & 1,  // causal
      header[kBefore],     header[kAfter], header[kSoftCap],
      header[kRate],
  };
  if (!is_gradient) words.push_back(header[kFlags] >> 1);  // finite_logsumexp
  AddSizes(header + kRate + 1, operands, &words);
  return words;
}

}  // namespace

std::vector<int64_t> AttentionHeaderOfVersion1(const int64_t* header) {
  return AttentionHeader(header, 11);
}

std::vector<int64_t> AttentionGradHeaderOfVersion1(const int64_t* header) {
  return AttentionHeader(header, 15);
}

std::vector<int64_t> IntegerRnnHeaderOfVersion1(const int64_t* header) {
  enum {
    kInput,
    kWeight,
    kState,
    kActivation,
    kLow,
    kHigh,
    kOverflow,
    kBits,
    kReverse,
    kSequences,
    kThreads,
  };
  // Types were counted from bool: int8 was 1, int32 was 4, int64 was 5.
  std::vector<int64_t> words{
      7,
      6,
      header[kState] - 4,
      header[kWeight] == 1 ? 0 : header[kWeight] - 3,
      header[kInput],
      header[kThreads],
      header[kActivation],
      header[kLow],
      header[kHigh],
      header[kReverse],
      header[kSequences],
      header[kOverflow],
      header[kBits],
  };
  AddSizes(header + kThreads + 1, 6, &words);
  return words;
}

}  // namespace hw3tf
