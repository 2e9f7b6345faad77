// The backward pass. With the weights P of the softmax, by what dropout
// multiplies them (Z), and D = sum of output * grad_output:
//
//   grad_value = (P * Z)^T grad_output
//   dP = Z * (grad_output value^T),   dS = P * (dP - D + grad_logsumexp)
//   grad_bias = dS, summed over the axes that the bias does not have
//   grad_query = (dS * slope) key,    grad_key = (dS * slope)^T query

#include "kernels/attention/plain.h"
#include "kernels/attention/plain_row.h"

namespace hw3tf {
namespace {

template <typename T>
class BackwardPass {
 public:
  explicit BackwardPass(const AttentionBackwardArgs& args)
      : args_(args),
        s_(args.shape),
        options_(args.options),
        scorer_(args.options),
        sequences_(SequencesWithRows(s_, options_, /*or_keys=*/true)),
        group_(s_.num_heads / s_.num_kv_heads) {}

  bool Run(int num_threads) {
    // A task is one key/value head of one sequence, or all that add to the same
    // elements of grad_bias: every sum has one owner and one order.
    const ScoreStrides& strides = options_.bias_strides;
    const auto batch = static_cast<int64_t>(sequences_.size());
    const int64_t sequences = args_.grad_bias && !strides.batch ? batch : 1;
    const int64_t heads =
        args_.grad_bias && !strides.head ? s_.num_kv_heads : 1;
    const int64_t head_tasks = s_.num_kv_heads / heads;
    const int64_t tasks = batch / sequences * head_tasks;
    const int threads = PlainThreads(s_, num_threads, tasks);
    const int64_t doubles =
        2 * s_.head_dim + s_.value_dim +
        (kOwnSums ? s_.key_len * (s_.head_dim + s_.value_dim) : 0);
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

  // The gradients of one key/value head, to be added to.
  struct Sums {
    double* key;
    double* value;
    int64_t key_stride;
    int64_t value_stride;
  };

  struct Scratch {
    double* query;        // H
    double* grad_query;   // H
    double* grad_output;  // value_dim
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
    Sums& sums = scratch.sums;
    T* const grad_key = RowOf<T>(args_.grad_key, splits, b, 0, kv_head);
    T* const grad_value = RowOf<T>(args_.grad_value, splits, b, 0, kv_head);
    if constexpr (kOwnSums) {
      double* const own = scratch.grad_output + s_.value_dim;
      sums = {own, own + s_.key_len * s_.head_dim, s_.head_dim, s_.value_dim};
    } else {
      sums = {grad_key, grad_value, args_.grad_key.strides.length,
              args_.grad_value.strides.length};
    }
    for (int64_t s = 0; s < keys; ++s) {
      for (int64_t h = 0; h < s_.head_dim; ++h)
        sums.key[s * sums.key_stride + h] = 0.0;
      for (int64_t v = 0; v < s_.value_dim; ++v)
        sums.value[s * sums.value_stride + v] = 0.0;
    }
    const int64_t queries = QueryLength(s_, options_, b);
    for (int64_t n = kv_head * group_; n < (kv_head + 1) * group_; ++n)
      for (int64_t t = 0; t < queries; ++t) Row(b, n, t, scratch);
    for (int64_t s = 0; s < keys && kOwnSums; ++s) {
      StoreRow(sums.key + s * sums.key_stride, s_.head_dim,
               grad_key + s * args_.grad_key.strides.length);
      StoreRow(sums.value + s * sums.value_stride, s_.value_dim,
               grad_value + s * args_.grad_value.strides.length);
    }
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
    const Query query = QueryOf(b, n, t, scratch.grad_output);
    const KeyRange reach = ReachOf(s_, options_, b, t);
    bool blind = true;
    for (int64_t s = reach.begin; s < reach.end; ++s) {
      if (!MasksAllow(options_, b, n, t, s)) continue;
      blind = false;
      Pair(query, s, scratch);
    }
    const int64_t keys = KeyLength(s_, options_, b);
    for (int64_t s = 0; s < keys && blind; ++s)
      AddScaled(1.0 / static_cast<double>(keys), scratch.grad_output,
                s_.value_dim,
                scratch.sums.value + s * scratch.sums.value_stride);
    StoreRow(scratch.grad_query, s_.head_dim,
             RowOf<T>(args_.grad_query, splits, b, t, n));
  }

  // What a query and a key that it sees add to the gradients.
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
  const AttentionShape& s_;
  const AttentionOptions& options_;
  const Scorer<T> scorer_;
  const std::vector<int64_t> sequences_;
  const int64_t group_;
  std::unique_ptr<double[]> grad_bias_memory_;
  double* grad_bias_ = nullptr;
  int64_t grad_bias_size_ = 0;
  ScoreStrides grad_bias_strides_ = {0, 0, 0, 0};
};

}  // namespace

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
