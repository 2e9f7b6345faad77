// Attention in float64: some queries of one head at a time, in the lanes of two
// vectors, with the online softmax of the other kernels.
//
// Finite results only. A query whose result is not finite, or that sees no key,
// is left to the plain form (plain.h), as are soft caps, gradients of a bias, a
// scale of 0 and fewer than kFewQueries queries. So this code need not keep a
// NaN in a masked key out of a result. On two threads of a Zen 4, B2 T512 N8
// H64, the forward pass takes 13 ms (plain: 109), forward and backward 45 ms
// (694).

#pragma once

#include "kernels/attention/dropout.h"
#include "kernels/attention/kernel_table.h"
#include "kernels/attention/visibility.h"
#include "kernels/vector/simd.h"

namespace hw3tf {
namespace {

typedef int64_t VecInt64 __attribute__((vector_size(kVecBytes)));
typedef uint64_t VecUint64 __attribute__((vector_size(kVecBytes)));
constexpr int kLanes64 = kLanes / 2;
constexpr int kQueries64 = 2 * kLanes64;
constexpr int64_t kKeys64 = 128;  // of a tile
static_assert(kQueries64 <= kMaxFloat64Queries, "of a Float64Tile");

inline VecInt64 IsFinite64(VecDouble value) { return value - value == 0.0; }

// e^x: 0 below -707, NaN above 700 and for NaN. x = n * ln(2) + r, and e^r is
// its series to the term r^13, whose rest, 4e-18, is below the rounding.
inline VecDouble Exp64(VecDouble x) {
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: no fraction
  constexpr double kLog2OfE = 1.4426950408889634;
  constexpr double kLn2High = 0.693147180369123816490;  // n times it is exact
  constexpr double kLn2Low = 1.90821492927058770002e-10;
  const VecDouble shifted = x * kLog2OfE + kRound;
  const VecDouble n = shifted - kRound;
  const VecDouble r = (x - n * kLn2High) - n * kLn2Low;
  VecDouble p = r * (1.0 / 6227020800.0) + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  // n is in the low bits of `shifted`; it is added to the exponent. Unsigned,
  // for it overflows where the result is not used.
  const VecUint64 bits = reinterpret_cast<VecUint64>(p) +
                         (reinterpret_cast<VecUint64>(shifted) << 52);
  const VecDouble power = reinterpret_cast<VecDouble>(bits);
  const VecDouble above = x < -707.0 ? VecDouble{} : power;
  return x <= 700.0 ? above : Broadcast(__builtin_nan(""));
}

// Element (row, k) of the operand that is broadcast is data[row * of_row + k *
// of_depth].
struct Broadcast64Operand {
  const double* data;
  int64_t of_row, of_depth;
};

// Row k begins at data + k * stride.
struct Vector64Operand {
  const double* data;
  int64_t stride;
};

template <bool kAdd, int R, int V>
inline void MultiplyRows64(int64_t depth, Broadcast64Operand a,
                           Vector64Operand b, double* out, int64_t out_stride) {
  VecDouble acc[R][V] = {};
  const double* scalars = a.data;
  const double* vectors = b.data;
  for (int64_t k = 0; k < depth; ++k) {
    VecDouble bv[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) bv[v] = Load(vectors + v * kLanes64);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const VecDouble scalar = Broadcast(scalars[r * a.of_row]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][v] += scalar * bv[v];
    }
    scalars += a.of_depth;
    vectors += b.stride;
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      double* const at = out + r * out_stride + v * kLanes64;
      // The sum of a tile is added as a whole: fewer roundings of a long sum.
      Store(at, kAdd ? Load(at) + acc[r][v] : acc[r][v]);
    }
}

// out[row][lanes of V vectors] = or, if kAdd, += sum over k < depth of
// a[row, k] * b[k][lanes].
template <bool kAdd, int V = 2>
inline void Multiply64(int64_t rows, int64_t depth, Broadcast64Operand a,
                       Vector64Operand b, double* out, int64_t out_stride) {
  int64_t row = 0;
  const auto at = [&] {
    return Broadcast64Operand{a.data + row * a.of_row, a.of_row, a.of_depth};
  };
  for (; row + kRows <= rows; row += kRows)
    MultiplyRows64<kAdd, kRows, V>(depth, at(), b, out + row * out_stride,
                                   out_stride);
  for (; row + 2 <= rows; row += 2)
    MultiplyRows64<kAdd, 2, V>(depth, at(), b, out + row * out_stride,
                               out_stride);
  if (row < rows)
    MultiplyRows64<kAdd, 1, V>(depth, at(), b, out + row * out_stride,
                               out_stride);
}

// out[key][i] += sum over queries of weights[key][query] * rows[query][i].
inline void AddRows64(int64_t keys, int64_t queries, const double* weights,
                      Vector64Operand rows, int64_t size, double* out,
                      int64_t out_stride) {
  const Broadcast64Operand a{weights, kQueries64, 1};
  int64_t i = 0;
  for (; i + kQueries64 <= size; i += kQueries64)
    Multiply64<true, 2>(keys, queries, a, {rows.data + i, rows.stride}, out + i,
                        out_stride);
  for (; i + kLanes64 <= size; i += kLanes64)
    Multiply64<true, 1>(keys, queries, a, {rows.data + i, rows.stride}, out + i,
                        out_stride);
  for (int64_t key = 0; key < keys && i < size; ++key)
    for (int64_t query = 0; query < queries; ++query)
      for (int64_t j = i; j < size; ++j)
        out[key * out_stride + j] += weights[key * kQueries64 + query] *
                                     rows.data[query * rows.stride + j];
}

// Rows of queries become lanes: out[i][query]. Lanes without a query are 0.
inline void Transpose64(int64_t queries, Vector64Operand rows, int64_t size,
                        double* out) {
  for (int64_t i = 0; i < size; ++i)
    for (int64_t query = 0; query < kQueries64; ++query)
      out[i * kQueries64 + query] =
          query < queries ? rows.data[query * rows.stride + i] : 0.0;
}

// The scores of a tile of queries with one key after the other.
class Scores64 {
 public:
  Scores64(const AttentionOptions& options, const Float64Tile& tile)
      : options_(options), tile_(tile), begin_all_(0), end_all_(kUnlimited) {
    // With neither bias nor soft cap, values are taken before the scale.
    product_ = options.bias ? options.scale : options.scale < 0 ? -1.0 : 1.0;
    factor_ = options.bias ? 1.0 : __builtin_fabs(options.scale);
    begin_ = kUnlimited;
    end_ = 0;
    double begin[kQueries64], end[kQueries64];
    for (int64_t i = 0; i < kQueries64; ++i) {
      const int64_t query = i < tile.count ? i : 0;
      const Reach& reach = tile.reach[query];
      begin[i] = static_cast<double>(reach.begin);
      end[i] = static_cast<double>(reach.end);
      if (reach.begin > begin_all_) begin_all_ = reach.begin;
      if (reach.end < end_all_) end_all_ = reach.end;
      if (reach.begin >= reach.end) continue;
      if (reach.begin < begin_) begin_ = reach.begin;
      if (reach.end > end_) end_ = reach.end;
    }
    for (int v = 0; v < 2; ++v) {
      begins_[v] = Load(begin + v * kLanes64);
      ends_[v] = Load(end + v * kLanes64);
    }
  }

