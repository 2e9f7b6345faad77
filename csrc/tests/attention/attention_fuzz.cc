// Random cases of attention against the plain form in float64, in guarded
// memory. A seed draws everything: shapes, strides, types, options, masks with
// and without structure, lengths, NaN, infinity and denormals, threads, and the
// sizes by which the kernels cut their work.

#include <algorithm>
#include <cmath>

#include "kernels/attention/attention.h"
#include "kernels/runtime/test_hooks.h"
#include "tests/attention/case.h"
#include "tests/attention/inputs.h"
#include "tests/attention/judge.h"
#include "tests/attention/results.h"
#include "tests/check.h"
#include "tests/fuzz.h"

namespace hw3tf {
namespace {

// Around a size at which the kernels take another path.
int64_t Around(Draw* draw, int64_t size) {
  return std::max<int64_t>(1, size + draw->Below(5) - 2);
}

// Multiplications of a case: the judge takes some nanoseconds for each.
int64_t DrawMostWork(Draw* draw) { return draw->OneIn(8) ? 500000 : 100000; }

AttentionShape DrawShape(Draw* draw) {
  const AttentionTiles tiles = GetAttentionTiles();
  constexpr int64_t kGroups[] = {1, 1, 2, 3, 4, 7};
  AttentionShape s;
  s.batch = draw->OneIn(2) ? draw->Size(4) : 1 + draw->Below(4);
  s.num_kv_heads = draw->Size(3);
  s.num_heads = s.num_kv_heads * kGroups[draw->Below(6)];
  s.query_len = draw->Size(80);
  s.key_len = draw->Size(80);
  s.head_dim = draw->Size(70);
  s.value_dim = draw->OneIn(2) ? s.head_dim : draw->Size(70);
  if (draw->OneIn(8)) s.query_len = Around(draw, tiles.query_tile);
  if (draw->OneIn(16)) s.query_len = Around(draw, tiles.query_block);
  if (draw->OneIn(8)) s.key_len = Around(draw, tiles.key_tile);
  if (draw->OneIn(16)) s.key_len = Around(draw, tiles.key_chunk);
  if (draw->OneIn(16)) {  // as models that write text
    s.query_len = draw->Size(5);
    s.key_len = draw->Size(2000);
  }
  if (draw->OneIn(64)) s.query_len = 0;
  if (draw->OneIn(256)) s.batch = 0;
  int64_t* const sizes[] = {&s.batch,    &s.query_len, &s.key_len,
                            &s.head_dim, &s.value_dim, &s.num_heads};
  const int64_t most_work = DrawMostWork(draw);
  while (s.batch * s.num_heads * s.query_len * s.key_len *
             (s.head_dim + s.value_dim) >
         most_work) {
    int64_t* size = sizes[draw->Below(5)];
    *size = std::max<int64_t>(1, *size / 2);
    if (draw->OneIn(4)) s.num_heads = s.num_kv_heads;
  }
  return s;
}

// As models that write text: few queries, nothing hidden but by lengths.
Case DrawDecodeCase(Draw* draw, Case c) {
  constexpr int64_t kMostRows = 4;  // of a key/value head
  const int64_t group =
      std::min(kMostRows, c.shape.num_heads / c.shape.num_kv_heads);
  c.shape.num_heads = c.shape.num_kv_heads * group;
  c.shape.query_len = 1 + draw->Below(kMostRows / group);
  c.shape.key_len = std::max(c.shape.key_len, draw->Size(400));
  if (draw->OneIn(2)) c.key_mask = KeyMask::kPrefix;
  if (draw->OneIn(2)) c.lengths = Lengths::kKeys;
  return c;
}

Case DrawCase(Draw* draw, uint64_t seed) {
  Case c = {};
  c.number = static_cast<int>(seed % 0x7FFFFFFF);
  c.dtype = static_cast<DType>(draw->Below(4));
  c.shape = DrawShape(draw);
  c.numbers = draw->Option<Numbers>();
  c.scale = draw->Option<Scale>();
  c.layout = draw->Option<Layout>();
  c.grad_logsumexp = draw->OneIn(2);
  c.all_outputs = !draw->OneIn(3);
  c.finite_logsumexp = draw->OneIn(2);
  if (draw->OneIn(16)) c.shape.key_len = 0;
  if (draw->OneIn(4)) {  // as learned latents
    c.one_query = draw->OneIn(2);
    c.one_key = draw->OneIn(2);
    c.one_value = draw->OneIn(4) ? !c.one_key : c.one_key;
    c.one_mask = draw->OneIn(2);
    c.summed_grads = !draw->OneIn(4);
  }
  if (draw->OneIn(8)) return DrawDecodeCase(draw, c);
  c.mask = draw->Option<Mask>();
  c.pattern = draw->Option<Pattern>();
  c.bias = draw->Option<Bias>();
  c.is_causal = draw->OneIn(3);
  c.window = draw->Option<Window>();
  c.soft_cap = draw->OneIn(4);
  c.dropout = draw->OneIn(4);
  const bool empty = c.shape.query_len * c.shape.key_len * c.shape.batch == 0;
  if (draw->OneIn(4) && !empty) {
    c.one_query = c.one_key = c.one_value = false;  // there is no batch
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
  const bool one_batch = c.one_query || c.one_key || c.one_value;
  // What one batch entry does not see another may.
  const bool nowhere = (poison == Poison::kBias && c.bias == Bias::kNone) ||
                       (poison == Poison::kHidden && one_batch);
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

// Every sixth case has the sizes that users have.
TestHooks DrawHooks(Draw* draw) {
  TestHooks hooks;
  if (draw->OneIn(6)) return hooks;
  const AttentionTiles tiles = GetAttentionTiles();
  const int64_t rows = tiles.key_chunk / 64;  // keys that a product takes
  const auto some = [draw](int64_t size) { return draw->OneIn(4) ? 0 : size; };
  hooks.always_threads = 1;
  hooks.meet = !draw->OneIn(8);
  hooks.query_block = some(tiles.query_tile * (1 + draw->Below(4)));
  hooks.key_tile = some(rows * (1 + draw->Below(4)));
  hooks.key_chunk = some(rows * draw->Size(8));
  hooks.range_rows = some(16 * (1 + draw->Below(8)));
  hooks.enough_tasks = some(1);
  hooks.keys_per_split = some(draw->Size(64));
  hooks.decode_chunk = some(draw->Size(40));
  if (hooks.decode_chunk)
    hooks.decode_keys = hooks.decode_chunk + draw->Size(8);
  hooks.plain_rows = some(draw->Size(8));
  return hooks;
}

void RunCase(uint64_t seed) {
  Draw draw(seed);
  const Case c = DrawCase(&draw, seed);
  const Poison poison = DrawPoison(&draw, c);
  const TestHooks hooks = DrawHooks(&draw);
  constexpr int kThreads[] = {1, 2, 5, 24};
  const int threads = kThreads[draw.Below(4)];
  const Inputs inputs(c, c.dtype, poison);
  const auto run = [&](const Results& results, int on_threads) {
    const WithHooks with_hooks(hooks);
    RunKernels(inputs, results, on_threads);
  };
  const Results got(inputs);
  run(got, threads);
  if (poison != Poison::kInfinity) {
    Case exact = c;  // the judge sums by itself
    exact.summed_grads = false;
    Judge(inputs, Inputs(exact, DType::kFloat64, poison), got, SlackOf(inputs));
  }
  if (threads == 1 && poison != Poison::kInfinity) return;
  const Results more(inputs);
  run(more, threads == 1 ? 2 : 1);
  more.CheckSameBits(got, c);
}

}  // namespace
}  // namespace hw3tf

int main(int argc, char** argv) {
  // Those before the recurrence's first one.
  constexpr uint32_t kPaths = hw3tf::kWholeLinesPath - 1;
  return hw3tf::FuzzMain(argc, argv, "attention", kPaths, hw3tf::RunCase);
}
