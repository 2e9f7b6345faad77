// One task of the forward pass: a block of query rows of one key/value head
// against all the keys they see.

#pragma once

#include "kernels/attention_forward-inl.h"

namespace hw3tf {
namespace {

// Query rows that share the reading, and the copying, of one key tile.
constexpr int kQueryBlock = 256;
constexpr int kTilesPerBlock = kQueryBlock / kQueryTile;

// The scratch of one thread, carved from one array of floats.
struct ForwardScratch {
  float* query;          // [tiles][H][kQueryTile]
  float* output;         // [tiles][value_dim][kQueryTile]
  float* statistics;     // [tiles][3][kQueryTile]: maximum, sum, tile sum
  float* probabilities;  // [kKeyTile][kQueryTile]
  float* key;            // [kKeyTile][H]
  float* value;          // [kKeyTile][value_dim]
  float* finite_value;   // [kKeyTile][value_dim]
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
    query = base;
    output = query + kTilesPerBlock * shape.head_dim * kQueryTile;
    statistics = output + kTilesPerBlock * shape.value_dim * kQueryTile;
    probabilities = statistics + kTilesPerBlock * 3 * kQueryTile;
    key = probabilities + kKeyTile * kQueryTile;
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

// Packs the queries of one tile and resets its state.
inline void StartTile(const ForwardContext& context, const AttentionTask& task,
                      const ForwardScratch& scratch, int64_t index,
                      QueryTileState* tile) {
  const AttentionForwardArgs& args = context.args;
  const int64_t size = args.shape.head_dim;
  tile->query = scratch.query + index * size * kQueryTile;
  tile->output = scratch.output + index * args.shape.value_dim * kQueryTile;
  tile->maximum = scratch.statistics + index * 3 * kQueryTile;
  tile->sum = tile->maximum + kQueryTile;
  tile->tile_sum = tile->sum + kQueryTile;
  tile->seeing = 0;
  tile->all_summed = false;
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
      if (args.dtype != DType::kFloat32) {
        float* wide = scratch.rows + i * PadToVector(size);
        WidenRow(row, args.dtype, size, size, wide);
        rows[i] = wide;
      }
    }
    PackColumns(rows, size, Sign(args.options), tile->query + v * kLanes);
    Store(tile->maximum + v * kLanes, Vec{});
    Store(tile->sum + v * kLanes, Vec{});
    for (int64_t h = 0; h < args.shape.value_dim; ++h)
      Store(tile->output + h * kQueryTile + v * kLanes, Vec{});
  }
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

// The output of kLanes lanes, divided by their sums, as rows.
inline void WriteRows(const float* output, Vec inverse, int64_t size, int rows,
                      float* const (&to)[kLanes]) {
  int64_t h = 0;
  for (; h + kLanes <= size; h += kLanes) {
    Vec block[kLanes];
    for (int i = 0; i < kLanes; ++i)
      block[i] = Load(output + (h + i) * kQueryTile) * inverse;
    Transpose(block);
    if (rows == kLanes)
      for (int i = 0; i < kLanes; ++i) Store(to[i] + h, block[i]);
    else
      for (int i = 0; i < rows; ++i) Store(to[i] + h, block[i]);
  }
  for (; h < size; ++h) {
    const Vec column = Load(output + h * kQueryTile) * inverse;
    for (int i = 0; i < rows; ++i) to[i][h] = column[i];
  }
}

// Divides by the sums, transposes back and writes output and statistics.
inline void FinishTile(const ForwardContext& context, const Results& results,
                       const ForwardScratch& scratch,
                       const QueryTileState& tile, const float* mean_value) {
  const int64_t size = context.args.shape.value_dim;
  const int64_t padded = PadToVector(size);
  const uint32_t seeing = tile.seeing & tile.lanes.taking_part;
  const bool is_float32 = results.dtype == DType::kFloat32;
  for (int v = 0; v < tile.lanes.vectors; ++v) {
    const int first = v * kLanes;
    const int rows = static_cast<int>(Min(kLanes, tile.lanes.rows - first));
    int64_t outputs[kLanes], statistics[kLanes];
    FindOffsets(tile.lanes, first, results.output_base, results.output_head,
                results.output_length, outputs);
    FindOffsets(tile.lanes, first, results.statistics_base,
                results.statistics_head, results.statistics_length, statistics);
    // Where a row is transposed to: its place, if that is float32.
    float* transposed[kLanes];
    for (int i = 0; i < kLanes; ++i)
      transposed[i] = is_float32
                          ? static_cast<float*>(results.output) + outputs[i]
                          : scratch.rows + i * padded;
    if (seeing >> first & UsedLanes(kLanes))
      WriteRows(tile.output + first,
                context.constants.keep_scale / Load(tile.sum + first), size,
                rows, transposed);
    for (int i = 0; i < rows; ++i) {
      const int lane = first + i;
      const bool sees = seeing >> lane & 1;
      if (!sees || !is_float32)
        NarrowRow(sees ? transposed[i] : mean_value, results.dtype, size,
                  Element(results.output, outputs[i], results.dtype));
      float* const to = results.statistics + statistics[i];
      to[0] = tile.maximum[lane];
      to[1] = tile.sum[lane];
      if (!sees) MarkBlind(to);
      if (results.logsumexp)
        results.logsumexp[statistics[i] / 2] =
            sees ? LogSumExp(context.constants, to[0], to[1]) : -kInfinity;
    }
  }
}

// Keys and values [begin, end): in place, or copied to lie densely. Far rows
// cost address translations at every reading: in a prototype on a Zen 4, 4096
// keys of H = 128 ran at 62-83 % of the peak in place, copied at 88-91 %.
inline KeyTileView ViewKeys(const ForwardContext& context,
                            const AttentionTask& task,
                            const ForwardScratch& scratch, bool copy,
                            int64_t begin, int64_t end) {
  const AttentionForwardArgs& args = context.args;
  const auto view = [&](const ConstArray& array, int64_t size, float* to,
                        const float** rows, int64_t* stride) {
    const void* head = Element(
        array.data,
        KeyOffset(array.strides, context.plan, context.sequence, task.kv_head),
        args.dtype);
    *stride = array.strides.length;
    if (args.dtype == DType::kFloat32 && (!copy || *stride == size)) {
      *rows = static_cast<const float*>(head) + begin * *stride;
      return;
    }
    CopyRows(head, args.dtype, *stride, begin, end - begin, size, size, to);
    *rows = to;
    *stride = size;
  };
  KeyTileView tile;
  tile.first = begin;
  view(args.key, args.shape.head_dim, scratch.key, &tile.key, &tile.key_stride);
  view(args.value, args.shape.value_dim, scratch.value, &tile.value,
       &tile.value_stride);
  return tile;
}

// Keys and values [begin, end) of a task.
inline void PrefetchKeys(const ForwardContext& context,
                         const AttentionTask& task, int64_t begin,
                         int64_t end) {
  const AttentionForwardArgs& args = context.args;
  const Sequence& sequence = context.plan.sequences[task.b];
  const auto prefetch = [&](const ConstArray& array, int64_t size) {
    const int64_t head =
        KeyOffset(array.strides, context.plan, sequence, task.kv_head);
    context.prefetcher->Add(
        Element(array.data, head + begin * array.strides.length, args.dtype),
        array.strides.length * ElementBytes(args.dtype), end - begin,
        size * ElementBytes(args.dtype), /*to_write=*/false);
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

// The queries of a task, or their places in the output.
inline void PrefetchQueries(const ForwardContext& context,
                            const AttentionTask& task, const void* data,
                            const Strides& strides, int64_t size,
                            bool to_write) {
  const DType dtype = context.args.dtype;
  const int64_t group = context.plan.group, first = task.first / group;
  for (int64_t g = 0; g < group; ++g) {
    const int64_t head =
        QueryOffset(strides, context.plan, context.plan.sequences[task.b],
                    task.kv_head * group + g);
    context.prefetcher->Add(Element(data, head + first * strides.length, dtype),
                            strides.length * ElementBytes(dtype),
                            CeilDiv(task.count, group),
                            size * ElementBytes(dtype), to_write);
  }
}

// What is needed when the last tile of keys is done: the places of the output,
// and the first inputs of the task that this thread is likely to take next.
inline void PrefetchNextTask(const ForwardContext& context,
                             const AttentionTask& task) {
  const AttentionForwardArgs& args = context.args;
  if (context.plan.splits == 1)
    PrefetchQueries(context, task, args.output.data, args.output.strides,
                    args.shape.value_dim, /*to_write=*/true);
  const AttentionTask* next = &task + context.plan.tasks_ahead;
  if (next >= context.plan.tasks + context.plan.num_tasks) return;
  PrefetchQueries(context, *next, args.query.data, args.query.strides,
                  args.shape.head_dim, /*to_write=*/false);
  if (HasKeys(context, *next)) return;
  const Sequence& sequence = context.plan.sequences[next->b];
  PrefetchKeys(context, *next, sequence.key_begin,
               Min(sequence.key_end, sequence.key_begin + kKeyTile));
}

void Forward(const AttentionForwardArgs& args, const AttentionPlan& plan,
             const AttentionTask& task, float* base) {
  const ForwardScratch scratch(args, base);
  Prefetcher prefetcher;
  const ForwardContext context{args,
                               plan,
                               plan.sequences[task.b],
                               MakeScoreConstants(args.options, plan),
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

  const int64_t key_tile = EvenTile(end - begin, kKeyTile, kRows);
  const bool has_keys = HasKeys(context, task);
  for (int64_t first = begin; first < end; first += key_tile) {
    const int64_t last = Min(end, first + key_tile);
    const KeyTileView view = ViewKeys(context, task, scratch,
                                      /*copy=*/tile_count > 4, first, last);
    prefetcher.Clear();
    if (last == end)
      PrefetchNextTask(context, task);
    else if (!has_keys)
      PrefetchKeys(context, task, last, Min(end, last + key_tile));
    prefetcher.SpreadOver(tile_count * ((last - first) / kRows));
    for (int64_t i = 0; i < tile_count; ++i) {
      const int64_t from = Max(first, tiles[i].keys.begin);
      const int64_t to = Min(last, tiles[i].keys.end);
      if (from >= to) continue;
      if (tiles[i].lanes.vectors == 2)
        AddKeys<2>(context, view, &tiles[i], from, to);
      else
        AddKeys<1>(context, view, &tiles[i], from, to);
    }
  }

  bool any_blind = false;
  for (int64_t i = 0; i < tile_count; ++i) {
    const uint32_t used = UsedLanes(tiles[i].lanes.rows);
    any_blind |= (tiles[i].seeing & tiles[i].lanes.taking_part & used) != used;
  }
  if (any_blind && plan.splits == 1)
    MeanValue(context, task.kv_head, scratch.rows, scratch.value_sum,
              scratch.mean_value);
  const Results results = FindResults(context, task);
  for (int64_t i = 0; i < tile_count; ++i)
    FinishTile(context, results, scratch, tiles[i], scratch.mean_value);
}

// The parts of the keys of one batch entry and head become output, statistics
// and logsumexp, in the order of the parts.
void MergeSplits(const AttentionForwardArgs& args, const AttentionPlan& plan,
                 int64_t b, int64_t head, float* base) {
  const AttentionShape& shape = args.shape;
  const ForwardScratch scratch(args, base);
  const Sequence& sequence = plan.sequences[b * plan.splits];
  const ForwardContext context{
      args,    plan,    sequence, MakeScoreConstants(args.options, plan),
      nullptr, nullptr, nullptr,  nullptr,
      nullptr};
  bool mean_known = false;
  for (int64_t t = 0; t < shape.query_len; ++t) {
    const auto part = [&](int64_t i) {
      return PartialResults(shape, plan, b * plan.splits + i, head, t);
    };
    // A part that is seen but has no weight, all scores -infinity, counts as
    // seen and adds nothing.
    const auto weighs = [&](const float* p) {
      return !IsBlind(p) && p[1] != 0.0f;
    };
    float maximum = -kInfinity;
    bool blind = true;
    for (int64_t i = 0; i < plan.splits; ++i) {
      blind = blind && IsBlind(part(i));
      if (weighs(part(i)) && !(part(i)[0] <= maximum)) maximum = part(i)[0];
    }
    if (blind) maximum = kInfinity;
    float sum = blind ? 1.0f : 0.0f;
    float* const output = scratch.rows;
    for (int64_t h = 0; h < shape.value_dim; ++h) output[h] = 0.0f;
    for (int64_t i = 0; i < plan.splits; ++i) {
      const float* from = part(i);
      if (!weighs(from)) continue;
      const Vec rescale =
          Exp2(Broadcast((from[0] - maximum) * context.constants.factor));
      const float weight = from[1] * rescale[0];
      sum += weight;
      for (int64_t h = 0; h < shape.value_dim; ++h)
        output[h] += weight * from[2 + h];
    }
    if (blind && !mean_known) {
      MeanValue(context, head / plan.group, scratch.rows, scratch.value_sum,
                scratch.mean_value);
      mean_known = true;
    }
    for (int64_t h = 0; h < shape.value_dim; ++h)
      output[h] = blind ? scratch.mean_value[h] : output[h] / sum;
    WriteResults(args, plan, sequence, context.constants, head, t, output,
                 maximum, sum);
  }
}

}  // namespace
}  // namespace hw3tf
