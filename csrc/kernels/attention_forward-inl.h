// The forward pass of one instruction set.
//
// Queries live in the lanes. A query tile is kept transposed, [H][kQueryTile];
// keys and values are read in place and broadcast. For kRows keys at a time,
// while their products are still in registers: subtract the running maximum,
// multiply by |scale| * log2(e), compare once with a threshold, take 2^x, store
// the probabilities, add them to the sum. Then the output tile,
// [value_dim][kQueryTile], takes probabilities * values.
//
// The maximum is raised lazily: only when a score exceeds it by more than
// kRaiseAbove, so that rescaling, the costly step of the online softmax, leaves
// the loop (1-2 % over the whole kernel against rescaling at every tile).
// The maximum is that of the products, before the scale, and is subtracted from
// them before they are scaled: the exponent of the largest is exactly 0, and
// the error of the others is relative to their own size, however large the
// products. What lost: accumulating from -maximum (every partial sum is rounded
// at the size of the maximum), scaling the queries beforehand (every one of
// them is rounded: gradients 2.7 times as wrong as Keras's with scores in the
// hundreds), scaling and subtracting in one multiply-add (16 times, with scores
// near -3000).

#pragma once

#include "kernels/attention_pack-inl.h"

namespace hw3tf {
namespace {

// Exponents of 2. Sums of 2^24 per key stay far below the float range.
constexpr float kRaiseAbove = 24.0f;
// Stands for the product with a hidden key.
constexpr float kHidden = -3.0e38f;
constexpr float kVisibleAbove = -1.0e38f;

// The state of one query tile; all arrays in scratch.
struct QueryTileState {
  float* query;     // [H][kQueryTile]
  float* output;    // [value_dim][kQueryTile], not yet divided by the sum
  float* maximum;   // [kQueryTile], of the products, not scaled
  float* sum;       // [kQueryTile], over the tiles that are done
  float* tile_sum;  // [kQueryTile], over the present tile: adding tile by tile
                    // rounds less than adding key by key
  int64_t first;    // position of lane 0
  int64_t rows;     // lanes in use
  bool active;      // some query of it sees a key
  bool all_seen;    // every lane has a maximum
};

// A key tile, in place or gathered.
struct KeyTileView {
  const float* key;
  int64_t key_stride;
  const float* value;
  int64_t value_stride;
  VisibleKeys keys;
  const int32_t* positions;
};

// Raises the maximum of the lanes in `raise` to the largest product, `top`, and
// rescales what was accumulated under the old one: the sums, the output
// and the `done` rows of probabilities of this tile.
__attribute__((noinline, cold)) void RaiseMaximum(
    const QueryTileState& tile, float* probabilities, int64_t done,
    int64_t value_dim, float factor, const Vec (&top)[2],
    const VecInt (&raise)[2]) {
  for (int v = 0; v < 2; ++v) {
    const int64_t lane = v * kLanes;
    const Vec old = Load(tile.maximum + lane);
    const Vec raised = Select(raise[v], top[v], old);
    Store(tile.maximum + lane, raised);
    // A lane without a sum has nothing to rescale, and its first maximum may be
    // so low that the factor would overflow.
    const Vec sum = Load(tile.sum + lane),
              tile_sum = Load(tile.tile_sum + lane);
    const Vec rescale = Select(sum + tile_sum == Vec{}, Broadcast(1.0f),
                               Exp2((old - raised) * factor));
    Store(tile.sum + lane, sum * rescale);
    Store(tile.tile_sum + lane, tile_sum * rescale);
    for (int64_t h = 0; h < value_dim; ++h) {
      float* at = tile.output + h * kQueryTile + lane;
      Store(at, Load(at) * rescale);
    }
    for (int64_t k = 0; k < done; ++k) {
      float* at = probabilities + k * kQueryTile + lane;
      Store(at, Load(at) * rescale);
    }
  }
}

// Scores and probabilities of R keys against a query tile. kHide: some key is
// hidden from some lane by causality.
template <bool kHide>
struct ScoreGroup {
  const KeyTileView& view;
  QueryTileState& tile;
  int64_t first_key;  // index in the view of key 0 of this range
  int64_t head_dim;
  int64_t value_dim;
  float factor;          // |scale| * log2(e)
  float* probabilities;  // [key in view][kQueryTile]

