// Parts that forward and backward of plain.h share: rows of elements,
// the score of one query and key, memory and threads.

#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/attention/dropout.h"
#include "kernels/attention/kernel_table.h"
#include "kernels/attention/visibility.h"
#include "kernels/runtime/parallel.h"
#include "kernels/runtime/test_hooks.h"
#include "kernels/vector/element.h"

namespace hw3tf {

// The batch entries with queries, or, if `or_keys`, with queries or keys.
static inline std::vector<int64_t> SequencesWithRows(
    const AttentionShape& shape, const AttentionOptions& options,
    bool or_keys) {
  std::vector<int64_t> sequences;
  for (int64_t b = 0; b < shape.batch; ++b)
    if (QueryLength(shape, options, b) > 0 ||
        (or_keys && KeyLength(shape, options, b) > 0))
      sequences.push_back(b);
  return sequences;
}

// Row i of one head of sequence b.
template <typename T>
const T* RowOf(const ConstArray& array, const int64_t* splits, int64_t b,
               int64_t i, int64_t head) {
  return static_cast<const T*>(array.data) +
         SequenceOffset(array.strides, splits, b) + i * array.strides.length +
         head * array.strides.head;
}

template <typename T>
T* RowOf(const MutableArray& array, const int64_t* splits, int64_t b, int64_t i,
         int64_t head) {
  return static_cast<T*>(array.data) +
         SequenceOffset(array.strides, splits, b) + i * array.strides.length +
         head * array.strides.head;
}

template <typename T>
void LoadRow(const T* row, int64_t size, double* out) {
  for (int64_t i = 0; i < size; ++i) out[i] = Load(row[i]);
}

template <typename T>
void StoreRow(const double* values, int64_t size, T* row) {
  for (int64_t i = 0; i < size; ++i) Store(values[i], row + i);
}

// Eight sums side by side: the compiler may not reorder one.
template <typename T>
double Dot(const double* a, const T* b, int64_t size) {
  constexpr int kLanes = 8;
  double sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane)
      sums[lane] += a[i + lane] * Load(b[i + lane]);
  for (int lane = 0; i < size; ++i, ++lane) sums[lane] += a[i] * Load(b[i]);
  return ((sums[0] + sums[4]) + (sums[1] + sums[5])) +
         ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

template <typename T>
void AddScaled(double factor, const T* row, int64_t size, double* sum) {
  for (int64_t i = 0; i < size; ++i) sum[i] += factor * Load(row[i]);
}

// The weight of a key is exp(factor() * (Score::value - m)) / sum.
struct Score {
  double value;
  double slope;  // of factor() * value with respect to query . key
};

template <typename T>
class Scorer {
 public:
  explicit Scorer(const AttentionOptions& options)
      : options_(options),
        bare_(!options.bias && options.soft_cap <= 0.0),
        sign_(options.scale < 0.0 ? -1.0 : 1.0),
        threshold_(DropoutThreshold(options.dropout_rate)) {}

  // With neither soft cap nor bias, values are taken before the scale.
  double factor() const { return bare_ ? std::fabs(options_.scale) : 1.0; }

  Score Of(double dot, int64_t b, int64_t n, int64_t t, int64_t s) const {
    if (bare_) return {sign_ * dot, options_.scale};
    Score score{options_.scale * dot, options_.scale};
    if (options_.soft_cap > 0.0) {
      const double tanh = std::tanh(score.value / options_.soft_cap);
      score.value = options_.soft_cap * tanh;
      score.slope *= 1.0 - tanh * tanh;
    }
    if (options_.bias)
      score.value += Load(static_cast<const RealOf<T>*>(
          options_.bias)[ScoreOffset(options_.bias_strides, b, n, t, s)]);
    return score;
  }

  // The factor by which dropout multiplies a weight.
  double Dropout(int64_t b, int64_t n, int64_t t, int64_t s) const {
    if (options_.dropout_rate <= 0.0) return 1.0;
    return DropoutKeeps(threshold_, options_.dropout_seed, b, n, t, s)
               ? 1.0 / (1.0 - options_.dropout_rate)
               : 0.0;
  }

 private:
  const AttentionOptions& options_;
  const bool bare_;
  const double sign_;
  const uint32_t threshold_;
};

// Queries of one head that are one task of the forward pass.
constexpr int64_t kPlainRows = 16;

// Fewer queries than this go row by row: a tile takes the time of all its
// lanes.
constexpr int64_t kFewQueries = 3;

// Queries t to t + count - 1 of a head, but for their outputs and statistics.
template <typename Args>
Float64Tile Float64TileAt(const Args& args, int64_t b, int64_t n, int64_t t,
                          int64_t count) {
  const AttentionOptions& options = args.options;
  const int64_t kv_head = n / (args.shape.num_heads / args.shape.num_kv_heads);
  Float64Tile tile{};
  tile.b = b;
  tile.head = n;
  tile.first = t;
  tile.count = count;
  for (int64_t i = 0; i < count; ++i)
    tile.reach[i] = ReachOf(args.shape, options, b, t + i);
  tile.query = RowOf<double>(args.query, options.query_splits, b, t, n);
  tile.key = RowOf<double>(args.key, options.key_splits, b, 0, kv_head);
  tile.value = RowOf<double>(args.value, options.key_splits, b, 0, kv_head);
  tile.query_stride = args.query.strides.length;
  tile.key_stride = args.key.strides.length;
  tile.value_stride = args.value.strides.length;
  return tile;
}

// Calls `tile(t, count)` or `row(t)` for all queries of a block [t, end): the
// forward pass and the backward pass must agree on which is which, because
// their products differ in rounding, and statistics are right only for the same
// ones.
template <typename Tile, typename Row>
void ForTilesAndRows(int64_t t, int64_t end, int64_t most, const Tile& tile,
                     const Row& row) {
  while (end - t >= kFewQueries) {
    const int64_t count = end - t < most ? end - t : most;
    tile(t, count);
    t += count;
  }
  for (; t < end; ++t) row(t);
}

// nullptr if there is no memory.
template <typename T>
std::unique_ptr<T[]> Allocate(int64_t count) {
  return std::unique_ptr<T[]>(new (std::nothrow) T[static_cast<size_t>(count)]);
}

// As in attention.cc: below about 100 us of work a second core is not worth its
// waking, 1e5 products at the 1e9 a second that the plain form reaches, or 2e6
// at the 2e10 of the float64 kernels.
static inline int PlainThreads(const AttentionShape& shape, int requested,
                               int64_t tasks, bool kernels) {
  const double products = static_cast<double>(shape.batch * shape.num_heads) *
                          static_cast<double>(shape.query_len) *
                          static_cast<double>(shape.key_len) *
                          static_cast<double>(shape.head_dim + shape.value_dim);
  const double enough = kernels ? 2e6 : 1e5;
  if (products < enough && !test_hooks.always_threads) return 1;
  const int threads = ResolveNumThreads(requested);
  return tasks < threads ? static_cast<int>(tasks) : threads;
}

}  // namespace hw3tf
