// The forward pass, first step: the weights of a query tile and some keys.
//
// Queries live in the lanes. A query tile is kept transposed, [H][kQueryTile];
// keys and values are read by broadcasting. For kRows keys at a time, while
// their products are still in registers: subtract the running maximum, multiply
// by |scale| * log2(e), compare once with a threshold, take 2^x, store the
// probabilities, add them to the sum. Then the output tile,
// [value_dim][kQueryTile], takes probabilities * values.
//
// The maximum is raised lazily: only when a weight exceeds kRaiseAbove, so that
// rescaling, the costly step of the online softmax, leaves the loop (1-2 % over
// the whole kernel against rescaling at every tile).
// The maximum is that of the products, before the scale, and is subtracted from
// them before they are scaled: the exponent of the largest is exactly 0, and
// the error of the others is relative to their own size, however large the
// products. What lost: accumulating from -maximum (every partial sum is rounded
// at the size of the maximum), scaling the queries beforehand (every one of
// them is rounded: gradients 2.7 times as wrong as Keras's with scores in the
// hundreds), scaling and subtracting in one multiply-add (a query with one key
// gets the weight 1 + 1e-7 and a gradient that should be 0; no measurable
// gain).

#pragma once

#include "kernels/attention_prefetch-inl.h"
#include "kernels/attention_terms-inl.h"

namespace hw3tf {
namespace {

// Weights above this raise the maximum: 2^24 per key stays far below the float
// range. With values of 5e31 and more, products with such weights may overflow
// where those with the weights of a softmax do not: a tile that ends infinite
// is computed again from these (RecomputeTile).
constexpr float kRaiseAbove = 16777216.0f;

// The state of one query tile; all arrays in scratch.
struct QueryTileState {
  QueryLanes lanes;
  KeyRange keys;
  float* query;     // [units of H][kQueryTile]
  float* output;    // not yet divided by the sum (OutputLayout)
  float* maximum;   // [kQueryTile], of the products or of the scores
  float* sum;       // [kQueryTile], over the tiles that are done
  float* tile_sum;  // [kQueryTile], over the present tile: adding tile by tile
                    // rounds less than adding key by key
  bool has_output;  // not before the first values
  uint32_t seeing;  // lanes that have seen a key
  bool all_summed;  // every lane has a sum, and therefore a maximum
  bool normalized;  // sums are known: weights are divided by them, and tile_sum
                    // holds what they are multiplied by
};

// How the output of a query tile lies in scratch: as [kQueryTile][size], with
// the features in the lanes of its product, or as [size][kQueryTile], with the
// queries there. Rows need no transposing at the end, and none is computed that
// holds no query (on a Zen 4 8x128x128 with H = 64 won 3 %, 32x200x200 with H =
// 32 5 %, 17 positions 33 %). But their size is padded to whole vectors, which
// costs more than it gains unless the queries fill less than a tile: at 512
// positions H = 72 lost 4 %, 40 6 %.
struct OutputLayout {
  bool rows;
  int64_t size;  // of a row, or the number of columns

