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

#include "kernels/attention/row_prefetch-inl.h"
#include "kernels/attention/terms-inl.h"

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

// Second step: the values, weighted, and the keys of a tile with both steps.

// output += probabilities * values, for the values that are not finite and the
// lanes that see them.
__attribute__((noinline, cold)) void AddSeenValues(
    const ForwardContext& context, const QueryTileState& tile,
    const float* value, int64_t stride, int64_t count, const Terms& terms) {
  const int64_t size = context.layout.size;
  for (int64_t k = 0; k < count; ++k) {
    const float* row = value + k / kUnitDepth * stride;
    float weights[kQueryTile];
    for (int lane = 0; lane < kQueryTile; ++lane)
      weights[lane] = NumberOf(
          context.probabilities + k / kUnitDepth * kQueryTile + lane, k);
    for (int64_t h = 0; h < size; ++h) {
      const float x = NumberOf(row + h, k);
      if (__builtin_isfinite(x)) continue;
      if (context.layout.rows) {
        for (int lane = 0; lane < tile.lanes.rows; ++lane)
          if (terms.visible[k] >> lane & 1)
            tile.output[lane * size + h] += weights[lane] * x;
        continue;
      }
      for (int v = 0; v < tile.lanes.vectors; ++v) {
        float* const at = tile.output + h * kQueryTile + v * kLanes;
        Store(at, Select(LanesOf(terms.visible[k], v * kLanes),
                         Load(at) + Load(weights + v * kLanes) * x, Load(at)));
      }
    }
  }
}

// output = or += probabilities * values, `count` units of each.
template <int V>
inline void MultiplyValues(const ForwardContext& context, const float* value,
                           int64_t stride, int64_t count,
                           QueryTileState* tile) {
  const int64_t size = context.layout.size;
  const BroadcastOperand<Contiguous::kAlongRows> values{value, stride};
  const BroadcastOperand<Contiguous::kAlongRows> weights{context.probabilities,
                                                         kQueryTile};
  if (context.layout.rows)
    Multiply<Contiguous::kAlongRows>({weights,
                                      {value, stride},
                                      count,
                                      tile->output,
                                      size,
                                      size,
                                      tile->has_output,
                                      context.prefetcher},
                                     tile->lanes.rows);
  else
    Multiply<Contiguous::kAlongRows>({values,
                                      {context.probabilities, kQueryTile},
                                      count,
                                      tile->output,
                                      kQueryTile,
                                      V * kLanes,
                                      tile->has_output,
                                      context.prefetcher},
                                     size);
  tile->has_output = true;
}

// Adds keys [begin, end), all of which every lane sees, to a query tile.
template <int V>
inline void AddPlainKeys(const ForwardContext& context, const KeyTileView& view,
                         QueryTileState* tile, int64_t begin, int64_t end) {
  if (begin >= end) return;
  tile->seeing = kAllLanes;
  const int64_t skip = begin - view.first, count = end - begin;
  ForUnitGroups(count,
                PlainScores<V>{context, view.key + skip * view.key_stride,
                               view.key_stride, tile});
  MultiplyValues<V>(context, view.value + skip / kUnitDepth * view.value_stride,
                    view.value_stride, Units(count), tile);
}

// Adds keys [begin, end) that have terms to a query tile.
template <int V>
inline void AddKeysWithTerms(const ForwardContext& context,
                             const KeyTileView& view, QueryTileState* tile,
                             int64_t begin, int64_t end) {
  if (begin >= end) return;
  const AttentionShape& shape = context.args.shape;
  Terms terms;
  const uint32_t seeing = FindTerms(context, *tile, &begin, &end, &terms);
  if (seeing == 0) return;
  if (!terms.visible && !context.constants.transformed && !terms.keep &&
      !tile->normalized) {
    AddPlainKeys<V>(context, view, tile, begin, end);
    return;
  }
  tile->seeing |= seeing;
  const int64_t skip = begin - view.first, count = end - begin;
  Multiply<Contiguous::kAlongDepth>(
      {{view.key + skip * view.key_stride, view.key_stride},
       {tile->query, kQueryTile},
       Units(shape.head_dim),
       context.products,
       kQueryTile,
       V * kLanes,
       /*accumulate=*/false,
       context.prefetcher},
      count);
  ApplyTerms(context, *tile, terms, /*done=*/0, count);
  const float* value = view.value + skip / kUnitDepth * view.value_stride;
  const int64_t size = context.layout.size, units = Units(count);
  if (terms.visible && !AllFinite(value, view.value_stride, units, size)) {
    CopyFinite(value, view.value_stride, units, size, context.finite_value);
    MultiplyValues<V>(context, context.finite_value, size, units, tile);
    AddSeenValues(context, *tile, value, view.value_stride, count, terms);
    return;
  }
  MultiplyValues<V>(context, value, view.value_stride, units, tile);
}

