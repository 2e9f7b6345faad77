// The backward pass of the plain form, plain.h, and of float64. P are the
// weights of the softmax, Z the factors of dropout, and D = sum of output *
// grad_output:
//
//   grad_value = (P * Z)^T grad_output
//   dP = Z * (grad_output value^T),   dS = P * (dP - D + grad_logsumexp)
//   grad_bias = dS, summed over the axes that the bias does not have
//   grad_query = (dS * slope) key,    grad_key = (dS * slope)^T query

#include <limits>

#include "kernels/attention/plain.h"
#include "kernels/attention/plain_row.h"
#include "kernels/runtime/dispatch.h"

namespace hw3tf {
namespace {

template <typename T>
class BackwardPass {
 public:
  // `kernels`: compute what they can, in float64; nullptr: the plain form.
  // `own_statistics`: rows do not trust the statistics, which may be those of
  // products with other roundings.
  explicit BackwardPass(const AttentionBackwardArgs& args,
                        const AttentionKernels* kernels = nullptr,
                        bool own_statistics = false)
      : args_(args),
        kernels_(kernels),
        own_statistics_(own_statistics),
        s_(args.shape),
        options_(args.options),
        scorer_(args.options),
        sequences_(SequencesWithRows(s_, options_, /*or_keys=*/true)),
        group_(s_.num_heads / s_.num_kv_heads),
        packs_(kernels && Packs()) {}

  bool Run(int num_threads) {
    // A task is one key/value head of one sequence, or all heads that add to
    // the same elements of grad_bias: every sum has one owner and one order.
    const ScoreStrides& strides = options_.bias_strides;
    const auto batch = static_cast<int64_t>(sequences_.size());
    const int64_t sequences =
        args_.grad_bias && !strides.batch ? std::max<int64_t>(1, batch) : 1;
    const int64_t heads =
        args_.grad_bias && !strides.head ? s_.num_kv_heads : 1;
    const int64_t head_tasks = s_.num_kv_heads / heads;
    const int64_t tasks = batch / sequences * head_tasks;
    const int threads =
        PlainThreads(s_, num_threads, tasks, kernels_ != nullptr);
    const int64_t doubles = 2 * s_.head_dim + s_.value_dim +
                            s_.key_len * (s_.head_dim + s_.value_dim) *
                                (kOwnSums ? 1
                                 : packs_ ? 2
                                          : 0) +
                            (kernels_ ? kernels_->float64_scratch(s_) : 0);
    const auto numbers = Allocate<double>(threads * doubles);
    if (!numbers || !StartGradBias()) return false;
    constexpr uint32_t kPaths = kPlainBackwardPath;
    ParallelFor(tasks, threads, kPaths, [&](int64_t task, int worker) {
      const int64_t b = task / head_tasks * sequences;
      const int64_t k = task % head_tasks * heads;
      for (int64_t i = 0; i < sequences; ++i)
        for (int64_t j = 0; j < heads; ++j)
          KeyValueHead(sequences_[static_cast<size_t>(b + i)], k + j,
                       numbers.get() + worker * doubles);
    });
    FinishGradBias();
    return true;
  }

 private:
  // Whether sums need memory of their own to be double.
  static constexpr bool kOwnSums = !std::is_same<T, double>::value;

  // Whether the kernels get copies of the keys, the values and their gradients.
  // Rows 4 KiB apart share the few places of one set of the first cache: 8
  // heads of 64 reached 28 GFLOP/s, 9 heads 37 (a thread of a Zen 4).
  bool Packs() const {
    constexpr int64_t kSetStride = 512, kMostDoubles = int64_t{1} << 22;
    const int64_t strides[] = {
        args_.key.strides.length, args_.value.strides.length,
        args_.grad_key.strides.length, args_.grad_value.strides.length};
    if (s_.query_len < kPlainRows ||
        s_.key_len * (s_.head_dim + s_.value_dim) > kMostDoubles)
      return false;
    for (const int64_t stride : strides)
      if (stride % kSetStride == 0) return true;
    return false;
  }

  // The gradients of one key/value head, to be added to.
  struct Sums {
    double* key;
    double* value;
    int64_t key_stride;
    int64_t value_stride;
  };

  struct Scratch {
    double* query;             // H
    double* grad_query;        // H
    double* grad_output;       // value_dim
    double* tile;              // of the kernels
    double* packed = nullptr;  // keys, then values, if they are copied
    Sums sums;
  };

