// NaN in the inputs of a case.

#include <limits>

#include "tests/attention/inputs.h"

namespace hw3tf {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

}  // namespace

void Inputs::Put() {
  if (poison == Poison::kNone) return;
  if (poison == Poison::kHidden) return PutHidden();
  for (int64_t b = 0; b < shape.batch; ++b) {
    const auto draw = static_cast<int64_t>(random_() >> 1);
    const int64_t n = draw % shape.num_heads;
    const int64_t kv_head = draw % shape.num_kv_heads;
    const int64_t t = QueryLen(b) ? draw / 8 % QueryLen(b) : 0;
    const int64_t s = KeyLen(b) ? draw / 8 % KeyLen(b) : 0;
    if (poison == Poison::kKey && KeyLen(b))
      key.Set(KeyRow(b, s), kv_head, draw / 16 % shape.head_dim, kNaN);
    if (poison == Poison::kValue && KeyLen(b))
      value.Set(KeyRow(b, s), kv_head, draw / 16 % shape.value_dim, kNaN);
    if (poison == Poison::kInfinity && KeyLen(b))
      value.Set(KeyRow(b, s), kv_head, draw / 16 % shape.value_dim, kInfinity);
    if (poison == Poison::kQuery && QueryLen(b))
      query.Set(QueryRow(b, t), n, draw / 16 % shape.head_dim, kNaN);
    if (poison == Poison::kGradOutput && QueryLen(b))
      grad_output.Set(QueryRow(b, t), n, draw / 16 % shape.value_dim, kNaN);
    if (poison == Poison::kBias && c.bias == Bias::kInfinite) {
      for (int64_t i = 0; i < KeyLen(b) && QueryLen(b); ++i)
        bias.Set(BiasIndex(b, n, t, i), -kInfinity);
    } else if (poison == Poison::kBias && bias.count() && QueryLen(b)) {
      bias.Set(BiasIndex(b, n, t, s), kNaN);
    }
  }
}

void Inputs::PutHidden() {
  const auto fill = [&](Rows* rows, int64_t row, int64_t head) {
    const double bad[] = {kNaN, kInfinity, -kInfinity};
    for (int64_t i = 0; i < rows->shape().size; ++i)
      rows->Set(row, head, i, bad[random_() % 3]);
  };
  for (int64_t b = 0; b < shape.batch; ++b) {
    for (int64_t k = 0; k < shape.num_kv_heads; ++k) {
      const bool has_blind = HasBlind(b, k);
      for (int64_t s = 0; s < KeyLen(b); ++s) {
        if (IsSeen(b, k, s)) continue;
        fill(&key, KeyRow(b, s), k);
        // A query that sees nothing takes the mean of all values.
        if (!has_blind) fill(&value, KeyRow(b, s), k);
      }
    }
    for (int64_t n = 0; n < shape.num_heads; ++n)
      for (int64_t t = 0; t < QueryLen(b); ++t)
        if (!SeesAny(b, n, t)) fill(&query, QueryRow(b, t), n);
  }
  if (c.bias == Bias::kFull || c.bias == Bias::kTransposed ||
      c.bias == Bias::kInfinite)
    PutHiddenBias();
}

void Inputs::PutHiddenBias() {
  for (int64_t b = 0; b < shape.batch; ++b)
    for (int64_t n = 0; n < shape.num_heads; ++n)
      for (int64_t t = 0; t < shape.query_len; ++t)
        for (int64_t s = 0; s < shape.key_len; ++s)
          if (t >= QueryLen(b) || s >= KeyLen(b) || !Sees(b, n, t, s))
            bias.Set(BiasIndex(b, n, t, s), kNaN);
}

}  // namespace hw3tf