// Adds keys [begin, end) of a key tile to a query tile.
template <int V>
inline void AddKeys(const ForwardContext& context, const KeyTileView& view,
                    QueryTileState* tile, int64_t begin, int64_t end) {
  const AttentionOptions& options = context.args.options;
  const auto start = [&] {
    for (int v = 0; v < V; ++v) Store(tile->tile_sum + v * kLanes, Vec{});
  };
  const auto finish = [&] {
    for (int v = 0; v < V; ++v) {
      float* sum = tile->sum + v * kLanes;
      Store(sum, Load(sum) + Load(tile->tile_sum + v * kLanes));
    }
    start();
  };
  start();
  if (context.constants.transformed || context.constants.dropout ||
      options.mask || context.sequence.key_mask) {
    AddKeysWithTerms<V>(context, view, tile, begin, end);
    finish();
    return;
  }
  // Whole groups of rows: what is left is a few of the keys with terms. (All
  // keys of such a tile with terms lost 0-3 % in causal cases.)
  const int64_t plain_begin =
      Min(end, begin + RoundUp(Max(0, tile->keys.full_begin - begin), kRows));
  int64_t plain_end = Max(plain_begin, Min(end, tile->keys.full_end));
  if (plain_end < end)
    plain_end = plain_begin + (plain_end - plain_begin) / kRows * kRows;
  AddKeysWithTerms<V>(context, view, tile, begin, plain_begin);
  finish();
  AddPlainKeys<V>(context, view, tile, plain_begin, plain_end);
  finish();
  AddKeysWithTerms<V>(context, view, tile, plain_end, end);
  finish();
}

// Mean of all S values of one head, including masked ones, as Keras gives it to
// a query that sees no key; 0 without keys. Summed in double, as S may be
// large.
inline void MeanValue(const ForwardContext& context, int64_t kv_head,
                      double* sum, float* mean) {
  const ConstArray& value = context.args.value;
  const int64_t size = context.args.shape.value_dim;
  const int64_t count = context.sequence.key_len;
  const int64_t first =
      KeyOffset(value.strides, context.plan, context.sequence, kv_head);
  for (int64_t h = 0; h < size; ++h) sum[h] = 0.0;
  const DType dtype = context.args.dtype;
  const int64_t bytes = ElementBytes(dtype);
  for (int64_t s = 0; s < count; ++s) {
    const void* row =
        Element(value.data, first + s * value.strides.length, dtype);
    PrefetchAhead(row, value.strides.length * bytes, size * bytes);
    AddRow(row, dtype, size, sum);
  }
  for (int64_t h = 0; h < size; ++h)
    mean[h] =
        count ? static_cast<float>(sum[h] / static_cast<double>(count)) : 0.0f;
}

// The scratch of a task, and its end: tiles, or parts of the keys, become
// output, statistics and logsumexp.

constexpr int kQueryBlock = 1024;  // at most (QueryBlock)
constexpr int kTilesPerBlock = kQueryBlock / kQueryTile;
constexpr AttentionTiles kTiles = {kQueryTile, kQueryBlock, kKeyTile,
                                   kKeyChunk};