  bool StartGradBias() {
    if (!args_.grad_bias) return true;
    const ScoreStrides& strides = options_.bias_strides;
    // C-contiguous, with the axes that have a stride.
    const int64_t keys = strides.key ? s_.key_len : 1;
    const int64_t queries = strides.query ? s_.query_len : 1;
    const int64_t heads = strides.head ? s_.num_heads : 1;
    const int64_t batch = strides.batch ? s_.batch : 1;
    grad_bias_strides_ = {strides.batch ? heads * queries * keys : 0,
                          strides.head ? queries * keys : 0,
                          strides.query ? keys : 0, strides.key ? 1 : 0};
    grad_bias_size_ = batch * heads * queries * keys;
    if (kOwnSums) {
      grad_bias_memory_ = Allocate<double>(grad_bias_size_);
      if (!grad_bias_memory_) return false;
      grad_bias_ = grad_bias_memory_.get();
    } else {
      grad_bias_ = static_cast<double*>(args_.grad_bias);
    }
    for (int64_t i = 0; i < grad_bias_size_; ++i) grad_bias_[i] = 0.0;
    return true;
  }

  void FinishGradBias() const {
    if (args_.grad_bias && kOwnSums)
      StoreRow(grad_bias_, grad_bias_size_,
               static_cast<RealOf<T>*>(args_.grad_bias));
  }

  void KeyValueHead(int64_t b, int64_t kv_head, double* numbers) {
    const int64_t* splits = options_.key_splits;
    const int64_t keys = KeyLength(s_, options_, b);
    Scratch scratch;
    scratch.query = numbers;
    scratch.grad_query = scratch.query + s_.head_dim;
    scratch.grad_output = scratch.grad_query + s_.head_dim;
    scratch.tile = scratch.grad_output + s_.value_dim;
    double* const rows =
        scratch.tile + (kernels_ ? kernels_->float64_scratch(s_) : 0);
    Sums& sums = scratch.sums;
    T* const grad_key = RowOf<T>(args_.grad_key, splits, b, 0, kv_head);
    T* const grad_value = RowOf<T>(args_.grad_value, splits, b, 0, kv_head);
    if constexpr (kOwnSums) {
      sums = SumsAt(rows);
    } else if (packs_) {
      sums = SumsAt(rows);
      scratch.packed = rows + s_.key_len * (s_.head_dim + s_.value_dim);
    } else {
      sums = {grad_key, grad_value, args_.grad_key.strides.length,
              args_.grad_value.strides.length};
    }
    bool done = false;
    if constexpr (!kOwnSums)
      done = kernels_ && AddTiles(b, kv_head, keys, scratch);
    if (!done) AddRows(b, kv_head, keys, scratch);
    for (int64_t s = 0; s < keys && (kOwnSums || packs_); ++s) {
      StoreRow(sums.key + s * sums.key_stride, s_.head_dim,
               grad_key + s * args_.grad_key.strides.length);
      StoreRow(sums.value + s * sums.value_stride, s_.value_dim,
               grad_value + s * args_.grad_value.strides.length);
    }
  }

  // Sums of their own, one row after the other.
  Sums SumsAt(double* rows) const {
    return {rows, rows + s_.key_len * s_.head_dim, s_.head_dim, s_.value_dim};
  }

  // Copies the keys and values of a head to `rows`.
  void Pack(int64_t b, int64_t kv_head, int64_t keys, double* rows) const {
    const int64_t* splits = options_.key_splits;
    double* const values = rows + s_.key_len * s_.head_dim;
    for (int64_t s = 0; s < keys; ++s) {
      LoadRow(RowOf<T>(args_.key, splits, b, s, kv_head), s_.head_dim,
              rows + s * s_.head_dim);
      LoadRow(RowOf<T>(args_.value, splits, b, s, kv_head), s_.value_dim,
              values + s * s_.value_dim);
    }
  }

  static void Clear(const Sums& sums, int64_t keys, int64_t key_size,
                    int64_t value_size) {
    for (int64_t s = 0; s < keys; ++s) {
      for (int64_t h = 0; h < key_size; ++h)
        sums.key[s * sums.key_stride + h] = 0.0;
      for (int64_t v = 0; v < value_size; ++v)
        sums.value[s * sums.value_stride + v] = 0.0;
    }
  }

  void AddRows(int64_t b, int64_t kv_head, int64_t keys,
               const Scratch& scratch) {
    Clear(scratch.sums, keys, s_.head_dim, s_.value_dim);
    const int64_t queries = QueryLength(s_, options_, b);
    for (int64_t n = kv_head * group_; n < (kv_head + 1) * group_; ++n)
      for (int64_t t = 0; t < queries; ++t) Row(b, n, t, scratch);
  }