  explicit OutputLayout(const AttentionShape& shape) {
    constexpr int64_t kFewRows = 3 * kQueryTile / 4;
    const int64_t group = shape.num_heads / shape.num_kv_heads;
    rows = shape.value_dim % kLanes == 0 || shape.query_len * group <= kFewRows;
    size = rows ? PadToVector(shape.value_dim) : shape.value_dim;
  }
};

// Keys and values of one tile, in units: row i of the keys is position `first`
// + i; a row of the values is one position, or two where a unit holds a pair,
// and padded with zeros to the size of the output.
struct KeyTileView {
  int64_t first;
  const float* key;
  int64_t key_stride;
  const float* value;
  int64_t value_stride;
};

// Data that the steps of one task share.
struct ForwardContext {
  const AttentionForwardArgs& args;
  const AttentionPlan& plan;
  const Sequence& sequence;
  ScoreConstants constants;
  OutputLayout layout;
  float* products;       // [kKeyTile][kQueryTile]: queries * keys
  float* probabilities;  // [units of kKeyTile][kQueryTile]; `products`, if a
                         // unit is a float
  float* bias;           // [kKeyTile][kQueryTile], if there is a bias
  float* finite_value;   // [units of kKeyTile][layout.size]
  TermsStorage* terms;
  Prefetcher* prefetcher;
};

// Lanes whose first sum is still to come.
inline VecInt Unsummed(const QueryTileState& tile, int v) {
  return Load(tile.sum + v * kLanes) + Load(tile.tile_sum + v * kLanes) ==
         Vec{};
}

// Raises the maximum of the lanes in `raise` to the largest product, `top`, and
// rescales what was accumulated under the old one: the sums, the output
// and the `done` rows of probabilities of this tile.
__attribute__((noinline, cold)) void RaiseMaximum(const ForwardContext& context,
                                                  const QueryTileState& tile,
                                                  int64_t done, const Vec* top,
                                                  const VecInt* raise) {
  const int64_t size = context.layout.size;
  const float factor = context.constants.factor;
  for (int v = 0; v < tile.lanes.vectors; ++v) {
    const int64_t lane = v * kLanes;
    const Vec old = Load(tile.maximum + lane);
    const Vec raised = Select(raise[v], top[v], old);
    Store(tile.maximum + lane, raised);
    // At the first keys there is nothing yet to rescale.
    if (!AnyTrue(~Unsummed(tile, v))) continue;
    // A lane without a sum has nothing to rescale, and its first maximum may be
    // so low that the factor would overflow.
    const Vec rescale = Select(Unsummed(tile, v), Broadcast(1.0f),
                               Exp2((old - raised) * factor));
    Store(tile.sum + lane, Load(tile.sum + lane) * rescale);
    Store(tile.tile_sum + lane, Load(tile.tile_sum + lane) * rescale);
    for (int64_t k = 0; k < Units(done); ++k) {
      float* at = context.probabilities + k * kQueryTile + lane;
      Store(at, ScaleUnits(Load(at), rescale));
    }
    if (!tile.has_output) continue;
    if (context.layout.rows) {
      const int rows = static_cast<int>(Min(kLanes, tile.lanes.rows - lane));
      for (int i = 0; i < rows; ++i) {
        float* row = tile.output + (lane + i) * size;
        for (int64_t h = 0; h < size; h += kLanes)
          Store(row + h, Load(row + h) * rescale[i]);
      }
    } else {
      for (int64_t h = 0; h < size; ++h) {
        float* at = tile.output + h * kQueryTile + lane;
        Store(at, Load(at) * rescale);
      }
    }
  }
}

// Raises the maximum of the lanes in `raise`, and of those without a sum: they
// take the first visible product, however low it is.
inline void RaiseWhereNeeded(const ForwardContext& context,
                             const QueryTileState& tile, int64_t done,
                             const Vec* top, VecInt* raise) {
  VecInt any{};
  for (int v = 0; v < tile.lanes.vectors; ++v) {
    raise[v] = (raise[v] | Unsummed(tile, v)) & (top[v] > -kInfinity);
    any |= raise[v];
  }
  if (AnyTrue(any)) RaiseMaximum(context, tile, done, top, raise);
}

// Finds the terms of keys [*first_key, *end_key), and which of these take part
// at all; returns the lanes that see any.
inline uint32_t FindTerms(const ForwardContext& context,
                          const QueryTileState& tile, int64_t* first_key,
                          int64_t* end_key, Terms* terms) {
  const AttentionOptions& options = context.args.options;
  bool all;
  const uint32_t any =
      FindVisible(options, context.plan, context.sequence, tile.lanes,
                  *first_key, *end_key, context.terms->visible, &all);
  *terms = {nullptr, nullptr, nullptr};
  if (any == 0) return 0;
  if (!all)
    terms->visible = TrimKeys(UsedLanes(tile.lanes.rows),
                              context.terms->visible, first_key, end_key);
  const int64_t begin = *first_key, end = *end_key;
  if (options.bias) {
    GatherBias(options, context.sequence, tile.lanes, begin, end, context.bias);
    terms->bias = context.bias;
  }
  if (context.constants.dropout) {
    FindKept(options, context.constants, context.sequence, tile.lanes, begin,
             end, context.terms->keep);
    terms->keep = context.terms->keep;
  }
  return any;
}

// Turns `count` rows of products, from row `done` on, into probabilities.
// `done` is whole units.
__attribute__((noinline)) void ApplyTerms(const ForwardContext& context,
                                          const QueryTileState& tile,
                                          const Terms& terms, int64_t done,
                                          int64_t count) {
  const float factor = context.constants.factor;
  float* const rows = context.products + done * kQueryTile;
  Vec top[2] = {Broadcast(-kInfinity), Broadcast(-kInfinity)};
  for (int v = 0; v < tile.lanes.vectors; ++v)
    for (int64_t k = 0; k < count; ++k) {
      const int64_t at = k * kQueryTile + v * kLanes;
      Vec slope;
      Vec score = Transform(context.constants, Load(rows + at),
                            terms.bias ? terms.bias + at : nullptr, &slope);
      if (terms.visible)
        score = Select(LanesOf(terms.visible[k], v * kLanes), score,
                       Broadcast(-kInfinity));
      Store(rows + at, score);
      top[v] = Max(score, top[v]);
    }
  VecInt too_low[2] = {};
  for (int v = 0; v < tile.lanes.vectors; ++v)
    too_low[v] =
        Exp2((top[v] - Load(tile.maximum + v * kLanes)) * factor) > kRaiseAbove;
  if (!tile.normalized) RaiseWhereNeeded(context, tile, done, top, too_low);
  for (int v = 0; v < tile.lanes.vectors; ++v) {
    const Vec maximum = Load(tile.maximum + v * kLanes);
    Vec sum{};
    for (int64_t k = 0; k < count; ++k) {
      float* at = rows + k * kQueryTile + v * kLanes;
      Vec p = Exp2((Load(at) - maximum) * factor);
      if (terms.visible)
        p = Select(LanesOf(terms.visible[k], v * kLanes), p, Vec{});
      sum += p;
      if (tile.normalized) p *= Load(tile.tile_sum + v * kLanes);
      if (terms.keep) p = Select(LanesOf(terms.keep[k], v * kLanes), p, Vec{});
      Store(at, p);
    }
    float* at = tile.tile_sum + v * kLanes;
    if (!tile.normalized) Store(at, Load(at) + sum);
    for (int64_t k = 0; kPairs && k < count; k += 2) {
      const float* pair = rows + k * kQueryTile + v * kLanes;
      Store(
          context.probabilities + (done + k) / 2 * kQueryTile + v * kLanes,
          UnitOf(Load(pair), k + 1 < count ? Load(pair + kQueryTile) : Vec{}));
    }
  }
}

// Probabilities of R keys that every lane sees, with no terms but the scale.
template <int V>
struct PlainScores {
  const ForwardContext& context;
  const float* key;  // of the first key
  int64_t key_stride;
  QueryTileState* tile;