  template <int R>
  void Run(int64_t offset) const {
    const int64_t key = first_key + offset;
    Vec score[R][2] = {};
    MultiplyAdd<R, 2, Contiguous::kAlongDepth>(
        {view.key + key * view.key_stride, view.key_stride},
        {tile.query, kQueryTile}, head_dim, score);
    Vec top[2];
    VecInt raise[2];
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      top[v] = Broadcast(-kInfinity);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r)
        top[v] = Max(Visible(key + r, v, score[r][v], kHidden), top[v]);
      const Vec above = (top[v] - Load(tile.maximum + v * kLanes)) * factor;
      raise[v] = above > kRaiseAbove;
    }
    if (kHide || !tile.all_seen) RaiseUnseen(top, raise);
    if (__builtin_expect(AnyTrue(raise[0] | raise[1]), 0))
      RaiseMaximum(tile, probabilities, key, value_dim, factor, top, raise);

#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const Vec maximum = Load(tile.maximum + v * kLanes);
      Vec sum{};
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const Vec p =
            Visible(key + r, v, Exp2((score[r][v] - maximum) * factor), 0.0f);
        Store(probabilities + (key + r) * kQueryTile + v * kLanes, p);
        sum += p;
      }
      float* at = tile.tile_sum + v * kLanes;
      Store(at, Load(at) + sum);
    }
    if (!kHide && !tile.all_seen)
      tile.all_seen = !AnyTrue(Unseen(0)) && !AnyTrue(Unseen(1));
  }

  VecInt Unseen(int v) const {
    return Load(tile.sum + v * kLanes) + Load(tile.tile_sum + v * kLanes) ==
           Vec{};
  }

  // A lane that has seen nothing takes the first visible product as its
  // maximum, however low it is.
  void RaiseUnseen(const Vec (&top)[2], VecInt (&raise)[2]) const {
    for (int v = 0; v < 2; ++v)
      raise[v] |= Unseen(v) & (top[v] > kVisibleAbove);
  }

  // `value` in the lanes that see the key, `otherwise` in the others.
  Vec Visible(int64_t key, int v, Vec value, float otherwise) const {
    if (!kHide) return value;
    const VecInt query = Iota(static_cast<int32_t>(tile.first) + v * kLanes);
    const VecInt position = BroadcastInt(
        static_cast<int32_t>(KeyPosition(view.keys, view.positions, key)));
    return Select(position <= query, value, Broadcast(otherwise));
  }
};

inline bool AllFinite(const float* rows, int64_t stride, int64_t count,
                      int64_t size) {
  for (int64_t i = 0; i < count; ++i) {
    float nan_if_not_finite = 0.0f;
    for (int64_t h = 0; h < size; ++h)
      nan_if_not_finite += rows[i * stride + h] * 0.0f;
    if (!(nan_if_not_finite == 0.0f)) return false;
  }
  return true;
}

// output += probabilities * values for keys [begin, end) of which each lane
// takes only those it sees: the product would turn a hidden NaN into 0 * NaN.
__attribute__((noinline, cold)) void AddVisibleValues(
    const KeyTileView& view, const QueryTileState& tile,
    const float* probabilities, int64_t begin, int64_t end, int64_t value_dim) {
  for (int64_t k = begin; k < end; ++k) {
    const int64_t position = KeyPosition(view.keys, view.positions, k);
    for (int64_t lane = 0; lane < kQueryTile; ++lane) {
      if (position > tile.first + lane) continue;
      for (int64_t h = 0; h < value_dim; ++h)
        tile.output[h * kQueryTile + lane] +=
            probabilities[k * kQueryTile + lane] *
            view.value[k * view.value_stride + h];
    }
  }
}

// Adds one key tile to one query tile.
inline void AddKeyTile(const AttentionShape& shape,
                       const AttentionOptions& options, const KeyTileView& view,
                       QueryTileState& tile, float* probabilities) {
  // Keys [0, full) are visible to all lanes, [full, count) to some.
  int64_t full = view.keys.count, count = view.keys.count;
  if (options.is_causal) {
    full = CountUpTo(view.keys, view.positions, tile.first);
    count = CountUpTo(view.keys, view.positions, tile.first + tile.rows - 1);
  }
  if (count == 0) return;
  for (int v = 0; v < 2; ++v) Store(tile.tile_sum + v * kLanes, Vec{});
  const float factor = Factor(options);
  ForRowGroups(full, ScoreGroup<false>{view, tile, 0, shape.head_dim,
                                       shape.value_dim, factor, probabilities});
  ForRowGroups(count - full,
               ScoreGroup<true>{view, tile, full, shape.head_dim,
                                shape.value_dim, factor, probabilities});
  for (int v = 0; v < 2; ++v) {
    float* sum = tile.sum + v * kLanes;
    Store(sum, Load(sum) + Load(tile.tile_sum + v * kLanes));
  }

  int64_t depth = count;
  if (!AllFinite(view.value + full * view.value_stride, view.value_stride,
                 count - full, shape.value_dim)) {
    depth = full;
    AddVisibleValues(view, tile, probabilities, full, count, shape.value_dim);
  }
  Multiply<Contiguous::kAlongRows>({{view.value, view.value_stride},
                                    {probabilities, kQueryTile},
                                    depth,
                                    tile.output,
                                    kQueryTile,
                                    kQueryTile,
                                    /*accumulate=*/true},
                                   shape.value_dim);
}

// Mean of all S values of one head, masked ones too: what Keras gives to a
// query that sees no key. Summed in double, S can be long.
inline void MeanValue(const AttentionForwardArgs& args, int64_t b,
                      int64_t kv_head, double* sum, float* mean) {
  const int64_t size = args.shape.value_dim, count = args.shape.key_len;
  const float* value = Head(args.value, b, kv_head);
  for (int64_t h = 0; h < size; ++h) sum[h] = 0.0;
  for (int64_t s = 0; s < count; ++s)
    for (int64_t h = 0; h < size; ++h)
      sum[h] += static_cast<double>(value[s * args.value.strides.length + h]);
  for (int64_t h = 0; h < size; ++h)
    mean[h] = static_cast<float>(sum[h] / static_cast<double>(count));
}

}  // namespace
}  // namespace hw3tf