  // AddRows by the kernels. Returns false if a gradient is not finite: then all
  // of them are to be computed in the plain form.
  bool AddTiles(int64_t b, int64_t kv_head, int64_t keys,
                const Scratch& scratch) {
    const Sums& sums = scratch.sums;
    if (scratch.packed) Pack(b, kv_head, keys, scratch.packed);
    Clear(sums, keys, s_.head_dim, s_.value_dim);
    const int64_t queries = QueryLength(s_, options_, b);
    const int64_t rows = Hooked(test_hooks.plain_rows, kPlainRows);
    bool finite = true;
    for (int64_t n = kv_head * group_; n < (kv_head + 1) * group_; ++n)
      for (int64_t t = 0; t < queries && finite; t += rows)
        ForTilesAndRows(
            t, t + rows < queries ? t + rows : queries,
            kernels_->float64_queries,
            [&](int64_t first, int64_t count) {
              finite = finite && AddTile(b, n, first, count, scratch);
            },
            [&](int64_t query) { Row(b, n, query, scratch); });
    if (!finite) return false;
    for (int64_t s = 0; s < keys; ++s)
      if (!IsFinite(sums.key + s * sums.key_stride, s_.head_dim) ||
          !IsFinite(sums.value + s * sums.value_stride, s_.value_dim))
        return false;
    return true;
  }

  static bool IsFinite(const double* row, int64_t size) {
    for (int64_t i = 0; i < size; ++i)
      if (!std::isfinite(row[i])) return false;
    return true;
  }

  bool AddTile(int64_t b, int64_t n, int64_t t, int64_t count,
               const Scratch& scratch) {
    const int64_t* splits = options_.query_splits;
    Float64Tile tile = Float64TileAt(args_, b, n, t, count);
    if (scratch.packed) {
      tile.key = scratch.packed;
      tile.key_stride = s_.head_dim;
      tile.value = scratch.packed + s_.key_len * s_.head_dim;
      tile.value_stride = s_.value_dim;
    }
    Float64Gradients grads{};
    grads.output = RowOf<double>(args_.grad_output, splits, b, t, n);
    grads.output_stride = args_.grad_output.strides.length;
    grads.query = RowOf<double>(args_.grad_query, splits, b, t, n);
    grads.query_stride = args_.grad_query.strides.length;
    grads.key = scratch.sums.key;
    grads.key_stride = scratch.sums.key_stride;
    grads.value = scratch.sums.value;
    grads.value_stride = scratch.sums.value_stride;
    bool sees_nothing[kMaxFloat64Queries];
    for (int64_t i = 0; i < kMaxFloat64Queries; ++i) tile.sum[i] = 1.0;
    for (int64_t i = 0; i < count; ++i) {
      const Query query =
          QueryOf(b, n, t + i, grads.output + i * grads.output_stride);
      sees_nothing[i] = query.sum == static_cast<double>(kSumOfNothing);
      if (sees_nothing[i]) {
        tile.reach[i] = {0, 0};
        continue;
      }
      tile.top[i] = query.top;
      tile.sum[i] = query.sum;
      grads.shift[i] = query.shift;
    }
    kernels_->backward_float64(s_, options_, tile, grads, scratch.tile);
    for (int64_t i = 0; i < count; ++i)
      if (sees_nothing[i])
        Row(b, n, t + i, scratch);
      else if (!IsFinite(grads.query + i * grads.query_stride, s_.head_dim))
        return false;
    return true;
  }

  // A query of one head and what its keys have in common.
  struct Query {
    int64_t b, n, t, kv_head;
    double top, sum;
    double shift;  // grad_logsumexp - D
  };

  Query QueryOf(int64_t b, int64_t n, int64_t t, const double* grad_output) {
    const int64_t row = RowIndex(s_, options_, b, n, t);
    const auto* statistics =
        static_cast<const RealOf<T>*>(args_.statistics) + 2 * row;
    const T* output = RowOf<T>(args_.output, options_.query_splits, b, t, n);
    Query query{b,
                n,
                t,
                n / group_,
                Load(statistics[0]),
                Load(statistics[1]),
                -Dot(grad_output, output, s_.value_dim)};
    if (args_.grad_logsumexp)
      query.shift +=
          Load(static_cast<const RealOf<T>*>(args_.grad_logsumexp)[row]);
    return query;
  }

