// Attention with everything drawn from a seed: shapes, strides, types, options,
// masks with and without structure, lengths, NaN, infinity and denormals,
// threads; against the plain form in float64, in guarded memory.

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/attention.h"
#include "tests/attention_case.h"
#include "tests/attention_inputs.h"
#include "tests/attention_judge.h"
#include "tests/attention_results.h"
#include "tests/check.h"
#include "tests/fuzz.h"

namespace hw3tf {
namespace {

class Draw {
 public:
  explicit Draw(uint64_t seed) : engine_(seed) {}

  int64_t Below(int64_t count) {
    return static_cast<int64_t>(engine_() % static_cast<uint64_t>(count));
  }
  bool OneIn(int64_t count) { return Below(count) == 0; }
  // The first one, which is "nothing", every other time.
  template <typename Enum>
  Enum Option() {
    if (OneIn(2)) return Enum{};
    return static_cast<Enum>(Below(static_cast<int64_t>(Enum::kCount)));
  }
  // Small ones are as likely as large ones.
  int64_t Size(int64_t most) {
    const double exponent = static_cast<double>(Below(1 << 20)) / (1 << 20);
    return static_cast<int64_t>(
        std::pow(static_cast<double>(most) + 0.999, exponent));
  }
  // Around a size at which the kernels change their way.
  int64_t Around(int64_t size) {
    return std::max<int64_t>(1, size + Below(5) - 2);
  }

 private:
  std::mt19937_64 engine_;
};

// Multiplications of a case: the judge takes some nanoseconds for each.
constexpr int64_t kMostWork = 100000;

AttentionShape DrawShape(Draw* draw) {
  const AttentionTiles tiles = GetAttentionTiles();
  constexpr int64_t kGroups[] = {1, 1, 2, 3, 4, 8};
  AttentionShape s;
  s.batch = draw->Size(4);
  s.num_kv_heads = draw->Size(3);
  s.num_heads = s.num_kv_heads * kGroups[draw->Below(6)];
  s.query_len = draw->Size(80);
  s.key_len = draw->Size(80);
  s.head_dim = draw->Size(70);
  s.value_dim = draw->OneIn(2) ? s.head_dim : draw->Size(70);
  if (draw->OneIn(8)) s.query_len = draw->Around(tiles.query_tile);
  if (draw->OneIn(16)) s.query_len = draw->Around(tiles.query_block);
  if (draw->OneIn(8)) s.key_len = draw->Around(tiles.key_tile);
  if (draw->OneIn(16)) s.key_len = draw->Around(tiles.key_chunk);
  if (draw->OneIn(16)) {  // as models that write text
    s.query_len = draw->Size(5);
    s.key_len = draw->Size(2000);
  }
  if (draw->OneIn(64)) s.query_len = 0;
  if (draw->OneIn(256)) s.batch = 0;
  int64_t* const sizes[] = {&s.batch,    &s.query_len, &s.key_len,
                            &s.head_dim, &s.value_dim, &s.num_heads};
  while (s.batch * s.num_heads * s.query_len * s.key_len *
             (s.head_dim + s.value_dim) >
         kMostWork) {
    int64_t* size = sizes[draw->Below(5)];
    *size = std::max<int64_t>(1, *size / 2);
    if (draw->OneIn(4)) s.num_heads = s.num_kv_heads;
  }
  return s;
}

Case DrawCase(Draw* draw, uint64_t seed) {
  Case c = {};
  c.number = static_cast<int>(seed % 0x7FFFFFFF);
  c.dtype = static_cast<DType>(draw->Below(4));
  c.shape = DrawShape(draw);
  c.mask = draw->Option<Mask>();
  c.pattern = draw->Option<Pattern>();
  c.numbers = draw->Option<Numbers>();
  c.bias = draw->Option<Bias>();
  c.is_causal = draw->OneIn(3);
  c.window = draw->Option<Window>();
  c.scale = draw->Option<Scale>();
  c.soft_cap = draw->OneIn(4);
  c.dropout = draw->OneIn(4);
  c.layout = draw->Option<Layout>();
  c.grad_logsumexp = draw->OneIn(2);
  c.all_outputs = !draw->OneIn(3);
  if (draw->OneIn(4) && c.shape.query_len > 0 && c.shape.batch > 0) {
    c.packed = draw->OneIn(2) ? Packed::kRagged : Packed::kSomeEmpty;
    c.shape.batch += 2;  // room for empty sequences beside the longest
    return c;
  }
  c.key_mask = draw->Option<KeyMask>();
  c.query_mask = draw->OneIn(4);
  c.lengths = draw->Option<Lengths>();
  return c;
}

Poison DrawPoison(Draw* draw, const Case& c) {
  if (draw->OneIn(2)) return Poison::kNone;
  const auto poison = static_cast<Poison>(
      draw->Below(static_cast<int64_t>(Poison::kInfinity) + 1));
  const bool nowhere = poison == Poison::kBias && c.bias == Bias::kNone;
  return nowhere ? Poison::kNone : poison;
}

// Of numbers that are all equal, but for a poisoned one.
double SizeOf(const Rows& rows) {
  for (const double x : rows.Values())
    if (std::isfinite(x)) return std::fabs(x);
  return 0.0;
}

Slack SlackOf(const Inputs& inputs) {
  // Terms are products of two numbers of which some are 16 times as large, in
  // gradients of queries and keys of three: 33 and 33 * 48 for three standard
  // deviations.
  if (inputs.c.numbers == Numbers::kWide) return {33.0, 33.0 * 48.0};
  if (inputs.c.numbers != Numbers::kEqual) return {1.0, 1.0};
  // The gradient of a score is 0, the difference of two sums over value_dim
  // whose terms are equal: as large as their number, where those of random
  // signs are as large as its root. And what rounding leaves is the same for
  // all queries of a key, so that it adds up instead of cancelling. Measured:
  // at most 1.7e-6 of what the terms' sizes add up to, in 400 calls with 36
  // queries of 4 heads, 61 numbers each, and dropout.
  const AttentionShape& s = inputs.shape;
  const double terms = std::sqrt(static_cast<double>(s.value_dim)) *
                       SizeOf(inputs.value) * SizeOf(inputs.grad_output);
  const double queries =
      static_cast<double>(s.query_len * s.num_heads / s.num_kv_heads);
  const double rows =
      std::max(queries * SizeOf(inputs.query), SizeOf(inputs.key));
  return {1.0 + SizeOf(inputs.value), 1.0 + terms * (1.0 + rows)};
}

void RunCase(uint64_t seed) {
  Draw draw(seed);
  const Case c = DrawCase(&draw, seed);
  const Poison poison = DrawPoison(&draw, c);
  constexpr int kThreads[] = {1, 1, 2, 3, 5};
  const int threads = kThreads[draw.Below(5)];
  const Inputs inputs(c, c.dtype, poison);
  const Results got(inputs);
  RunKernels(inputs, got, threads);
  if (poison != Poison::kInfinity)
    Judge(inputs, Inputs(c, DType::kFloat64, poison), got, SlackOf(inputs));
  if (threads == 1 && poison != Poison::kInfinity) return;
  const Results more(inputs);
  RunKernels(inputs, more, threads == 1 ? 2 : 1);
  more.CheckSameBits(got, c);
}

}  // namespace
}  // namespace hw3tf

int main(int argc, char** argv) {
  return hw3tf::FuzzMain(argc, argv, "attention", hw3tf::RunCase);
}