  // No query sees a key outside of these.
  int64_t begin() const { return begin_; }
  int64_t end() const { return end_; }

  // A weight is e^(factor() * (value - maximum)) / sum.
  double factor() const { return factor_; }

  // Turns products with key s into values. Returns whether all queries see it;
  // otherwise, `visible` says which do.
  bool Of(int64_t s, VecDouble (&values)[2], VecInt64 (&visible)[2]) const {
    for (VecDouble& x : values) x *= product_;
    if (options_.bias) AddBias(s, values);
    if (s >= begin_all_ && s < end_all_ && !options_.key_mask && !options_.mask)
      return true;
    const VecDouble at = Broadcast(static_cast<double>(s));
    for (int v = 0; v < 2; ++v)
      visible[v] = (at >= begins_[v]) & (at < ends_[v]);
    // A mask that all queries share is read once.
    const bool differ = options_.mask && options_.mask_strides.query != 0;
    for (int64_t i = 0; i < (differ ? tile_.count : 1); ++i) {
      if (MasksAllow(options_, tile_.b, tile_.head, tile_.first + i, s))
        continue;
      if (differ)
        visible[i / kLanes64][i % kLanes64] = 0;
      else
        visible[0] = visible[1] = VecInt64{};
    }
    return false;
  }

  // What dropout multiplies the weights of key s by.
  void Dropout(int64_t s, VecDouble (&factors)[2]) const {
    const uint32_t threshold = DropoutThreshold(options_.dropout_rate);
    double kept[kQueries64] = {};
    for (int64_t i = 0; i < tile_.count; ++i)
      if (DropoutKeeps(threshold, options_.dropout_seed, tile_.b, tile_.head,
                       tile_.first + i, s))
        kept[i] = 1.0 / (1.0 - options_.dropout_rate);
    for (int v = 0; v < 2; ++v) factors[v] = Load(kept + v * kLanes64);
  }

