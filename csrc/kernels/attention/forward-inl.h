// One task of the forward pass: a block of query rows of one key/value head, or
// a part of one, against all the keys they see.

#pragma once

#include "kernels/attention/forward_tile-inl.h"

namespace hw3tf {
namespace {

// Whether the units of a row lie as they are in the caller's array.
inline bool RowIsUnits(DType dtype, int64_t size) {
  return kPairs ? size % 2 == 0 : dtype == DType::kFloat32;
}

// Copies rows to [count][units of size], padded with zeros to whole units (or,
// if a unit is a number, to `padded` of them).
inline void CopyUnits(const void* rows, DType dtype, int64_t stride,
                      int64_t count, int64_t size, int64_t padded, float* to) {
  if (!kPairs) {
    CopyRows(rows, dtype, stride, 0, count, size, padded, to);
    return;
  }
  const int64_t whole = size / 2 / kLanes * kLanes;
  for (int64_t i = 0; i < count; ++i, to += Units(size)) {
    const auto* from =
        static_cast<const float*>(Element(rows, i * stride, dtype));
    for (int64_t h = 0; h < whole; h += kLanes) Store(to + h, Load(from + h));
    if (2 * whole == size) continue;
    to[Units(size) - 1] = 0.0f;  // an odd size has no last half
    std::memcpy(to + whole, from + whole,
                static_cast<size_t>((size - 2 * whole) * ElementBytes(dtype)));
  }
}

// Copies rows to [units of count][padded]: a pair is of two rows.
inline void PairRows(const uint16_t* rows, int64_t stride, int64_t count,
                     int64_t size, int64_t padded, float* to) {
  for (int64_t i = 0; i < count; i += 2, to += padded) {
    const uint16_t* first = rows + i * stride;
    const uint16_t* second = i + 1 < count ? first + stride : nullptr;
    int64_t h = 0;
    for (; h + kLanes <= size; h += kLanes) {
      // A half widened to float32 is the upper half of the pair.
      const VecInt upper = second ? Bits(WidenBfloat16(second + h)) : VecInt{};
      const VecInt lower = Bits(WidenBfloat16(first + h));
      Store(to + h, FromBits(upper | ((lower >> 16) & 0xFFFF)));
    }
    for (; h < size; ++h) {
      const uint32_t upper = second ? second[h] : 0;
      const uint32_t pair = upper << 16 | first[h];
      std::memcpy(to + h, &pair, sizeof pair);
    }
    for (; h < padded; ++h) to[h] = 0.0f;
  }
}

// Packs the queries of one tile and resets its state.
inline void StartTile(const ForwardContext& context, const AttentionTask& task,
                      const ForwardScratch& scratch, int64_t index,
                      QueryTileState* tile) {
  const AttentionForwardArgs& args = context.args;
  const int64_t size = args.shape.head_dim, units = Units(size);
  tile->query = scratch.query + index * units * kQueryTile;
  tile->output = scratch.output + index * context.layout.size * kQueryTile;
  tile->maximum = scratch.statistics + index * 3 * kQueryTile;
  tile->sum = tile->maximum + kQueryTile;
  tile->tile_sum = tile->sum + kQueryTile;
  tile->has_output = false;
  tile->seeing = 0;
  tile->all_summed = false;
  tile->normalized = false;
  const int64_t skip = index * kQueryTile;
  FindQueryLanes(context.plan, context.sequence, task.kv_head,
                 task.first + skip, Min(kQueryTile, task.count - skip),
                 &tile->lanes);
  tile->keys = FindKeyRange(context.plan, context.sequence, tile->lanes.first,
                            tile->lanes.last);
  if (!tile->lanes.taking_part) tile->keys.end = tile->keys.begin;
  if (tile->keys.begin >= tile->keys.end) return;

  for (int v = 0; v < tile->lanes.vectors; ++v) {
    const Strides& strides = args.query.strides;
    int64_t offsets[kLanes];
    FindOffsets(tile->lanes, v * kLanes,
                QueryOffset(strides, context.plan, context.sequence, 0),
                strides.head, strides.length, offsets);
    const float* rows[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const void* row = Element(args.query.data, offsets[i], args.dtype);
      rows[i] = static_cast<const float*>(row);
      if (RowIsUnits(args.dtype, size)) continue;
      float* copy = scratch.rows + i * PadToVector(size);
      CopyUnits(row, args.dtype, 0, 1, size, size, copy);
      rows[i] = copy;
    }
    PackColumns(rows, units, SignBits(args.options), tile->query + v * kLanes);
    Store(tile->maximum + v * kLanes, Vec{});
    Store(tile->sum + v * kLanes, Vec{});
  }
}

// Whether the values of a block of few query tiles are copied all the same:
// where their rows lie a multiple of 4096 bytes apart they share their places
// in the first cache, and the product reads a part of every row at a time (16
// heads of 64, 128 keys: 8 % of the whole kernel; 12 heads: 0-1 % won, 8 heads:
// 2 % lost). Keys are read row by row; copying them too lost 4 %.
inline bool RowsCollide(const ConstArray& array) {
  constexpr int64_t kColliding = 4096 / sizeof(float);
  return array.strides.length % kColliding == 0;
}

// Keys and values [begin, end): in place, or copied to lie densely, where many
// query tiles share them. Far rows cost address translations at every reading:
// in a prototype on a Zen 4, 4096 keys of H = 128 ran at 62-83 % of the peak in
// place, copied at 88-91 %. For four query tiles copying is the slower by 2-5
// %.
inline KeyTileView ViewKeys(const ForwardContext& context,
                            const AttentionTask& task,
                            const ForwardScratch& scratch, int64_t tile_count,
                            int64_t begin, int64_t end) {
  constexpr int64_t kFewTiles = 4;
  const AttentionForwardArgs& args = context.args;
  const int64_t count = end - begin;
  const int64_t head_dim = args.shape.head_dim;
  const int64_t value_dim = args.shape.value_dim, padded = context.layout.size;
  const bool many = tile_count > kFewTiles;
  const auto first_row = [&](const ConstArray& array) {
    const int64_t head =
        KeyOffset(array.strides, context.plan, context.sequence, task.kv_head);
    return Element(array.data, head + begin * array.strides.length, args.dtype);
  };
  const auto view = [&](const ConstArray& array, int64_t size, int64_t to_size,
                        bool copy, float* to, const float** rows,
                        int64_t* stride) {
    *rows = static_cast<const float*>(first_row(array));
    *stride = array.strides.length / kUnitDepth;
    const bool in_place = RowIsUnits(args.dtype, size) && size == to_size &&
                          array.strides.length % kUnitDepth == 0;
    if (in_place && (!copy || *stride == Units(size))) return;
    CopyUnits(*rows, args.dtype, array.strides.length, count, size, to_size,
              to);
    *rows = to;
    *stride = Units(to_size);
  };
  KeyTileView tile;
  tile.first = begin;
  view(args.key, head_dim, head_dim, many, scratch.key, &tile.key,
       &tile.key_stride);
  if (kPairs) {
    PairRows(static_cast<const uint16_t*>(first_row(args.value)),
             args.value.strides.length, count, value_dim, padded,
             scratch.value);
    tile.value = scratch.value;
    tile.value_stride = padded;
  } else {
    view(args.value, value_dim, padded, many || RowsCollide(args.value),
         scratch.value, &tile.value, &tile.value_stride);
  }
  return tile;
}

// Keys and values [begin, end) of a task.
inline void PrefetchKeyTile(const ForwardContext& context,
                            const AttentionTask& task, int64_t begin,
                            int64_t end) {
  const AttentionForwardArgs& args = context.args;
  const auto prefetch = [&](const ConstArray& array, int64_t size) {
    PrefetchKeys(context.plan, args.dtype, task, array.data, array.strides,
                 size, begin, end - begin, /*to_write=*/false,
                 context.prefetcher);
  };
  prefetch(args.key, args.shape.head_dim);
  prefetch(args.value, args.shape.value_dim);
}

// Whether this thread is likely to have the keys and values of a task in its
// cache, because the task before was of the same head.
inline bool HasKeys(const ForwardContext& context, const AttentionTask& task) {
  constexpr int64_t kCached = 1 << 20;  // bytes: half of an L2 of today
  const AttentionShape& shape = context.args.shape;
  const AttentionTask* before = &task - context.plan.tasks_ahead;
  const Sequence& sequence = context.plan.sequences[task.b];
  return before >= context.plan.tasks && before->b == task.b &&
         before->kv_head == task.kv_head &&
         (sequence.key_end - sequence.key_begin) *
                 (shape.head_dim + shape.value_dim) *
                 ElementBytes(context.args.dtype) <=
             kCached;
}

// Prefetches for the time when the last tile of keys is done: the places of the
// output, and the first inputs of the task that this thread is likely to take
// next.
inline void PrefetchNextTask(const ForwardContext& context,
                             const AttentionTask& task) {
  const AttentionForwardArgs& args = context.args;
  if (context.plan.splits == 1)
    PrefetchQueries(context.plan, args.dtype, task, args.output.data,
                    args.output.strides, args.shape.value_dim, task.first,
                    task.count, /*to_write=*/true, context.prefetcher);
  const AttentionTask* next = &task + context.plan.tasks_ahead;
  if (next >= context.plan.tasks + context.plan.num_tasks) return;
  PrefetchQueries(context.plan, args.dtype, *next, args.query.data,
                  args.query.strides, args.shape.head_dim, next->first,
                  next->count, /*to_write=*/false, context.prefetcher);
  if (HasKeys(context, *next)) return;
  const int64_t group = context.plan.group;
  const KeyRange keys = FindKeyRange(
      context.plan, context.plan.sequences[next->b], next->first / group,
      (next->first + next->count - 1) / group);
  PrefetchKeyTile(context, *next, keys.begin,
                  Min(keys.end, keys.begin + kKeyTile));
}

// The output of a tile once more, from weights divided by their sums, which are
// known by now: no product exceeds the largest value, so that finite values
// give finite outputs, as in Keras.
__attribute__((noinline, cold)) void RecomputeTile(
    const ForwardContext& context, const AttentionTask& task,
    const Results& results, const ForwardScratch& scratch,
    QueryTileState* tile) {
  for (int v = 0; v < 2; ++v)
    Store(tile->tile_sum + v * kLanes,
          1.0f / WeightDivisor(context, Load(tile->sum + v * kLanes)));
  tile->normalized = true;
  tile->has_output = false;
  for (int64_t first = tile->keys.begin; first < tile->keys.end;
       first += kKeyTile) {
    const int64_t last = Min(tile->keys.end, first + kKeyTile);
    const KeyTileView view =
        ViewKeys(context, task, scratch, /*tile_count=*/1, first, last);
    if (tile->lanes.vectors == 2)
      AddKeysWithTerms<2>(context, view, tile, first, last);
    else
      AddKeysWithTerms<1>(context, view, tile, first, last);
  }
  FinishTile(context, results, scratch, *tile, scratch.mean_value);
}

// The keys that some query of the whole block sees.
inline KeyRange KeysOfBlock(const ForwardContext& context,
                            const AttentionTask& task) {
  KeyRange all{context.sequence.key_len, 0, 0, 0};
  QueryLanes lanes;
  for (int64_t skip = 0; skip < task.block_count; skip += kQueryTile) {
    FindQueryLanes(context.plan, context.sequence, task.kv_head,
                   task.block_first + skip,
                   Min(kQueryTile, task.block_count - skip), &lanes);
    const KeyRange keys =
        FindKeyRange(context.plan, context.sequence, lanes.first, lanes.last);
    if (!lanes.taking_part || keys.begin >= keys.end) continue;
    all.begin = Min(all.begin, keys.begin);
    all.end = Max(all.end, keys.end);
  }
  return all;
}

void Forward(const AttentionForwardArgs& args, const AttentionPlan& plan,
             const AttentionTask& task, float* base) {
  const ForwardScratch scratch(args, base);
  Prefetcher prefetcher;
  const ForwardContext context{args,
                               plan,
                               plan.sequences[task.b],
                               MakeScoreConstants(args.options, plan),
                               OutputLayout(args.shape),
                               scratch.products,
                               scratch.probabilities,
                               scratch.bias,
                               scratch.finite_value,
                               scratch.terms,
                               &prefetcher};
  QueryTileState tiles[kTilesPerBlock];
  const int64_t tile_count = CeilDiv(task.count, kQueryTile);
  int64_t begin = context.sequence.key_len, end = 0;
  for (int64_t i = 0; i < tile_count; ++i) {
    StartTile(context, task, scratch, i, &tiles[i]);
    if (tiles[i].keys.begin >= tiles[i].keys.end) continue;
    begin = Min(begin, tiles[i].keys.begin);
    end = Max(end, tiles[i].keys.end);
  }

  // The key tiles are those of the whole block.
  int64_t start = begin, stop = end;
  if (task.count < task.block_count && begin < end) {
    const KeyRange keys = KeysOfBlock(context, task);
    start = keys.begin;
    stop = keys.end;
  }
  const int64_t key_tile =
      EvenTile(stop - start, Min(kKeyTile, plan.key_tile), kRows);
  const bool has_keys = HasKeys(context, task);
  for (int64_t first = begin - (begin - start) % key_tile; first < end;
       first += key_tile) {
    const int64_t last = Min(end, first + key_tile);
    const KeyTileView view =
        ViewKeys(context, task, scratch, tile_count, first, last);
    prefetcher.Clear();
    if (last == end)
      PrefetchNextTask(context, task);
    else if (!has_keys)
      PrefetchKeyTile(context, task, last, Min(end, last + key_tile));
    const int64_t rows =
        context.layout.rows ? kQueryTile : args.shape.value_dim;
    prefetcher.SpreadOver(tile_count * ((last - first + rows) / kRows));
    for (int64_t i = 0; i < tile_count; ++i) {
      int64_t from = Max(first, tiles[i].keys.begin);
      from -= (from - first) % kUnitDepth;
      const int64_t to = Min(last, tiles[i].keys.end);
      if (from >= to) continue;
      if (tiles[i].lanes.vectors == 2)
        AddKeys<2>(context, view, &tiles[i], from, to);
      else
        AddKeys<1>(context, view, &tiles[i], from, to);
    }
  }

  bool any_see_nothing = false;
  for (int64_t i = 0; i < tile_count; ++i) {
    const uint32_t used = UsedLanes(tiles[i].lanes.rows);
    any_see_nothing |=
        (tiles[i].seeing & tiles[i].lanes.taking_part & used) != used;
  }
  if (any_see_nothing && plan.splits == 1)
    MeanValue(context, task.kv_head, scratch.value_sum, scratch.mean_value);
  const Results results = FindResults(context, task);
  for (int64_t i = 0; i < tile_count; ++i) {
    const bool overflows =
        FinishTile(context, results, scratch, tiles[i], scratch.mean_value);
    if (__builtin_expect(overflows, 0))
      RecomputeTile(context, task, results, scratch, &tiles[i]);
  }
}

}  // namespace
}  // namespace hw3tf