// The scratch of one thread, carved from one array of floats.
struct ForwardScratch {
  float* query;          // [tiles][units of H][kQueryTile]
  float* output;         // [tiles], each as OutputLayout says
  float* statistics;     // [tiles][3][kQueryTile]: maximum, sum, tile sum
  float* products;       // [kKeyTile][kQueryTile]
  float* probabilities;  // [units of kKeyTile][kQueryTile]
  float* key;            // [kKeyTile][H]
  float* value;          // [kKeyTile][value_dim padded]
  float* finite_value;   // [kKeyTile][value_dim padded]
  float* rows;           // [kLanes][larger of H and value_dim, padded]
  double* value_sum;     // [value_dim padded]
  float* mean_value;     // [value_dim padded]
  TermsStorage* terms;
  float* bias;  // [kKeyTile][kQueryTile], if there is a bias
  float* end;

  ForwardScratch(const AttentionForwardArgs& args, float* base) {
    const AttentionShape& shape = args.shape;
    const int64_t key_size = PadToVector(shape.head_dim);
    const int64_t value_size = PadToVector(shape.value_dim);
    const int64_t block = QueryBlock(kTiles, shape);
    query = base;
    output = query + block * shape.head_dim;
    statistics = output + block * value_size;
    products = statistics + block * 3;
    probabilities = products + (kPairs ? kKeyTile * kQueryTile : 0);
    key = probabilities + kKeyTile / kUnitDepth * kQueryTile;
    value = key + kKeyTile * key_size;
    finite_value = value + kKeyTile * value_size;
    rows = finite_value + kKeyTile * value_size;
    value_sum =
        reinterpret_cast<double*>(rows + kLanes * Max(key_size, value_size));
    mean_value = reinterpret_cast<float*>(value_sum + value_size);
    terms = reinterpret_cast<TermsStorage*>(mean_value + value_size);
    bias = reinterpret_cast<float*>(terms + 1);
    end = bias + (args.options.bias ? kKeyTile * kQueryTile : 0);
  }
};

int64_t ForwardScratchFloats(const AttentionForwardArgs& args) {
  float* const base = nullptr;
  return ForwardScratch(args, base).end - base;
}

// Where the results of a task go: the caller's arrays, or the partial results.
struct Results {
  void* output;
  DType dtype;
  int64_t output_base, output_head, output_length;  // as FindOffsets takes them
  float* statistics;
  int64_t statistics_base, statistics_head, statistics_length;
  float* logsumexp;
};

inline Results FindResults(const ForwardContext& context,
                           const AttentionTask& task) {
  const AttentionForwardArgs& args = context.args;
  if (context.plan.splits > 1) {
    float* const first =
        PartialResults(args.shape, context.plan, task.b, /*head=*/0, /*t=*/0);
    const int64_t length = PartialFloats(args.shape);
    const int64_t head = args.shape.query_len * length;
    return {first + 2, DType::kFloat32, 0,      head, length, first, 0,
            head,      length,          nullptr};
  }
  const Strides& strides = args.output.strides;
  return {args.output.data,
          args.dtype,
          QueryOffset(strides, context.plan, context.sequence, 0),
          strides.head,
          strides.length,
          static_cast<float*>(args.statistics),
          2 * context.sequence.statistics,
          2 * context.plan.statistics_stride,
          2,
          static_cast<float*>(args.logsumexp)};
}

// Columns [first, first + kLanes) of an output, times `factor`, as rows.
// Returns those with something infinite or NaN.
inline VecInt TransposeColumns(const float* output, Vec factor, int64_t size,
                               int rows, float* const (&to)[kLanes]) {
  // NaN where a product is not finite: one operation, not the three that look
  // at exponents, which cost 1.5 % of the kernel at 128 positions.
  Vec zeros{};
  int64_t h = 0;
  for (; h + kLanes <= size; h += kLanes) {
    Vec block[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      block[i] = Load(output + (h + i) * kQueryTile) * factor;
      zeros += block[i] * 0.0f;
    }
    Transpose(block);
    if (rows == kLanes)
      for (int i = 0; i < kLanes; ++i) Store(to[i] + h, block[i]);
    else
      for (int i = 0; i < rows; ++i) Store(to[i] + h, block[i]);
  }
  for (; h < size; ++h) {
    const Vec column = Load(output + h * kQueryTile) * factor;
    zeros += column * 0.0f;
    for (int i = 0; i < rows; ++i) to[i][h] = column[i];
  }
  return zeros != zeros;
}