 private:
  void AddBias(int64_t s, VecDouble (&values)[2]) const {
    const auto* bias = static_cast<const double*>(options_.bias);
    double terms[kQueries64] = {};
    for (int64_t i = 0; i < tile_.count; ++i)
      terms[i] = bias[ScoreOffset(options_.bias_strides, tile_.b, tile_.head,
                                  tile_.first + i, s)];
    for (int v = 0; v < 2; ++v) values[v] += Load(terms + v * kLanes64);
  }

  const AttentionOptions& options_;
  const Float64Tile& tile_;
  double product_, factor_;
  int64_t begin_, end_;
  int64_t begin_all_, end_all_;  // all queries have these keys in reach
  VecDouble begins_[2], ends_[2];
};

int64_t Float64Scratch(const AttentionShape& shape) {
  return kQueries64 * (2 * shape.head_dim + shape.value_dim + 2 * kKeys64);
}

uint32_t ForwardFloat64(const AttentionShape& shape,
                        const AttentionOptions& options, Float64Tile& tile,
                        double* scratch) {
  constexpr double kInfinite = __builtin_inf();
  const int64_t size = shape.head_dim, value_size = shape.value_dim;
  double* const query = scratch;                     // [H][queries]
  double* const output = query + size * kQueries64;  // [value_dim][queries]
  double* const weights = output + value_size * kQueries64;  // [keys][queries]
  Transpose64(tile.count, {tile.query, tile.query_stride}, size, query);
  for (int64_t i = 0; i < value_size * kQueries64; ++i) output[i] = 0.0;
  const Scores64 scores(options, tile);
  const double factor = scores.factor();
  VecDouble top[2] = {Broadcast(-kInfinite), Broadcast(-kInfinite)};
  VecDouble sum[2] = {};
  for (int64_t first = scores.begin(); first < scores.end(); first += kKeys64) {
    const int64_t left = scores.end() - first;
    const int64_t keys = left < kKeys64 ? left : kKeys64;
    Multiply64<false>(keys, size,
                      {tile.key + first * tile.key_stride, tile.key_stride, 1},
                      {query, kQueries64}, weights, kQueries64);
    VecDouble highest[2] = {top[0], top[1]};
    for (int64_t i = 0; i < keys; ++i) {
      double* const row = weights + i * kQueries64;
      VecDouble values[2] = {Load(row), Load(row + kLanes64)};
      VecInt64 visible[2];
      const bool all = scores.Of(first + i, values, visible);
      for (int v = 0; v < 2; ++v) {
        if (!all) values[v] = visible[v] ? values[v] : Broadcast(-kInfinite);
        // A NaN is left out here and comes back with its exponential.
        highest[v] = values[v] > highest[v] ? values[v] : highest[v];
        Store(row + v * kLanes64, values[v]);
      }
    }
    VecDouble base[2], shrink[2];
    for (int v = 0; v < 2; ++v) {
      base[v] = highest[v] == -kInfinite ? VecDouble{} : highest[v];
      shrink[v] = Exp64(factor * (top[v] - base[v]));
      sum[v] *= shrink[v];
      top[v] = highest[v];
    }
    for (int64_t i = 0; i < value_size && first > scores.begin(); ++i)
      for (int v = 0; v < 2; ++v) {
        double* const at = output + i * kQueries64 + v * kLanes64;
        Store(at, Load(at) * shrink[v]);
      }
    VecDouble sum_of_tile[2] = {};
    for (int64_t i = 0; i < keys; ++i) {
      double* const row = weights + i * kQueries64;
      VecDouble weight[2];
      for (int v = 0; v < 2; ++v) {
        weight[v] = Exp64(factor * (Load(row + v * kLanes64) - base[v]));
        sum_of_tile[v] += weight[v];
      }
      if (options.dropout_rate > 0) {
        VecDouble factors[2];
        scores.Dropout(first + i, factors);
        for (int v = 0; v < 2; ++v) weight[v] *= factors[v];
      }
      for (int v = 0; v < 2; ++v) Store(row + v * kLanes64, weight[v]);
    }
    for (int v = 0; v < 2; ++v) sum[v] += sum_of_tile[v];
    Multiply64<true>(
        value_size, keys,
        {tile.value + first * tile.value_stride, 1, tile.value_stride},
        {weights, kQueries64}, output, kQueries64);
  }
  VecInt64 right[2];
  for (int v = 0; v < 2; ++v) {
    right[v] = (sum[v] > 0.0) & IsFinite64(sum[v]) & IsFinite64(top[v]);
    for (int64_t i = 0; i < value_size; ++i) {
      double* const at = output + i * kQueries64 + v * kLanes64;
      const VecDouble mean = Load(at) / sum[v];
      right[v] &= IsFinite64(mean);
      Store(at, mean);
    }
    Store(tile.top + v * kLanes64, top[v]);
    Store(tile.sum + v * kLanes64, sum[v]);
  }
  uint32_t done = 0;
  for (int64_t query_index = 0; query_index < tile.count; ++query_index) {
    if (!right[query_index / kLanes64][query_index % kLanes64]) continue;
    done |= 1u << query_index;
    for (int64_t i = 0; i < value_size; ++i)
      tile.output[query_index * tile.output_stride + i] =
          output[i * kQueries64 + query_index];
  }
  return done;
}

void BackwardFloat64(const AttentionShape& shape,
                     const AttentionOptions& options, const Float64Tile& tile,
                     const Float64Gradients& grads, double* scratch) {
  const int64_t size = shape.head_dim, value_size = shape.value_dim;
  double* const query = scratch;                         // [H][queries]
  double* const grad_query = query + size * kQueries64;  // [H][queries]
  double* const grad_output =
      grad_query + size * kQueries64;  // [value_dim][..]
  double* const weights = grad_output + value_size * kQueries64;  // [keys][..]
  double* const grad_scores = weights + kKeys64 * kQueries64;     // [keys][..]
  const Vector64Operand queries{tile.query, tile.query_stride};
  const Vector64Operand outer{grads.output, grads.output_stride};
  Transpose64(tile.count, queries, size, query);
  Transpose64(tile.count, outer, value_size, grad_output);
  for (int64_t i = 0; i < size * kQueries64; ++i) grad_query[i] = 0.0;
  const Scores64 scores(options, tile);
  const double factor = scores.factor();
  VecDouble top[2], share[2], shift[2];
  for (int v = 0; v < 2; ++v) {
    top[v] = Load(tile.top + v * kLanes64);
    share[v] = 1.0 / Load(tile.sum + v * kLanes64);
    shift[v] = Load(grads.shift + v * kLanes64);
  }
  for (int64_t first = scores.begin(); first < scores.end(); first += kKeys64) {
    const int64_t left = scores.end() - first;
    const int64_t keys = left < kKeys64 ? left : kKeys64;
    const double* const key = tile.key + first * tile.key_stride;
    const double* const value = tile.value + first * tile.value_stride;
    Multiply64<false>(keys, size, {key, tile.key_stride, 1},
                      {query, kQueries64}, weights, kQueries64);
    Multiply64<false>(keys, value_size, {value, tile.value_stride, 1},
                      {grad_output, kQueries64}, grad_scores, kQueries64);
    for (int64_t i = 0; i < keys; ++i) {
      double* const row = weights + i * kQueries64;
      double* const grad_row = grad_scores + i * kQueries64;
      VecDouble values[2] = {Load(row), Load(row + kLanes64)};
      VecDouble grad[2] = {Load(grad_row), Load(grad_row + kLanes64)};
      VecInt64 visible[2];
      const bool all = scores.Of(first + i, values, visible);
      VecDouble weight[2];
      for (int v = 0; v < 2; ++v)
        weight[v] = Exp64(factor * (values[v] - top[v])) * share[v];
      VecDouble kept[2] = {weight[0], weight[1]};
      if (options.dropout_rate > 0) {
        VecDouble factors[2];
        scores.Dropout(first + i, factors);
        for (int v = 0; v < 2; ++v) {
          kept[v] *= factors[v];
          grad[v] *= factors[v];
        }
      }
      for (int v = 0; v < 2; ++v) {
        grad[v] = weight[v] * (grad[v] + shift[v]) * options.scale;
        if (!all) {
          kept[v] = visible[v] ? kept[v] : VecDouble{};
          grad[v] = visible[v] ? grad[v] : VecDouble{};
        }
        Store(row + v * kLanes64, kept[v]);
        Store(grad_row + v * kLanes64, grad[v]);
      }
    }
    Multiply64<true>(size, keys, {key, 1, tile.key_stride},
                     {grad_scores, kQueries64}, grad_query, kQueries64);
    AddRows64(keys, tile.count, weights, outer, value_size,
              grads.value + first * grads.value_stride, grads.value_stride);
    AddRows64(keys, tile.count, grad_scores, queries, size,
              grads.key + first * grads.key_stride, grads.key_stride);
  }
  for (int64_t i = 0; i < tile.count; ++i)
    for (int64_t h = 0; h < size; ++h)
      grads.query[i * grads.query_stride + h] = grad_query[h * kQueries64 + i];
}

}  // namespace
}  // namespace hw3tf
