// The forward pass, second step: the values, weighted, and the keys of a tile
// with both steps.

#pragma once

#include "kernels/attention_forward_scores-inl.h"

namespace hw3tf {
namespace {

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
                      float* row, double* sum, float* mean) {
  const ConstArray& value = context.args.value;
  const int64_t size = context.args.shape.value_dim;
  const int64_t count = context.sequence.key_len;
  const int64_t first =
      KeyOffset(value.strides, context.plan, context.sequence, kv_head);
  for (int64_t h = 0; h < size; ++h) sum[h] = 0.0;
  for (int64_t s = 0; s < count; ++s) {
    WidenRow(Element(value.data, first + s * value.strides.length,
                     context.args.dtype),
             context.args.dtype, size, size, row);
    for (int64_t h = 0; h < size; ++h) sum[h] += static_cast<double>(row[h]);
  }
  for (int64_t h = 0; h < size; ++h)
    mean[h] =
        count ? static_cast<float>(sum[h] / static_cast<double>(count)) : 0.0f;
}

}  // namespace
}  // namespace hw3tf
