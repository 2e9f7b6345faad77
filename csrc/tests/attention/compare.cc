#include "tests/attention/compare.h"

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

// How attention.h marks a query that sees nothing.
bool IsMarked(const Results& results, int64_t i) {
  return results.statistics.Get(2 * i) == 0.0 &&
         results.statistics.Get(2 * i + 1) == -1.0;
}

// Gradients that are summed over the batch have no zeros of one batch entry.
bool IsSummed(const Rows& grad) { return grad.shape().one_batch; }

// Queries that see nothing: exact statistics, and no gradient.
void CheckBlind(const Inputs& x, const Results& got, bool backward) {
  int wrong_statistics = 0, wrong_grads = 0;
  for (int64_t b = 0; b < x.shape.batch; ++b)
    for (int64_t n = 0; n < x.shape.num_heads; ++n)
      for (int64_t t = 0; t < x.QueryLen(b); ++t) {
        if (x.SeesAny(b, n, t)) continue;
        const int64_t i = x.LogsumexpIndex(b, n, t);
        wrong_statistics += !IsMarked(got, i);
        if (!backward || IsSummed(got.grad_query)) continue;
        for (int64_t h = 0; h < x.shape.head_dim; ++h)
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
        for (int64_t h = 0; h < x.shape.head_dim && !IsSummed(got.grad_key);
             ++h)
          wrong_grads += got.grad_key.Get(row, k, h) != 0.0;
        if (has_blind || IsSummed(got.grad_value)) continue;
        for (int64_t v = 0; v < x.shape.value_dim; ++v)
          wrong_grads += got.grad_value.Get(row, k, v) != 0.0;
      }
    }
  EXPECT(wrong_grads == 0, "%d of keys that nothing sees: %s", wrong_grads,
         x.Name().c_str());
}

// A gradient, and that of every batch entry, which is summed if the former is.
void CompareGrad(const char* what, const Inputs& x, const Rows& got,
                 const Rows& want, Tolerance tolerance, double usual) {
  std::vector<double> wanted = want.Values();
  if (IsSummed(got) && !wanted.empty()) {
    // Each part is rounded, and may be larger than the sum.
    for (const double part : wanted)
      if (std::isfinite(part)) usual = std::fmax(usual, std::fabs(part));
    const auto batch = static_cast<size_t>(x.shape.batch);
    const size_t each = wanted.size() / batch;
    for (size_t i = 0; i < each; ++i) {
      double sum = 0.0;
      for (size_t b = 0; b < batch; ++b) sum += wanted[b * each + i];
      for (size_t b = 0; b < batch; ++b) wanted[b * each + i] = sum;
    }
    tolerance.work += tolerance.rounding;
    tolerance.work *= static_cast<double>(batch);
  }
  Compare(what, x, got.Values(), wanted, tolerance, usual);
}

// Queries that see nothing have one number, which has its own type.
void CompareLogsumexp(const Inputs& x, const Results& got, const Results& want,
                      Tolerance tolerance) {
  const double lowest = RealType(x.dtype) == DType::kFloat64
                            ? std::numeric_limits<double>::lowest()
                            : std::numeric_limits<float>::lowest();
  std::vector<double> others, wanted;
  int wrong = 0;
  for (int64_t i = 0; i < got.logsumexp.count(); ++i) {
    const double found = got.logsumexp.Get(i);
    if (IsMarked(want, i)) {
      wrong += found != (x.c.finite_logsumexp ? lowest : -kInfinity);
    } else {
      others.push_back(found);
      wanted.push_back(want.logsumexp.Get(i));
    }
  }
  EXPECT(wrong == 0, "%d of queries that see nothing: %s", wrong,
         x.Name().c_str());
  Compare("logsumexp", x, others, wanted, tolerance, 1.0);
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
    if (IsMarked(want, i)) continue;
    logsumexp.push_back(factor * got.statistics.Get(2 * i) +
                        std::log(got.statistics.Get(2 * i + 1)));
    wanted.push_back(factor * want.statistics.Get(2 * i) +
                     std::log(want.statistics.Get(2 * i + 1)));
  }
  // Which of the two numbers carries the NaN, and so what becomes of both, is
  // the kernel's choice.
  Compare("statistics", x, logsumexp, wanted, reals, 1.0, NaNs::kMayBeLess);
  CheckBlind(x, got, false);
  CompareLogsumexp(x, got, want, reals);
}

void CompareBackward(const Inputs& x, const Results& got, const Results& want,
                     Tolerance values, Tolerance reals) {
  // A score's gradient is a difference of two sums over value_dim.
  const double score = std::sqrt(static_cast<double>(x.shape.value_dim));
  const double scaled = score * std::fabs(x.options.scale);
  CompareGrad("grad_query", x, got.grad_query, want.grad_query, values, scaled);
  // A key's gradient is a sum over the queries, whose weights of one key are
  // 1 / key_len on average: its rounding adds up like a random walk, and the
  // sum itself is 0 where there is one key.
  const double seen_by = static_cast<double>(x.shape.query_len) *
                         static_cast<double>(x.shape.num_heads) /
                         static_cast<double>(x.shape.num_kv_heads) /
                         std::fmax(1.0, static_cast<double>(x.shape.key_len));
  CompareGrad("grad_key", x, got.grad_key, want.grad_key, values,
              scaled * std::sqrt(std::fmax(1.0, seen_by)));
  CompareGrad("grad_value", x, got.grad_value, want.grad_value, values, 1.0);
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