// A row of an output, times `factor`. Returns whether all of it is finite.
inline bool ScaleRow(const float* output, float factor, int64_t size,
                     float* to) {
  Vec zeros{};  // as above
  int64_t h = 0;
  for (; h + kLanes <= size; h += kLanes) {
    const Vec row = Load(output + h) * factor;
    zeros += row * 0.0f;
    Store(to + h, row);
  }
  bool finite = !AnyTrue(zeros != zeros);
  for (; h < size; ++h) {
    to[h] = output[h] * factor;
    finite = finite && __builtin_isfinite(to[h]);
  }
  return finite;
}

// What the weights of queries are divided by: their sums. A query whose visible
// scores are all -infinity has no weight, and a sum of 0, from which its output
// becomes NaN. Where these are only a part of its keys, other parts may have
// weight: this one gives 0, or NaN where a value is not finite.
inline Vec WeightDivisor(const ForwardContext& context, Vec sum) {
  if (context.plan.splits == 1) return sum;
  return Select(sum == Vec{}, Broadcast(1.0f), sum);
}

// Divides by the sums and writes the output of kLanes lanes, from `first` on.
// Returns the lanes whose output is not finite although their sum is finite and
// positive.
inline uint32_t FinishOutput(const ForwardContext& context,
                             const Results& results,
                             const ForwardScratch& scratch,
                             const QueryTileState& tile, int first,
                             uint32_t sees, const float* mean_value) {
  const int64_t size = context.args.shape.value_dim;
  const int rows = static_cast<int>(Min(kLanes, tile.lanes.rows - first));
  const bool is_float32 = results.dtype == DType::kFloat32;
  int64_t places[kLanes];
  FindOffsets(tile.lanes, first, results.output_base, results.output_head,
              results.output_length, places);
  // A row goes to its place at once, if that is float32.
  float* to[kLanes];
  for (int i = 0; i < kLanes; ++i)
    to[i] = is_float32 ? static_cast<float*>(results.output) + places[i]
                       : scratch.rows + i * PadToVector(size);
  const Vec sum = Load(tile.sum + first);
  const Vec inverse =
      context.constants.keep_scale /
      (tile.normalized ? Broadcast(1.0f) : WeightDivisor(context, sum));
  uint32_t special = 0;
  if (context.layout.rows) {
    for (int i = 0; i < rows; ++i)
      if ((sees >> i & 1) &&
          !ScaleRow(tile.output + (first + i) * context.layout.size, inverse[i],
                    size, to[i]))
        special |= 1u << i;
  } else if (sees) {
    special =
        BitsOf(TransposeColumns(tile.output + first, inverse, size, rows, to));
  }
  // Without a sum there are no weights: NaN, as it is.
  if (special) special &= sees & BitsOf((sum > Vec{}) & ~NotFinite(sum));
  if (is_float32 && sees == UsedLanes(rows)) return special;
  const int64_t bytes = ElementBytes(results.dtype);
  for (int i = 0; i < rows; ++i) {
    if (is_float32 && (sees >> i & 1)) continue;
    void* const row = Element(results.output, places[i], results.dtype);
    if (!sees) PrefetchAhead(row, results.output_length * bytes, size * bytes);
    NarrowRow(sees >> i & 1 ? to[i] : mean_value, results.dtype, size, row);
  }
  return special;
}

// Writes output, statistics and logsumexp of a tile. Returns whether an output
// is not finite although its sum is.
inline bool FinishTile(const ForwardContext& context, const Results& results,
                       const ForwardScratch& scratch,
                       const QueryTileState& tile, const float* mean_value) {
  const uint32_t seeing = tile.seeing & tile.lanes.taking_part;
  uint32_t special = 0;
  for (int v = 0; v < tile.lanes.vectors; ++v) {
    const int first = v * kLanes;
    const int rows = static_cast<int>(Min(kLanes, tile.lanes.rows - first));
    const uint32_t sees = seeing >> first & UsedLanes(rows);
    special |=
        FinishOutput(context, results, scratch, tile, first, sees, mean_value);
    int64_t places[kLanes];
    FindOffsets(tile.lanes, first, results.statistics_base,
                results.statistics_head, results.statistics_length, places);
    float logsumexp[kLanes];
    if (results.logsumexp)
      Store(logsumexp, LogSumExp(context.constants, Load(tile.maximum + first),
                                 Load(tile.sum + first)));
    for (int i = 0; i < rows; ++i) {
      float* const to = results.statistics + places[i];
      to[0] = tile.maximum[first + i];
      to[1] = tile.sum[first + i];
      const bool sees_nothing = !(sees >> i & 1);
      if (sees_nothing) MarkSeesNothing(to);
      if (results.logsumexp)
        results.logsumexp[places[i] / 2] =
            sees_nothing ? LogSumExpOfNothing(context.args) : logsumexp[i];
    }
  }
  return special != 0;
}

