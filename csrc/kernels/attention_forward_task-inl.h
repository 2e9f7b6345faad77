// One task of the forward pass: a block of queries of one head against all the
// keys it sees.

#pragma once

#include "kernels/attention_forward-inl.h"

namespace hw3tf {
namespace {

constexpr int kTilesPerBlock = kQueryBlock / kQueryTile;

// The scratch of one thread, carved from one array of floats.
struct ForwardScratch {
  float* query;          // [tiles][H][kQueryTile]
  float* output;         // [tiles][value_dim][kQueryTile]
  float* statistics;     // [tiles][3][kQueryTile]: maximum, sum, tile sum
  float* probabilities;  // [kKeyTile][kQueryTile]
  float* key;            // [kKeyTile][H padded], gathered
  float* value;          // [kKeyTile][value_dim padded], gathered
  double* value_sum;     // [value_dim padded]
  float* mean_value;     // [value_dim padded]
  int32_t* positions;    // [kKeyTile]
  float* end;

  ForwardScratch(const AttentionShape& shape, float* base) {
    const int64_t key_size = PadToVector(shape.head_dim);
    const int64_t value_size = PadToVector(shape.value_dim);
    query = base;
    output = query + kTilesPerBlock * shape.head_dim * kQueryTile;
    statistics = output + kTilesPerBlock * shape.value_dim * kQueryTile;
    probabilities = statistics + kTilesPerBlock * 3 * kQueryTile;
    key = probabilities + kKeyTile * kQueryTile;
    value = key + kKeyTile * key_size;
    value_sum = reinterpret_cast<double*>(value + kKeyTile * value_size);
    mean_value = reinterpret_cast<float*>(value_sum + value_size);
    positions = reinterpret_cast<int32_t*>(mean_value + value_size);
    end = reinterpret_cast<float*>(positions + kKeyTile);
  }
};

int64_t ForwardTasks(const AttentionShape& shape) {
  return shape.batch * shape.num_heads * CeilDiv(shape.query_len, kQueryBlock);
}

int64_t ForwardScratchFloats(const AttentionShape& shape) {
  float* const base = nullptr;
  return ForwardScratch(shape, base).end - base;
}

struct ForwardTask {
  int64_t b, head, kv_head;
  int64_t first, rows;  // queries
};

inline ForwardTask DecodeForwardTask(const AttentionForwardArgs& args,
                                     int64_t task) {
  const AttentionShape& shape = args.shape;
  const int64_t blocks = CeilDiv(shape.query_len, kQueryBlock);
  int64_t block = task % blocks;
  // Causal blocks grow with their position: the longest first, so that the
  // threads finish together.
  if (args.options.is_causal) block = blocks - 1 - block;
  ForwardTask result;
  result.head = task / blocks % shape.num_heads;
  result.b = task / blocks / shape.num_heads;
  result.kv_head = result.head / (shape.num_heads / shape.num_kv_heads);
  result.first = block * kQueryBlock;
  result.rows = Min(kQueryBlock, shape.query_len - result.first);
  return result;
}

// Packs the queries of one tile and resets its state.
inline void StartTile(const AttentionForwardArgs& args, const ForwardTask& task,
                      const ForwardScratch& scratch, int64_t index,
                      int64_t first_visible_key, QueryTileState* tile) {
  const AttentionShape& shape = args.shape;
  tile->query = scratch.query + index * shape.head_dim * kQueryTile;
  tile->output = scratch.output + index * shape.value_dim * kQueryTile;
  tile->maximum = scratch.statistics + index * 3 * kQueryTile;
  tile->sum = tile->maximum + kQueryTile;
  tile->tile_sum = tile->sum + kQueryTile;
  tile->first = task.first + index * kQueryTile;
  tile->rows = Min(kQueryTile, task.first + task.rows - tile->first);
  tile->all_seen = false;
  tile->active = false;
  for (int64_t i = 0; i < tile->rows; ++i)
    tile->active |= SeesAKey(shape, args.options, task.b, tile->first + i,
                             first_visible_key);
  if (!tile->active) return;

  const float* query = Head(args.query, task.b, task.head);
  for (int v = 0; v < 2; ++v) {
    const float* rows[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const int64_t lane = v * kLanes + i;
      rows[i] = lane < tile->rows
                    ? query + (tile->first + lane) * args.query.strides.length
                    : nullptr;
    }
    PackColumns(rows, shape.head_dim, Sign(args.options),
                tile->query + v * kLanes);
    Store(tile->maximum + v * kLanes, Vec{});
    Store(tile->sum + v * kLanes, Vec{});
  }
  for (int64_t i = 0; i < shape.value_dim * kQueryTile; i += kLanes)
    Store(tile->output + i, Vec{});
}

// Divides by the sums, transposes back and writes output and statistics.
inline void FinishTile(const AttentionForwardArgs& args,
                       const ForwardTask& task, const QueryTileState& tile,
                       const float* mean_value, int64_t first_visible_key) {
  const AttentionShape& shape = args.shape;
  const int64_t size = shape.value_dim, stride = args.output.strides.length;
  float* output = Head(args.output, task.b, task.head) + tile.first * stride;
  float* statistics =
      args.statistics +
      2 * ((task.b * shape.num_heads + task.head) * shape.query_len +
           tile.first);
  for (int v = 0; tile.active && v < 2; ++v) {
    const int64_t lane = v * kLanes;
    const int rows = static_cast<int>(Min(kLanes, tile.rows - lane));
    const Vec inverse = 1.0f / Load(tile.sum + lane);
    int64_t h = 0;
    for (; h + kLanes <= size; h += kLanes) {
      Vec block[kLanes];
      for (int i = 0; i < kLanes; ++i)
        block[i] = Load(tile.output + (h + i) * kQueryTile + lane) * inverse;
      Transpose(block);
      for (int i = 0; i < rows; ++i)
        Store(output + (lane + i) * stride + h, block[i]);
    }
    for (; h < size; ++h) {
      const Vec column = Load(tile.output + h * kQueryTile + lane) * inverse;
      for (int i = 0; i < rows; ++i)
        output[(lane + i) * stride + h] = column[i];
    }
    for (int i = 0; i < rows; ++i) {
      statistics[2 * (lane + i)] = tile.maximum[lane + i];
      statistics[2 * (lane + i) + 1] = tile.sum[lane + i];
    }
  }
  for (int64_t i = 0; i < tile.rows; ++i) {
    if (SeesAKey(shape, args.options, task.b, tile.first + i,
                 first_visible_key))
      continue;
    for (int64_t h = 0; h < size; ++h) output[i * stride + h] = mean_value[h];
    MarkBlind(statistics + 2 * i);
  }
}

// The visible keys of [start, end): in place if they lie side by side,
// otherwise gathered into scratch, so that masked keys cost no arithmetic.
inline KeyTileView ViewKeys(const AttentionForwardArgs& args,
                            const ForwardTask& task,
                            const ForwardScratch& scratch, int64_t start,
                            int64_t end) {
  const AttentionShape& shape = args.shape;
  const uint8_t* mask = args.options.key_mask
                            ? args.options.key_mask + task.b * shape.key_len
                            : nullptr;
  const float* key = Head(args.key, task.b, task.kv_head);
  const float* value = Head(args.value, task.b, task.kv_head);
  KeyTileView view;
  view.positions = scratch.positions;
  view.keys = FindVisibleKeys(mask, start, end, scratch.positions);
  view.key_stride = args.key.strides.length;
  view.value_stride = args.value.strides.length;
  view.key = key + view.keys.first * view.key_stride;
  view.value = value + view.keys.first * view.value_stride;
  if (!view.keys.contiguous) {
    const int64_t key_size = PadToVector(shape.head_dim);
    const int64_t value_size = PadToVector(shape.value_dim);
    GatherRows(key, view.key_stride, view.keys, view.positions, shape.head_dim,
               key_size, scratch.key);
    GatherRows(value, view.value_stride, view.keys, view.positions,
               shape.value_dim, value_size, scratch.value);
    view.key = scratch.key;
    view.key_stride = key_size;
    view.value = scratch.value;
    view.value_stride = value_size;
  }
  return view;
}

void Forward(const AttentionForwardArgs& args, int64_t task_index,
             float* base) {
  const AttentionShape& shape = args.shape;
  const ForwardTask task = DecodeForwardTask(args, task_index);
  const ForwardScratch scratch(shape, base);
  const int64_t first_visible_key =
      FirstVisibleKey(shape, args.options, task.b);

  QueryTileState tiles[kTilesPerBlock];
  const int64_t tile_count = CeilDiv(task.rows, kQueryTile);
  bool any_active = false, any_blind = false;
  for (int64_t i = 0; i < tile_count; ++i) {
    StartTile(args, task, scratch, i, first_visible_key, &tiles[i]);
    any_active |= tiles[i].active;
  }
  for (int64_t i = 0; i < task.rows; ++i)
    any_blind |= !SeesAKey(shape, args.options, task.b, task.first + i,
                           first_visible_key);
  if (any_blind)
    MeanValue(args, task.b, task.kv_head, scratch.value_sum,
              scratch.mean_value);

  const int64_t end = args.options.is_causal
                          ? Min(shape.key_len, task.first + task.rows)
                          : shape.key_len;
  const int64_t key_tile = EvenTile(shape.key_len, kKeyTile, kRows);
  for (int64_t start = 0; any_active && start < end; start += key_tile) {
    const KeyTileView view =
        ViewKeys(args, task, scratch, start, Min(end, start + key_tile));
    if (view.keys.count == 0) continue;
    for (int64_t i = 0; i < tile_count; ++i)
      if (tiles[i].active)
        AddKeyTile(shape, args.options, view, tiles[i], scratch.probabilities);
  }
  for (int64_t i = 0; i < tile_count; ++i)
    FinishTile(args, task, tiles[i], scratch.mean_value, first_visible_key);
}

}  // namespace
}  // namespace hw3tf
