// One task of the backward pass: a chunk of keys of one key/value head against
// all the queries that see it, over all query heads that share the head, or
// against a range of them.
//
// dQ is shared by the chunks of a head: they add to it in turn, in the order in
// which they become tasks (shared.query_turns), which is that of the keys
// unless there is a window (plan.chunk_step). At every block of queries a chunk
// waits for the one before; as tasks are taken in ascending order, the one
// waited for is always running or done. This keeps the bits the same for any
// number of threads, and dQ costs no memory; sums per chunk would cost S /
// kKeyChunk times dQ. The gradient of a bias that batch entries or heads share
// is summed likewise (shared.bias_turns), and so are dK and dV over the ranges
// of queries (shared.key_turns).

#pragma once

#include <sched.h>

#include "kernels/attention/backward_tile-inl.h"
#include "kernels/runtime/pause.h"

namespace hw3tf {
namespace {

int64_t BackwardScratchFloats(const AttentionBackwardArgs& args) {
  float* const base = nullptr;
  return BackwardScratch(args, base).end - base;
}

inline void WaitForTurn(const int32_t* turn, int64_t mine) {
  for (int spins = 1; __atomic_load_n(turn, __ATOMIC_ACQUIRE) != mine; ++spins)
    if (spins % 256 == 0)
      sched_yield();
    else
      Pause();
}

inline void PassTurn(int32_t* turn, int64_t mine) {
  __atomic_store_n(turn, static_cast<int32_t>(mine + 1), __ATOMIC_RELEASE);
}

// sum(output * grad_output) of the queries of one head, less the gradient of
// the logsumexp, each in the order of DotColumns.
inline void OutputDotGrad(const AttentionBackwardArgs& args,
                          const AttentionPlan& plan, const Sequence& sequence,
                          int64_t head, float* output_dot_grad) {
  const int64_t size = args.shape.value_dim;
  const int64_t query = sequence.statistics + head * plan.statistics_stride;
  const auto* grad_logsumexp = static_cast<const float*>(args.grad_logsumexp);
  const auto load = [&](const ConstArray& array, int64_t t, int64_t h) {
    const int64_t offset = QueryOffset(array.strides, plan, sequence, head) +
                           t * array.strides.length + h;
    const void* from = Element(array.data, offset, args.dtype);
    if (args.dtype == DType::kFloat32 && h + kLanes <= size)
      return Load(static_cast<const float*>(from));
    float row[kLanes] = {};
    WidenRow(from, args.dtype, Min(kLanes, size - h), kLanes, row);
    return Load(row);
  };
  for (int64_t t = 0; t < sequence.query_len; t += kLanes) {
    const int rows = static_cast<int>(Min(kLanes, sequence.query_len - t));
    Vec dot{};
    for (int64_t h = 0; h < size; h += kLanes) {
      Vec outputs[kLanes], grads[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        outputs[i] = i < rows ? load(args.output, t + i, h) : Vec{};
        grads[i] = i < rows ? load(args.grad_output, t + i, h) : Vec{};
      }
      Transpose(outputs);
      Transpose(grads);
      for (int i = 0; i < Min(kLanes, size - h); ++i)
        dot += outputs[i] * grads[i];
    }
    for (int i = 0; i < rows; ++i) {
      const int64_t at = query + t + i;
      output_dot_grad[at] =
          grad_logsumexp ? dot[i] - grad_logsumexp[at] : dot[i];
    }
  }
}

// Prepares the sums that all chunks of one batch entry and key/value head need.
void PrepareBackward(const AttentionBackwardArgs& args,
                     const AttentionPlan& plan,
                     const AttentionBackwardShared& shared, int64_t b,
                     int64_t kv_head) {
  const Sequence& sequence = plan.sequences[b];
  const int64_t size = args.shape.value_dim;
  const auto* statistics = static_cast<const float*>(args.statistics);
  double* mean_grad =
      shared.mean_grads + (b * args.shape.num_kv_heads + kv_head) * size;
  for (int64_t h = 0; h < size; ++h) mean_grad[h] = 0.0;
  for (int64_t g = 0; g < plan.group; ++g) {
    const int64_t head = kv_head * plan.group + g;
    if (shared.output_dot_grad)
      OutputDotGrad(args, plan, sequence, head, shared.output_dot_grad);
    for (int64_t t = 0; t < sequence.query_len; ++t) {
      const int64_t query =
          sequence.statistics + head * plan.statistics_stride + t;
      if (!SeesNothing(statistics + 2 * query)) continue;
      const Strides& strides = args.grad_output.strides;
      const int64_t offset =
          QueryOffset(strides, plan, sequence, head) + t * strides.length;
      const void* row = Element(args.grad_output.data, offset, args.dtype);
      PrefetchAhead(row, strides.length * ElementBytes(args.dtype),
                    size * ElementBytes(args.dtype));
      AddRow(row, args.dtype, size, mean_grad);
    }
  }
  if (sequence.key_len > 0)
    for (int64_t h = 0; h < size; ++h)
      mean_grad[h] /= static_cast<double>(sequence.key_len);
}

// Adds this chunk's part to grad_query when its turn comes.
inline void AddGradQuery(const BackwardContext& context, const QueryRows& block,
                         bool any) {
  const AttentionBackwardArgs& args = context.args;
  const AttentionTask& task = context.task;
  const int64_t size = args.shape.head_dim;
  const float scale = static_cast<float>(args.options.scale);
  const bool first = block.turn == 0, last = block.turn + 1 == block.turns;
  int32_t* turn = context.shared.query_turns +
                  (task.b * args.shape.num_kv_heads + task.kv_head) *
                      context.shared.query_blocks +
                  block.index;
  WaitForTurn(turn, block.turn);
  const Strides& strides = args.grad_query.strides;
  for (int64_t i = 0; i < block.count && (any || first || last); ++i) {
    const int64_t row = block.first + i;
    const int64_t head =
        task.kv_head * context.plan.group + row % context.plan.group;
    const int64_t t = row / context.plan.group;
    void* const out =
        Element(args.grad_query.data,
                QueryOffset(strides, context.plan, context.sequence, head) +
                    t * strides.length,
                args.dtype);
    if (!any)
      PrefetchAhead(out, strides.length * ElementBytes(args.dtype),
                    size * ElementBytes(args.dtype));
    float* sum = static_cast<float*>(out);
    if (args.dtype != DType::kFloat32)
      sum = context.shared.grad_query +
            (context.sequence.statistics +
             head * context.plan.statistics_stride + t) *
                size;
    const float* part =
        context.scratch.grad_query + i * context.scratch.key_size;
    if (first)
      for (int64_t h = 0; h < size; ++h) sum[h] = any ? part[h] * scale : 0.0f;
    else if (any)
      for (int64_t h = 0; h < size; ++h) sum[h] += part[h] * scale;
    if (last && args.dtype != DType::kFloat32)
      NarrowRow(sum, args.dtype, size, out);
  }
  PassTurn(turn, block.turn);
}

// The inputs of a block of queries of a task.
inline void PrefetchQueryBlock(const BackwardContext& context,
                               const AttentionTask& task, int64_t first,
                               int64_t count) {
  const AttentionBackwardArgs& args = context.args;
  const auto prefetch = [&](const ConstArray& array, int64_t size) {
    PrefetchQueries(context.plan, args.dtype, task, array.data, array.strides,
                    size, first, count, /*to_write=*/false, context.prefetcher);
  };
  prefetch(args.query, args.shape.head_dim);
  prefetch(args.grad_output, args.shape.value_dim);
  if (!context.shared.output_dot_grad)
    prefetch(args.output, args.shape.value_dim);
}

// Prefetches for the time when a block is done: the places of its results, and
// the inputs of the next block, or of the task that this thread is likely to
// take next.
inline void PrefetchAfter(const BackwardContext& context,
                          const QueryRows& block) {
  const AttentionBackwardArgs& args = context.args;
  const AttentionTask& task = context.task;
  const AttentionPlan& plan = context.plan;
  Prefetcher* const prefetcher = context.prefetcher;
  prefetcher->Clear();
  if (args.dtype == DType::kFloat32)
    PrefetchQueries(plan, args.dtype, task, args.grad_query.data,
                    args.grad_query.strides, args.shape.head_dim, block.first,
                    block.count, /*to_write=*/true, prefetcher);
  const auto keys = [&](const AttentionTask& of, const auto& array,
                        int64_t size, bool to_write) {
    PrefetchKeys(plan, args.dtype, of, array.data, array.strides, size,
                 of.first, of.count, to_write, prefetcher);
  };
  const auto rows = [&](const AttentionTask& of) {
    return plan.sequences[of.b].query_len * plan.group;
  };
  const int64_t next = block.first + block.count;
  const int64_t end =
      Min(rows(task), (task.block_first + task.block_count) * kBackwardRows);
  const AttentionTask* then = &task + plan.tasks_ahead;
  if (next < end) {
    PrefetchQueryBlock(context, task, next, Min(kBackwardRows, end - next));
  } else {
    keys(task, args.grad_key, args.shape.head_dim, /*to_write=*/true);
    keys(task, args.grad_value, args.shape.value_dim, /*to_write=*/true);
    if (then < plan.tasks + plan.num_tasks) {
      keys(*then, args.key, args.shape.head_dim, /*to_write=*/false);
      keys(*then, args.value, args.shape.value_dim, /*to_write=*/false);
      const int64_t start = then->block_first * kBackwardRows;
      PrefetchQueryBlock(context, *then, start,
                         Min(kBackwardRows, rows(*then) - start));
    }
  }
  const int64_t seen = block.key_end - block.key_begin;
  prefetcher->SpreadOver((seen * (block.tiles + 2) + block.count) / kRows);
}

// The turn of a chunk among chunks [begin, end), in the order of the tasks.
inline int64_t TurnOf(const AttentionPlan& plan, int64_t chunk, int64_t begin,
                      int64_t end) {
  // Chunks below `stop` that come in a round before, and in that of the chunk.
  const int64_t step = plan.chunk_step, round = chunk % step;
  const auto earlier = [&](int64_t stop) {
    return stop / step * round + Min(stop % step, round);
  };
  const auto same = [&](int64_t stop) {
    return (stop + step - 1 - round) / step;
  };
  return earlier(end) - earlier(begin) + same(chunk) - same(begin);
}

// Keys of the chunk that some query of the block may see, and the chunks that
// have any.
inline void FindBlockKeys(const BackwardContext& context, QueryRows* block) {
  block->key_begin = context.task.count;
  block->key_end = 0;
  block->any_hidden = false;
  int64_t all_begin = context.sequence.key_len, all_end = 0;
  for (int64_t tile = 0; tile < block->tiles; ++tile) {
    const QueryLanes& lanes = block->lanes[tile];
    const KeyRange range =
        FindKeyRange(context.plan, context.sequence, lanes.first, lanes.last);
    const int64_t begin = Max(0, range.begin - context.task.first);
    const int64_t end = Min(context.task.count, range.end - context.task.first);
    if (!lanes.taking_part) continue;
    if (range.begin < range.end) {
      all_begin = Min(all_begin, range.begin);
      all_end = Max(all_end, range.end);
    }
    if (begin >= end) continue;
    block->key_begin = Min(block->key_begin, begin);
    block->key_end = Max(block->key_end, end);
  }
  const AttentionTask& task = context.task;
  const auto chunk_of = [&](int64_t key) {
    return (key - task.chunk_start) / task.chunk_size;
  };
  // Without a key for any of the queries the first chunk writes the zeros.
  const bool none = all_begin >= all_end;
  const int64_t first = none ? 0 : chunk_of(all_begin);
  const int64_t stop = none ? 1 : chunk_of(all_end - 1) + 1;
  block->turns = stop - first;
  block->turn = task.index < first || task.index >= stop
                    ? -1
                    : TurnOf(context.plan, task.index, first, stop);
}

// Whether several tasks add to the same rows of the gradient of a bias, which
// differ between queries.
inline bool SharesBias(const AttentionBackwardArgs& args) {
  const ScoreStrides& strides = args.options.bias_strides;
  return args.grad_bias && strides.query != 0 && strides.key != 0 &&
         (strides.batch == 0 || strides.head == 0);
}

// The turn of a task at the gradient of a bias that it shares: after the
// earlier batch entries and heads that add to the same block of queries.
struct BiasTurn {
  int32_t* turn;
  int64_t mine;
  bool begins, ends;  // with this block
};

inline BiasTurn FindBiasTurn(const BackwardContext& context, int64_t block) {
  if (!SharesBias(context.args)) return {nullptr, 0, false, false};
  const AttentionTask& task = context.task;
  const ScoreStrides& strides = context.args.options.bias_strides;
  const int64_t kv_heads = context.args.shape.num_kv_heads;
  // A query whose heads share a row of the bias may lie in two blocks, also of
  // two ranges: then a task has one turn, with all its blocks.
  const bool of_task =
      strides.head == 0 && kBackwardRows % context.plan.group != 0;
  int64_t place =
      task.index * context.shared.query_blocks + (of_task ? 0 : block);
  int64_t mine = 0;
  if (strides.head != 0) {
    place = place * kv_heads + task.kv_head;
    mine = task.b;
  } else if (strides.batch != 0) {
    place = place * context.plan.num_sequences + task.b;
    mine = task.kv_head;
  } else {
    mine = task.b * kv_heads + task.kv_head;
  }
  if (of_task) mine = mine * task.ranges + task.range;
  return {context.shared.bias_turns + place, mine,
          !of_task || block == task.block_first,
          !of_task || block == task.block_first + task.block_count - 1};
}

// One block of queries against the chunk.
inline void VisitBlock(const BackwardContext& context, QueryRows* block) {
  for (int64_t tile = 0; tile < block->tiles; ++tile) {
    const int64_t skip = tile * kQueryTile;
    FindQueryLanes(context.plan, context.sequence, context.task.kv_head,
                   block->first + skip, Min(kQueryTile, block->count - skip),
                   &block->lanes[tile]);
  }
  FindBlockKeys(context, block);
  const bool any = block->key_begin < block->key_end;
  const BiasTurn bias = FindBiasTurn(context, block->index);
  if (any) {
    PackQueryRows(context, *block);
    PrefetchAfter(context, *block);
  }
  if (bias.begins && !context.adds_bias_late) WaitForTurn(bias.turn, bias.mine);
  for (int64_t tile = 0; any && tile < block->tiles; ++tile) {
    if (block->lanes[tile].vectors == 2)
      TileGradients<2>(context, tile, block);
    else
      TileGradients<1>(context, tile, block);
  }
  if (context.adds_bias_late) {
    if (bias.begins) WaitForTurn(bias.turn, bias.mine);
    for (int64_t tile = 0; any && tile < block->tiles; ++tile)
      AddGradBias(context, block->lanes[tile], tile, block->key_begin,
                  block->key_end - block->key_begin);
  }
  if (bias.ends) PassTurn(bias.turn, bias.mine);
  if (any) MultiplyGradients(context, *block);
  if (block->turn >= 0) AddGradQuery(context, *block, any);
}

// Adds the sums over all queries to a bias that they share.
inline void FlushGradBias(const BackwardContext& context) {
  const AttentionTask& task = context.task;
  const ScoreStrides& strides = context.shared.grad_bias_strides;
  int32_t* turn = context.shared.bias_turns + task.index;
  const int64_t head = task.b * context.args.shape.num_kv_heads + task.kv_head;
  const int64_t mine = head * task.ranges + task.range;
  const bool shared =
      task.ranges > 1 || strides.batch == 0 || strides.head == 0;
  if (shared) WaitForTurn(turn, mine);
  for (int64_t g = 0; g < context.plan.group; ++g)
    for (int64_t k = 0; k < task.count; ++k)
      static_cast<float*>(
          context.args.grad_bias)[context.sequence.b * strides.batch +
                                  (task.kv_head * context.plan.group + g) *
                                      strides.head +
                                  (task.first + k) * strides.key] +=
          context.scratch.grad_bias[g * kKeyChunk + k];
  if (shared) PassTurn(turn, mine);
}

// Writes the gradients of keys [begin, end) of the sequence; those outside the
// chunk, and masked ones, get zeros.
inline void WriteKeyGrads(const BackwardContext& context,
                          const MutableArray& array, const float* grads,
                          int64_t padded, int64_t size, float scale,
                          const double* to_every_row, int64_t begin,
                          int64_t end) {
  const AttentionTask& task = context.task;
  const int64_t first =
      KeyOffset(array.strides, context.plan, context.sequence, task.kv_head);
  const DType dtype = context.args.dtype;
  for (int64_t s = begin; s < end; ++s) {
    const bool seen =
        s >= task.first && s < task.first + task.count &&
        (!context.sequence.key_mask || context.sequence.key_mask[s]);
    const float* grad = grads + (s - task.first) * padded;
    void* const out =
        Element(array.data, first + s * array.strides.length, dtype);
    if (!seen)
      PrefetchAhead(out, array.strides.length * ElementBytes(dtype),
                    size * ElementBytes(dtype));
    float* const row = dtype == DType::kFloat32 ? static_cast<float*>(out)
                                                : context.scratch.row;
    if (seen)
      for (int64_t h = 0; h < size; ++h) row[h] = grad[h] * scale;
    else
      for (int64_t h = 0; h < size; ++h) row[h] = 0.0f;
    if (to_every_row)
      for (int64_t h = 0; h < size; ++h)
        row[h] += static_cast<float>(to_every_row[h]);
    if (dtype != DType::kFloat32) NarrowRow(row, dtype, size, out);
  }
}

// Adds the sums over a range of queries to those of the ranges before. Returns
// whether it was the last: then all sums are in the scratch.
inline bool SumRanges(const BackwardContext& context) {
  const AttentionTask& task = context.task;
  if (task.ranges == 1) return true;
  const BackwardScratch& scratch = context.scratch;
  const AttentionShape& shape = context.args.shape;
  const int64_t heads = context.plan.num_sequences * shape.num_kv_heads;
  const int64_t head = task.b * shape.num_kv_heads + task.kv_head;
  int32_t* const turn = context.shared.key_turns + task.index * heads + head;
  const int64_t row = scratch.key_size + scratch.value_size;
  float* const sums =
      context.shared.key_sums + (head * shape.key_len + task.first) * row;
  const bool last = task.range + 1 == task.ranges;
  const auto add = [&](float* grads, int64_t size, float* to) {
    for (int64_t i = 0; i < task.count * size; i += kLanes) {
      Vec sum = Load(grads + i);
      if (task.range > 0) sum = Load(to + i) + sum;
      Store((last ? grads : to) + i, sum);
    }
  };
  WaitForTurn(turn, task.range);
  add(scratch.grad_key, scratch.key_size, sums);
  add(scratch.grad_value, scratch.value_size,
      sums + task.count * scratch.key_size);
  PassTurn(turn, task.range);
  return last;
}

void Backward(const AttentionBackwardArgs& args, const AttentionPlan& plan,
              const AttentionBackwardShared& shared, const AttentionTask& task,
              float* base) {
  const AttentionShape& shape = args.shape;
  const Sequence& sequence = plan.sequences[task.b];
  const BackwardScratch scratch(args, base);
  const auto copy = [&](const ConstArray& array, int64_t size, int64_t padded,
                        float* to) {
    const void* head = Element(
        array.data, KeyOffset(array.strides, plan, sequence, task.kv_head),
        args.dtype);
    CopyRows(head, args.dtype, array.strides.length, task.first, task.count,
             size, padded, to);
  };
  copy(args.key, shape.head_dim, scratch.key_size, scratch.key);
  copy(args.value, shape.value_dim, scratch.value_size, scratch.value);
  for (int64_t i = 0; i < task.count * scratch.key_size; i += kLanes)
    Store(scratch.grad_key + i, Vec{});
  for (int64_t i = 0; i < task.count * scratch.value_size; i += kLanes)
    Store(scratch.grad_value + i, Vec{});
  const bool sums_bias = args.grad_bias &&
                         args.options.bias_strides.query == 0 &&
                         args.options.bias_strides.key != 0;
  for (int64_t i = 0; sums_bias && i < plan.group * kKeyChunk; ++i)
    scratch.grad_bias[i] = 0.0f;

  Prefetcher prefetcher;
  const BackwardContext context{
      args,
      plan,
      shared,
      sequence,
      task,
      scratch,
      MakeScoreConstants(args.options, plan),
      AllFinite(scratch.key, scratch.key_size, task.count, shape.head_dim),
      /*adds_bias_late=*/SharesBias(args) && args.options.soft_cap == 0,
      &prefetcher};
  const int64_t rows = sequence.query_len * plan.group;
  QueryRows block;
  for (int64_t i = 0; i < task.block_count; ++i) {
    block.index = task.block_first + i;
    block.first = Min(rows, block.index * kBackwardRows);
    block.count = Min(kBackwardRows, rows - block.first);
    block.tiles = CeilDiv(block.count, kQueryTile);
    VisitBlock(context, &block);
  }
  if (sums_bias) FlushGradBias(context);
  if (!SumRanges(context)) return;

  // The first chunk also answers for the keys before and after all chunks.
  const double* mean_grad =
      shared.mean_grads +
      (task.b * shape.num_kv_heads + task.kv_head) * shape.value_dim;
  bool any_mean_grad = false;
  for (int64_t h = 0; h < shape.value_dim; ++h)
    any_mean_grad |= mean_grad[h] != 0.0;
  if (!any_mean_grad) mean_grad = nullptr;
  const auto write = [&](int64_t begin, int64_t end) {
    WriteKeyGrads(context, args.grad_key, scratch.grad_key, scratch.key_size,
                  shape.head_dim, static_cast<float>(args.options.scale),
                  nullptr, begin, end);
    WriteKeyGrads(context, args.grad_value, scratch.grad_value,
                  scratch.value_size, shape.value_dim, 1.0f, mean_grad, begin,
                  end);
  };
  if (task.index == 0) {
    write(0, sequence.key_begin);
    write(sequence.key_end, sequence.key_len);
  }
  write(task.first, task.first + task.count);
}

}  // namespace
}  // namespace hw3tf
