// The forward pass of the plain form, plain.h, and of float64.

#include "kernels/attention/plain.h"

#include <limits>

#include "kernels/attention/plain_row.h"
#include "kernels/runtime/dispatch.h"

namespace hw3tf {
namespace {

template <typename T>
class ForwardPass {
 public:
  // `kernels`: compute what they can, in float64; nullptr: the plain form.
  explicit ForwardPass(const AttentionForwardArgs& args,
                       const AttentionKernels* kernels = nullptr)
      : args_(args),
        kernels_(kernels),
        s_(args.shape),
        options_(args.options),
        scorer_(args.options),
        sequences_(SequencesWithRows(s_, options_, /*or_keys=*/false)),
        rows_(Hooked(test_hooks.plain_rows, kPlainRows)),
        blocks_((s_.query_len + rows_ - 1) / rows_) {}

  bool Run(int num_threads) const {
    const int64_t tasks =
        static_cast<int64_t>(sequences_.size()) * s_.num_heads * blocks_;
    const int threads =
        PlainThreads(s_, num_threads, tasks, kernels_ != nullptr);
    const int64_t doubles = s_.head_dim + s_.value_dim + s_.key_len +
                            (kernels_ ? kernels_->float64_scratch(s_) : 0);
    const auto numbers = Allocate<double>(threads * doubles);
    const auto keys = Allocate<int64_t>(threads * s_.key_len);
    if (!numbers || !keys) return false;
    constexpr uint32_t kPaths = kPlainForwardPath;
    ParallelFor(tasks, threads, kPaths, [&](int64_t task, int worker) {
      const Scratch scratch(s_, numbers.get() + worker * doubles,
                            keys.get() + worker * s_.key_len);
      const int64_t b =
          sequences_[static_cast<size_t>(task / blocks_ / s_.num_heads)];
      const int64_t n = task / blocks_ % s_.num_heads;
      const int64_t first = task % blocks_ * rows_;
      const int64_t length = QueryLength(s_, options_, b);
      const int64_t end = first + rows_ < length ? first + rows_ : length;
      const auto row = [&](int64_t t) { Row(b, n, t, scratch); };
      if constexpr (std::is_same<T, double>::value) {
        if (kernels_) {
          const auto tile = [&](int64_t t, int64_t count) {
            Tile(b, n, t, count, scratch);
          };
          ForTilesAndRows(first, end, kernels_->float64_queries, tile, row);
          return;
        }
      }
      for (int64_t t = first; t < end; ++t) row(t);
    });
    return true;
  }

 private:
  struct Scratch {
    Scratch(const AttentionShape& shape, double* numbers, int64_t* integers)
        : query(numbers),
          output(query + shape.head_dim),
          weights(output + shape.value_dim),
          tile(weights + shape.key_len),
          keys(integers) {}
    double* query;    // H
    double* output;   // value_dim
    double* weights;  // S: of the visible keys
    double* tile;     // of the kernels
    int64_t* keys;    // S: which these are
  };

  // Queries t to t + count - 1.
  void Tile(int64_t b, int64_t n, int64_t t, int64_t count,
            const Scratch& scratch) const {
    Float64Tile tile = Float64TileAt(args_, b, n, t, count);
    tile.output = RowOf<T>(args_.output, options_.query_splits, b, t, n);
    tile.output_stride = args_.output.strides.length;
    const uint32_t done =
        kernels_->forward_float64(s_, options_, tile, scratch.tile);
    for (int64_t i = 0; i < count; ++i) {
      if (!(done >> i & 1)) Row(b, n, t + i, scratch);
      // Also where the output alone was not finite: the backward pass computes
      // the same products.
      if (std::isfinite(tile.top[i]) && std::isfinite(tile.sum[i]) &&
          tile.sum[i] > 0)
        StoreStatistics(b, n, t + i, tile.top[i], tile.sum[i],
                        scorer_.factor() * tile.top[i] + std::log(tile.sum[i]));
    }
  }

  bool IsFinite(const double* output) const {
    for (int64_t v = 0; v < s_.value_dim; ++v)
      if (!std::isfinite(output[v])) return false;
    return true;
  }

  int64_t VisibleKeys(int64_t b, int64_t n, int64_t t, int64_t* keys) const {
    const Reach reach = ReachOf(s_, options_, b, t);
    int64_t count = 0;
    for (int64_t s = reach.begin; s < reach.end; ++s)
      if (MasksAllow(options_, b, n, t, s)) keys[count++] = s;
    return count;
  }

  void Row(int64_t b, int64_t n, int64_t t, const Scratch& scratch) const {
    const int64_t kv_head = n / (s_.num_heads / s_.num_kv_heads);
    for (int64_t v = 0; v < s_.value_dim; ++v) scratch.output[v] = 0.0;
    const int64_t count = VisibleKeys(b, n, t, scratch.keys);
    if (count == 0)
      MeanOfValues(b, n, t, kv_head, scratch);
    else
      WeightedMean(b, n, t, kv_head, count, scratch);
    StoreRow(scratch.output, s_.value_dim,
             RowOf<T>(args_.output, options_.query_splits, b, t, n));
  }

