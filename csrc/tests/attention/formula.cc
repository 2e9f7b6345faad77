#include "tests/attention/formula.h"

#include <cmath>
#include <limits>

namespace hw3tf {
namespace {

constexpr long double kNegativeInfinity =
    -std::numeric_limits<long double>::infinity();

std::vector<long double> Widened(const std::vector<double>& values) {
  return std::vector<long double>(values.begin(), values.end());
}

size_t At(int64_t row, int64_t heads, int64_t head, int64_t size, int64_t i) {
  return static_cast<size_t>((row * heads + head) * size + i);
}

// Which weights stay, for all scores.
std::vector<uint8_t> Keep(const Inputs& x) {
  const AttentionShape& s = x.shape;
  std::vector<uint8_t> keep(
      static_cast<size_t>(s.batch * s.num_heads * s.query_len * s.key_len));
  AttentionDropoutMask(s, x.options.dropout_rate, x.options.dropout_seed,
                       keep.data());
  return keep;
}

// The scores of one query, -inf for what it does not see.
std::vector<long double> Scores(const Inputs& x, const FormulaInputs& values,
                                int64_t b, int64_t n, int64_t t) {
  const AttentionShape& s = x.shape;
  const int64_t kv_head = n * s.num_kv_heads / s.num_heads;
  std::vector<long double> scores;
  for (int64_t k = 0; k < x.KeyLen(b); ++k) {
    long double score = 0;
    for (int64_t h = 0; h < s.head_dim; ++h)
      score +=
          values.query[At(x.QueryRow(b, t), s.num_heads, n, s.head_dim, h)] *
          values
              .key[At(x.KeyRow(b, k), s.num_kv_heads, kv_head, s.head_dim, h)];
    score *= static_cast<long double>(x.options.scale);
    const auto cap = static_cast<long double>(x.options.soft_cap);
    if (cap > 0) score = cap * std::tanh(score / cap);
    if (!values.bias.empty())
      score += values.bias[static_cast<size_t>(x.GradBiasIndex(b, n, t, k))];
    scores.push_back(x.Sees(b, n, t, k) ? score : kNegativeInfinity);
  }
  return scores;
}

}  // namespace

FormulaInputs FormulaInputsOf(const Inputs& x) {
  FormulaInputs values = {
      Widened(x.query.Values()), Widened(x.key.Values()),
      Widened(x.value.Values()),
      std::vector<long double>(static_cast<size_t>(x.bias.count()))};
  if (x.bias.count() == 0) return values;
  for (int64_t b = 0; b < x.shape.batch; ++b)
    for (int64_t n = 0; n < x.shape.num_heads; ++n)
      for (int64_t t = 0; t < x.shape.query_len; ++t)
        for (int64_t s = 0; s < x.shape.key_len; ++s)
          values.bias[static_cast<size_t>(x.GradBiasIndex(b, n, t, s))] =
              static_cast<long double>(x.bias.Get(x.BiasIndex(b, n, t, s)));
  return values;
}

FormulaResults Formula(const Inputs& x, const FormulaInputs& values) {
  const AttentionShape& s = x.shape;
  const std::vector<uint8_t> keep = Keep(x);
  const auto rate = static_cast<long double>(x.options.dropout_rate);
  FormulaResults results;
  results.output.resize(x.grad_output.Values().size());
  results.logsumexp.resize(static_cast<size_t>(x.LogsumexpCount()));
  results.loss = 0;
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t n = 0; n < s.num_heads; ++n)
      for (int64_t t = 0; t < x.QueryLen(b); ++t) {
        const bool blind = !x.SeesAny(b, n, t);
        std::vector<long double> p = Scores(x, values, b, n, t);
        long double top = kNegativeInfinity, sum = 0;
        for (long double score : p) top = std::fmax(top, score);
        for (int64_t k = 0; k < x.KeyLen(b); ++k)
          if (x.Sees(b, n, t, k))
            sum += std::exp(p[static_cast<size_t>(k)] - top);
        const auto i = static_cast<size_t>(x.LogsumexpIndex(b, n, t));
        results.logsumexp[i] = blind ? kNegativeInfinity : top + std::log(sum);
        if (x.c.grad_logsumexp && !blind)
          results.loss += results.logsumexp[i] *
                          static_cast<long double>(
                              x.grad_logsumexp.Get(static_cast<int64_t>(i)));
        for (int64_t k = 0; k < x.KeyLen(b); ++k) {
          const size_t score =
              At((b * s.num_heads + n) * s.query_len + t, 1, 0, s.key_len, k);
          long double weight = 0;
          if (blind)
            weight = 1 / static_cast<long double>(x.KeyLen(b));
          else if (x.Sees(b, n, t, k))
            weight = std::exp(p[static_cast<size_t>(k)] - top) / sum *
                     (keep[score] / (1 - rate));
          else
            continue;
          for (int64_t v = 0; v < s.value_dim; ++v)
            results
                .output[At(x.QueryRow(b, t), s.num_heads, n, s.value_dim, v)] +=
                weight * values.value[At(x.KeyRow(b, k), s.num_kv_heads,
                                         n * s.num_kv_heads / s.num_heads,
                                         s.value_dim, v)];
        }
        for (int64_t v = 0; v < s.value_dim; ++v)
          results.loss += results.output[At(x.QueryRow(b, t), s.num_heads, n,
                                            s.value_dim, v)] *
                          static_cast<long double>(
                              x.grad_output.Get(x.QueryRow(b, t), n, v));
      }
  return results;
}

}  // namespace hw3tf