  void Row(int64_t b, int64_t n, int64_t t, const Scratch& scratch) {
    const int64_t* splits = options_.query_splits;
    LoadRow(RowOf<T>(args_.query, splits, b, t, n), s_.head_dim, scratch.query);
    LoadRow(RowOf<T>(args_.grad_output, splits, b, t, n), s_.value_dim,
            scratch.grad_output);
    for (int64_t h = 0; h < s_.head_dim; ++h) scratch.grad_query[h] = 0.0;
    Query query = QueryOf(b, n, t, scratch.grad_output);
    const Reach reach = ReachOf(s_, options_, b, t);
    if (own_statistics_) SetStatistics(reach, scratch.query, &query);
    bool sees_nothing = true;
    for (int64_t s = reach.begin; s < reach.end; ++s) {
      if (!MasksAllow(options_, b, n, t, s)) continue;
      sees_nothing = false;
      Pair(query, s, scratch);
    }
    const int64_t keys = KeyLength(s_, options_, b);
    for (int64_t s = 0; s < keys && sees_nothing; ++s)
      AddScaled(1.0 / static_cast<double>(keys), scratch.grad_output,
                s_.value_dim,
                scratch.sums.value + s * scratch.sums.value_stride);
    StoreRow(scratch.grad_query, s_.head_dim,
             RowOf<T>(args_.grad_query, splits, b, t, n));
  }

  // The statistics of the products as Pair computes them.
  void SetStatistics(const Reach& reach, const double* row,
                     Query* query) const {
    const auto over_values = [&](const auto& use) {
      for (int64_t s = reach.begin; s < reach.end; ++s) {
        if (!MasksAllow(options_, query->b, query->n, query->t, s)) continue;
        const T* key = RowOf<T>(args_.key, options_.key_splits, query->b, s,
                                query->kv_head);
        const double dot = Dot(row, key, s_.head_dim);
        use(scorer_.Of(dot, query->b, query->n, query->t, s).value);
      }
    };
    double top = -std::numeric_limits<double>::infinity(), sum = 0.0;
    over_values([&](double value) { top = value > top ? value : top; });
    over_values([&](double value) {
      sum += std::exp(scorer_.factor() * (value - top));
    });
    query->top = top;
    query->sum = sum;
  }

  // Adds the contribution of a query and a key that it sees to the gradients.
  void Pair(const Query& query, int64_t s, const Scratch& scratch) {
    const auto [b, n, t, kv_head, top, sum, shift] = query;
    const T* key = RowOf<T>(args_.key, options_.key_splits, b, s, kv_head);
    const T* value = RowOf<T>(args_.value, options_.key_splits, b, s, kv_head);
    const Score score =
        scorer_.Of(Dot(scratch.query, key, s_.head_dim), b, n, t, s);
    const double weight =
        std::exp(scorer_.factor() * (score.value - top)) / sum;
    const double dropout = scorer_.Dropout(b, n, t, s);
    // What is dropped is 0, NaN or not.
    const bool kept = dropout != 0.0;
    const double grad_weight =
        kept ? dropout * Dot(scratch.grad_output, value, s_.value_dim) : 0.0;
    const double grad_score = weight * (grad_weight + shift);
    if (grad_bias_)
      grad_bias_[ScoreOffset(grad_bias_strides_, b, n, t, s)] += grad_score;
    AddScaled(kept ? weight * dropout : 0.0, scratch.grad_output, s_.value_dim,
              scratch.sums.value + s * scratch.sums.value_stride);
    AddScaled(grad_score * score.slope, key, s_.head_dim, scratch.grad_query);
    AddScaled(grad_score * score.slope, scratch.query, s_.head_dim,
              scratch.sums.key + s * scratch.sums.key_stride);
  }

  const AttentionBackwardArgs& args_;
  const AttentionKernels* const kernels_;
  const bool own_statistics_;
  const AttentionShape& s_;
  const AttentionOptions& options_;
  const Scorer<T> scorer_;
  const std::vector<int64_t> sequences_;
  const int64_t group_;
  const bool packs_;
  std::unique_ptr<double[]> grad_bias_memory_;
  double* grad_bias_ = nullptr;
  int64_t grad_bias_size_ = 0;
  ScoreStrides grad_bias_strides_ = {0, 0, 0, 0};
};

}  // namespace

bool AttentionBackwardFloat64(const AttentionBackwardArgs& args,
                              int num_threads) {
  const bool plain =
      args.options.soft_cap > 0 || args.options.scale == 0 || args.grad_bias;
  return BackwardPass<double>(
             args, plain ? nullptr : ChosenInstructionSet().attention,
             /*own_statistics=*/true)
      .Run(num_threads);
}

bool AttentionBackwardPlain(const AttentionBackwardArgs& args,
                            int num_threads) {
  switch (args.dtype) {
    case DType::kFloat32:
      return BackwardPass<float>(args).Run(num_threads);
    case DType::kBfloat16:
      return BackwardPass<Bfloat16>(args).Run(num_threads);
    case DType::kFloat16:
      return BackwardPass<Float16>(args).Run(num_threads);
    case DType::kFloat64:
      return BackwardPass<double>(args).Run(num_threads);
  }
  return false;
}

}  // namespace hw3tf