// The parts of the keys of one batch entry and head become output, statistics
// and logsumexp, in the order of the parts.
void MergeSplits(const AttentionForwardArgs& args, const AttentionPlan& plan,
                 int64_t b, int64_t head, float* base) {
  const AttentionShape& shape = args.shape;
  const ForwardScratch scratch(args, base);
  const Sequence& sequence = plan.sequences[b * plan.splits];
  const ForwardContext context{args,
                               plan,
                               sequence,
                               MakeScoreConstants(args.options, plan),
                               OutputLayout(shape),
                               nullptr,
                               nullptr,
                               nullptr,
                               nullptr,
                               nullptr,
                               nullptr};
  bool mean_known = false;
  for (int64_t t = 0; t < shape.query_len; ++t) {
    const auto part = [&](int64_t i) {
      return PartialResults(shape, plan, b * plan.splits + i, head, t);
    };
    // A part that is seen but has no weight, all scores -infinity, has no
    // maximum. Its output is 0, or NaN where a value is not finite.
    float maximum = -kInfinity;
    bool sees_nothing = true;
    for (int64_t i = 0; i < plan.splits; ++i) {
      const float* from = part(i);
      if (SeesNothing(from)) continue;
      sees_nothing = false;
      if (from[1] != 0.0f && !(from[0] <= maximum)) maximum = from[0];
    }
    if (sees_nothing) maximum = 0.0f;
    float sum = sees_nothing ? kSumOfNothing : 0.0f;
    float* const output = scratch.rows;
    const auto weight_of = [&](const float* from) {
      if (from[1] == 0.0f) return 0.0f;
      const Vec rescale =
          Exp2(Broadcast((from[0] - maximum) * context.constants.factor));
      return from[1] * rescale[0];
    };
    for (int64_t h = 0; h < shape.value_dim; ++h) output[h] = 0.0f;
    for (int64_t i = 0; i < plan.splits; ++i) {
      const float* from = part(i);
      if (SeesNothing(from)) continue;
      const float weight = weight_of(from);
      sum += weight;
      for (int64_t h = 0; h < shape.value_dim; ++h)
        output[h] += weight * from[2 + h];
    }
    // Large outputs times weights above 1: the same with weights of at most 1.
    bool finite = true;
    for (int64_t h = 0; h < shape.value_dim; ++h)
      finite = finite && __builtin_isfinite(output[h]);
    const bool again = !finite && __builtin_isfinite(sum) && sum > 0;
    if (again) {
      for (int64_t h = 0; h < shape.value_dim; ++h) output[h] = 0.0f;
      for (int64_t i = 0; i < plan.splits; ++i) {
        const float* from = part(i);
        if (SeesNothing(from)) continue;
        const float share = weight_of(from) / sum;
        for (int64_t h = 0; h < shape.value_dim; ++h)
          output[h] += share * from[2 + h];
      }
    }
    const float divisor = again ? 1.0f : sum;
    if (sees_nothing && !mean_known) {
      MeanValue(context, head / plan.group, scratch.value_sum,
                scratch.mean_value);
      mean_known = true;
    }
    for (int64_t h = 0; h < shape.value_dim; ++h)
      output[h] = sees_nothing ? scratch.mean_value[h] : output[h] / divisor;
    WriteResults(args, plan, sequence, context.constants, head, t, output,
                 maximum, sum);
  }
}

}  // namespace
}  // namespace hw3tf
