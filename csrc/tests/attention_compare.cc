#include "tests/attention_compare.h"

#include <cmath>
#include <limits>
#include <vector>

namespace hw3tf {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::vector<double> ValuesOf(const Elements& elements) {
  std::vector<double> values;
  for (int64_t i = 0; i < elements.count(); ++i)
    values.push_back(elements.Get(i));
  return values;
}

enum class NaNs { kMatch, kMayBeLess };

// usual: a size that the terms of a result have even where they cancel.
void Compare(const char* what, const Inputs& x, const std::vector<double>& got,
             const std::vector<double>& want, Tolerance tolerance, double usual,
             NaNs nans = NaNs::kMatch) {
  double size = usual;
  for (double element : want)
    if (std::isfinite(element)) size = std::fmax(size, std::fabs(element));
  CHECK(got.size() == want.size(), "%s: %s", what, x.Name().c_str());
  for (size_t i = 0; i < want.size(); ++i) {
    if (nans == NaNs::kMayBeLess && std::isnan(want[i])) continue;
    const double allowed =
        tolerance.rounding * std::fabs(want[i]) + tolerance.work * size;
    const bool same = std::isnan(want[i]) ? std::isnan(got[i])
                      : std::isinf(want[i])
                          ? got[i] == want[i]
                          : std::fabs(got[i] - want[i]) <= allowed;
    EXPECT(same, "%s: element %zu is %.9g, not %.9g (allowed: %.3g): %s", what,
           i, got[i], want[i], allowed, x.Name().c_str());
    if (!same) return;  // one of an array is enough
  }
}

// Queries that see nothing: exact statistics, and no gradient.
void CheckBlind(const Inputs& x, const Results& got, bool backward) {
  int wrong_statistics = 0, wrong_grads = 0;
  for (int64_t b = 0; b < x.shape.batch; ++b)
    for (int64_t n = 0; n < x.shape.num_heads; ++n)
      for (int64_t t = 0; t < x.QueryLen(b); ++t) {
        if (x.SeesAny(b, n, t)) continue;
        const int64_t i = x.LogsumexpIndex(b, n, t);
        wrong_statistics += got.statistics.Get(2 * i) != kInfinity ||
                            got.statistics.Get(2 * i + 1) != 1.0;
        for (int64_t h = 0; h < x.shape.head_dim && backward; ++h)
          wrong_grads += got.grad_query.Get(x.QueryRow(b, t), n, h) != 0.0;
      }
  EXPECT(wrong_statistics == 0, "%d of queries that see nothing: %s",
         wrong_statistics, x.Name().c_str());
  EXPECT(wrong_grads == 0, "%d of queries that see nothing: %s", wrong_grads,
         x.Name().c_str());
}

// Keys and values that nothing sees: exact zeros.
void CheckUnseen(const Inputs& x, const Results& got) {
  int wrong_grads = 0;
  for (int64_t b = 0; b < x.shape.batch; ++b)
    for (int64_t k = 0; k < x.shape.num_kv_heads; ++k) {
      const bool has_blind = x.HasBlind(b, k);
      for (int64_t s = 0; s < x.KeyLen(b); ++s) {
        if (x.IsSeen(b, k, s)) continue;
        const int64_t row = x.KeyRow(b, s);
        for (int64_t h = 0; h < x.shape.head_dim; ++h)
          wrong_grads += got.grad_key.Get(row, k, h) != 0.0;
        for (int64_t v = 0; v < x.shape.value_dim && !has_blind; ++v)
          wrong_grads += got.grad_value.Get(row, k, v) != 0.0;
      }
    }
  EXPECT(wrong_grads == 0, "%d of keys that nothing sees: %s", wrong_grads,
         x.Name().c_str());
}

}  // namespace

bool IsShift(const Case& c) {
  return c.bias == Bias::kPerQuery || c.bias == Bias::kScalar;
}

void CompareForward(const Inputs& x, const Results& got, const Results& want,
                    Tolerance values, Tolerance reals) {
  Compare("output", x, got.output.Values(), want.output.Values(), values, 1.0);
  const bool bare = !x.c.soft_cap && x.c.bias == Bias::kNone;
  const double factor = bare ? std::fabs(x.options.scale) : 1.0;
  std::vector<double> logsumexp, wanted;
  for (int64_t i = 0; i < got.statistics.count() / 2; ++i) {
    // A query that sees nothing: CheckBlind looks at it.
    if (want.statistics.Get(2 * i) == kInfinity) continue;
    logsumexp.push_back(factor * got.statistics.Get(2 * i) +
                        std::log(got.statistics.Get(2 * i + 1)));
    wanted.push_back(factor * want.statistics.Get(2 * i) +
                     std::log(want.statistics.Get(2 * i + 1)));
  }
  // Which of the two numbers carries the NaN, and so what becomes of both, is
  // the kernel's choice.
  Compare("statistics", x, logsumexp, wanted, reals, 1.0, NaNs::kMayBeLess);
  CheckBlind(x, got, false);
  Compare("logsumexp", x, ValuesOf(got.logsumexp), ValuesOf(want.logsumexp),
          reals, 1.0);
}

void CompareBackward(const Inputs& x, const Results& got, const Results& want,
                     Tolerance values, Tolerance reals) {
  // A score's gradient is a difference of two sums over value_dim.
  const double score = std::sqrt(static_cast<double>(x.shape.value_dim));
  const double scaled = score * std::fabs(x.options.scale);
  Compare("grad_query", x, got.grad_query.Values(), want.grad_query.Values(),
          values, scaled);
  // A key's gradient is a sum over the queries, whose weights of one key are
  // 1 / key_len on average: its rounding adds up like a random walk, and the
  // sum itself is 0 where there is one key.
  const double seen_by = static_cast<double>(x.shape.query_len) *
                         static_cast<double>(x.shape.num_heads) /
                         static_cast<double>(x.shape.num_kv_heads) /
                         std::fmax(1.0, static_cast<double>(x.shape.key_len));
  Compare("grad_key", x, got.grad_key.Values(), want.grad_key.Values(), values,
          scaled * std::sqrt(std::fmax(1.0, seen_by)));
  Compare("grad_value", x, got.grad_value.Values(), want.grad_value.Values(),
          values, 1.0);
  CheckBlind(x, got, true);
  CheckUnseen(x, got);
  if (got.grad_bias.count() == 0) return;
  // Summed over the axes that the bias does not have; the rounding of the
  // queries adds up like a random walk.
  const AttentionShape& s = x.shape;
  const bool sums = x.bias.count() < x.LogsumexpCount() * s.key_len;
  const double walk =
      sums ? std::sqrt(static_cast<double>(x.LogsumexpCount())) : 1.0;
  Compare("grad_bias", x, ValuesOf(got.grad_bias), ValuesOf(want.grad_bias),
          reals, score * walk, IsShift(x.c) ? NaNs::kMayBeLess : NaNs::kMatch);
}

}  // namespace hw3tf