  void MeanOfValues(int64_t b, int64_t n, int64_t t, int64_t kv_head,
                    const Scratch& scratch) const {
    const int64_t length = KeyLength(s_, options_, b);
    for (int64_t s = 0; s < length; ++s)
      AddScaled(1.0, RowOf<T>(args_.value, options_.key_splits, b, s, kv_head),
                s_.value_dim, scratch.output);
    const auto count = static_cast<double>(length);
    const bool finite = IsFinite(scratch.output);
    for (int64_t v = 0; v < s_.value_dim && length > 0; ++v)
      scratch.output[v] = finite ? scratch.output[v] / count : 0.0;
    for (int64_t s = 0; s < length && !finite; ++s)
      AddScaled(1.0 / count,
                RowOf<T>(args_.value, options_.key_splits, b, s, kv_head),
                s_.value_dim, scratch.output);
    using Limits = std::numeric_limits<RealOf<T>>;
    StoreStatistics(
        b, n, t, 0.0, static_cast<double>(kSumOfNothing),
        static_cast<double>(args_.finite_logsumexp ? Limits::lowest()
                                                   : -Limits::infinity()));
  }

  void WeightedMean(int64_t b, int64_t n, int64_t t, int64_t kv_head,
                    int64_t count, const Scratch& scratch) const {
    LoadRow(RowOf<T>(args_.query, options_.query_splits, b, t, n), s_.head_dim,
            scratch.query);
    double top = -std::numeric_limits<double>::infinity();
    for (int64_t i = 0; i < count; ++i) {
      const int64_t s = scratch.keys[i];
      const T* key = RowOf<T>(args_.key, options_.key_splits, b, s, kv_head);
      const double dot = Dot(scratch.query, key, s_.head_dim);
      const double value = scorer_.Of(dot, b, n, t, s).value;
      scratch.weights[i] = value;
      // A NaN is left out here and comes back with its exponential.
      if (value > top) top = value;
    }
    // Rounded before it is used, so that the sum belongs to what is stored.
    top = static_cast<double>(static_cast<RealOf<T>>(top));
    double sum = 0.0;
    const auto add_value = [&](int64_t i, double weight) {
      const int64_t s = scratch.keys[i];
      const double dropout = scorer_.Dropout(b, n, t, s);
      AddScaled(dropout != 0.0 ? weight * dropout : 0.0,
                RowOf<T>(args_.value, options_.key_splits, b, s, kv_head),
                s_.value_dim, scratch.output);
    };
    for (int64_t i = 0; i < count; ++i) {
      const double weight =
          std::exp(scorer_.factor() * (scratch.weights[i] - top));
      scratch.weights[i] = weight;
      sum += weight;
      add_value(i, weight);
    }
    // Weights of at most 1 for values that are too large to be added up.
    const bool finite =
        IsFinite(scratch.output) || !std::isfinite(sum) || !(sum > 0);
    for (int64_t v = 0; v < s_.value_dim; ++v)
      scratch.output[v] = finite ? scratch.output[v] / sum : 0.0;
    for (int64_t i = 0; i < count && !finite; ++i)
      add_value(i, scratch.weights[i] / sum);
    StoreStatistics(b, n, t, top, sum, scorer_.factor() * top + std::log(sum));
  }

  void StoreStatistics(int64_t b, int64_t n, int64_t t, double top, double sum,
                       double logsumexp) const {
    const int64_t row = RowIndex(s_, options_, b, n, t);
    auto* statistics = static_cast<RealOf<T>*>(args_.statistics) + 2 * row;
    Store(top, statistics);
    Store(sum, statistics + 1);
    if (args_.logsumexp)
      Store(logsumexp, static_cast<RealOf<T>*>(args_.logsumexp) + row);
  }

  const AttentionForwardArgs& args_;
  const AttentionKernels* const kernels_;
  const AttentionShape& s_;
  const AttentionOptions& options_;
  const Scorer<T> scorer_;
  const std::vector<int64_t> sequences_;
  const int64_t rows_;
  const int64_t blocks_;
};

}  // namespace

bool AttentionForwardFloat64(const AttentionForwardArgs& args,
                             int num_threads) {
  const bool plain = args.options.soft_cap > 0 || args.options.scale == 0;
  return ForwardPass<double>(args,
                             plain ? nullptr : ChosenInstructionSet().attention)
      .Run(num_threads);
}

bool AttentionForwardPlain(const AttentionForwardArgs& args, int num_threads) {
  switch (args.dtype) {
    case DType::kFloat32:
      return ForwardPass<float>(args).Run(num_threads);
    case DType::kBfloat16:
      return ForwardPass<Bfloat16>(args).Run(num_threads);
    case DType::kFloat16:
      return ForwardPass<Float16>(args).Run(num_threads);
    case DType::kFloat64:
      return ForwardPass<double>(args).Run(num_threads);
  }
  return false;
}

}  // namespace hw3tf
