// The arguments and results of a case.

#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention/attention.h"
#include "tests/attention/arrays.h"
#include "tests/attention/case.h"
#include "tests/check.h"

namespace hw3tf {

// Where NaN is put into the inputs.
enum class Poison {
  kNone,
  // Wherever no result may depend on it; infinity, too.
  kHidden,
  kKey,
  kValue,
  kQuery,
  kGradOutput,
  kBias,
  kCount,
  // Infinity in a value that queries may see: what comes of it is not judged.
  kInfinity = kCount
};

// Equal for every type that the elements are kept in: they are rounded to that
// of the case. So float64 gives the same inputs to a judge.
class Inputs {
 public:
  Inputs(const Case& a_case, DType stored, Poison put);

  std::string Name() const;

  // As attention.h says it, option by option.
  bool Sees(int64_t b, int64_t n, int64_t t, int64_t s) const;
  bool SeesAny(int64_t b, int64_t n, int64_t t) const;
  // Whether a query of the heads that share this key/value head sees key s, or
  // one of them sees nothing.
  bool IsSeen(int64_t b, int64_t kv_head, int64_t s) const;
  bool HasBlind(int64_t b, int64_t kv_head) const;

  int64_t QueryLen(int64_t b) const;
  int64_t KeyLen(int64_t b) const;
  // The row in Rows, and the places in logsumexp, bias and grad_bias.
  int64_t QueryRow(int64_t b, int64_t t) const;
  int64_t KeyRow(int64_t b, int64_t s) const;
  int64_t LogsumexpIndex(int64_t b, int64_t n, int64_t t) const;
  int64_t BiasIndex(int64_t b, int64_t n, int64_t t, int64_t s) const;
  int64_t GradBiasIndex(int64_t b, int64_t n, int64_t t, int64_t s) const;
  int64_t LogsumexpCount() const;

  // Arrays of one case differ in layout, but each meets all of them.
  Layout LayoutOf(int which) const;

  const Case c;
  const DType dtype;
  const Poison poison;
  const AttentionShape shape;
  const Guard guard;
  AttentionOptions options;

 private:
  // An array over the scores.
  struct ScoreArray {
    int64_t count;
    ScoreStrides strides;
  };
  ScoreArray MaskArray() const;
  ScoreArray BiasArray() const;
  ScoreArray Broadcast(bool b, bool n, bool t, bool s) const;
  std::vector<int64_t> Starts(int64_t longest, bool keys);
  RowsShape ShapeOf(const std::vector<int64_t>& starts, int64_t length,
                    int64_t heads, int64_t size, bool one_batch = false) const;

  void SetOptions();
  void FillMasks();
  void FillPattern();
  void FillBias();
  void FillRows(Rows* rows);
  void KeepOneFinite();
  void Put();
  void PutHidden();
  void PutHiddenBias();
  void Seal() const;
  double Normal(DType rounded_to);
  double Number(double equal);

  std::mt19937_64 random_;
  std::normal_distribution<double> normal_;
  // The splits, empty if sequences are not packed. Before the rows, whose
  // shapes follow from them.
  std::vector<int64_t> query_starts_, key_starts_;

 public:
  Rows query, key, value, grad_output;
  Elements bias, grad_logsumexp;

 private:
  GuardedArray<uint8_t> mask_, query_mask_, key_mask_;
  GuardedArray<int32_t> query_lengths_, key_lengths_;
  GuardedArray<int64_t> query_splits_, key_splits_;
};

}  // namespace hw3tf