  template <int R>
  void Run(int64_t row) const {
    context.prefetcher->Step();
    Vec score[R][V] = {};
    MultiplyAdd<R, V, Contiguous::kAlongDepth>(
        {key + row * key_stride, key_stride}, {tile->query, kQueryTile},
        Units(context.args.shape.head_dim), score);
    if (__builtin_expect(tile->all_summed, 1) && Exponentials<R>(score, row))
      return;
    float* const to = context.products + row * kQueryTile;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v)
        Store(to + r * kQueryTile + v * kLanes, score[r][v]);
    ApplyTerms(context, *tile, {nullptr, nullptr, nullptr}, row, R);
    tile->all_summed = true;
    for (int v = 0; v < V; ++v)
      if (AnyTrue(Unsummed(*tile, v))) tile->all_summed = false;
  }

  // In registers. False if a maximum is too low, or something is not finite: it
  // shows in the sum, so that no maximum is taken here, which would cost as
  // much as two steps of the polynomial.
  template <int R>
  inline __attribute__((always_inline)) bool Exponentials(
      const Vec (&score)[R][V], int64_t row) const {
    const float factor = context.constants.factor;
    float* const to = context.probabilities + row / kUnitDepth * kQueryTile;
    Vec sum[V];
    VecInt fine = BroadcastInt(-1);
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      const Vec maximum = Load(tile->maximum + v * kLanes);
      sum[v] = Vec{};
      Vec p[R];
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        p[r] = Exp2OfWeight((score[r][v] - maximum) * factor);
        sum[v] += p[r];
        if (r % kUnitDepth == kUnitDepth - 1 || r == R - 1)
          Store(to + r / kUnitDepth * kQueryTile + v * kLanes,
                UnitOf(p[r - r % kUnitDepth], r % kUnitDepth ? p[r] : Vec{}));
      }
      fine &= sum[v] <= kRaiseAbove;
    }
    if (__builtin_expect(AnyTrue(~fine), 0)) return false;
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      float* at = tile->tile_sum + v * kLanes;
      Store(at, Load(at) + sum[v]);
    }
    return true;
  }
};

}  // namespace
}  // namespace hw3tf
