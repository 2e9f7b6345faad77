// One task of the backward pass: a chunk of keys of one key/value head against
// all the queries that see it, over all query heads that share the head.

#pragma once

#include "kernels/attention_backward-inl.h"

namespace hw3tf {
namespace {

inline int64_t ChunkSize(const AttentionShape& shape) {
  return EvenTile(shape.key_len, kKeyChunk, kRows);
}

int64_t BackwardTasks(const AttentionShape& shape) {
  return shape.batch * shape.num_kv_heads *
         CeilDiv(shape.key_len, ChunkSize(shape));
}

int64_t BackwardScratchFloats(const AttentionShape& shape) {
  float* const base = nullptr;
  return BackwardScratch(shape, base).end - base;
}

int64_t BackwardTurns(const AttentionShape& shape) {
  return shape.batch * shape.num_heads * CeilDiv(shape.query_len, kQueryBlock);
}

// sum(output * grad_output) of every query of one batch entry and head, each in
// the order in which the products of grad_output with the values are summed:
// where one key takes all, the two are equal bit for bit, and their difference,
// the gradient of the score, is 0 and not rounding.
void OutputDotGrad(const AttentionBackwardArgs& args, int64_t task,
                   float* output_dot_grad) {
  const AttentionShape& shape = args.shape;
  const int64_t b = task / shape.num_heads, head = task % shape.num_heads;
  const float* output = Head(args.output, b, head);
  const float* grad = Head(args.grad_output, b, head);
  for (int64_t t = 0; t < shape.query_len; t += kLanes) {
    const int rows = static_cast<int>(Min(kLanes, shape.query_len - t));
    const auto output_row = [&](int i) {
      return output + (t + i) * args.output.strides.length;
    };
    const auto grad_row = [&](int i) {
      return grad + (t + i) * args.grad_output.strides.length;
    };
    Vec dot{};
    int64_t h = 0;
    for (; h + kLanes <= shape.value_dim; h += kLanes) {
      Vec outputs[kLanes], grads[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        outputs[i] = i < rows ? Load(output_row(i) + h) : Vec{};
        grads[i] = i < rows ? Load(grad_row(i) + h) : Vec{};
      }
      Transpose(outputs);
      Transpose(grads);
      for (int i = 0; i < kLanes; ++i) dot += outputs[i] * grads[i];
    }
    for (; h < shape.value_dim; ++h) {
      Vec outputs{}, grads{};
      for (int i = 0; i < rows; ++i) {
        outputs[i] = output_row(i)[h];
        grads[i] = grad_row(i)[h];
      }
      dot += outputs * grads;
    }
    for (int i = 0; i < rows; ++i)
      output_dot_grad[task * shape.query_len + t + i] = dot[i];
  }
}

// Sum of grad_output over the queries that saw no key: each gives 1 / S of its
// gradient to every value. Returns whether there are any.
inline bool SumBlindGrads(const AttentionBackwardArgs& args,
                          const BackwardTask& task, int64_t group,
                          double* sum) {
  const AttentionShape& shape = args.shape;
  if (!args.options.query_mask && !args.options.key_mask) return false;
  bool any = false;
  for (int64_t h = 0; h < shape.value_dim; ++h) sum[h] = 0.0;
  for (int64_t g = 0; g < group; ++g) {
    const int64_t head = task.kv_head * group + g;
    const float* grad = Head(args.grad_output, task.b, head);
    const float* statistics =
        args.statistics +
        2 * (task.b * shape.num_heads + head) * shape.query_len;
    for (int64_t t = 0; t < shape.query_len; ++t) {
      if (!IsBlind(statistics + 2 * t)) continue;
      any = true;
      const float* row = grad + t * args.grad_output.strides.length;
      for (int64_t h = 0; h < shape.value_dim; ++h)
        sum[h] += static_cast<double>(row[h]);
    }
  }
  for (int64_t h = 0; h < shape.value_dim; ++h)
    sum[h] /= static_cast<double>(shape.key_len);
  return any;
}

// Writes the gradients of the chunk's keys; masked keys get zeros.
inline void WriteKeyGrads(const MutableArray& array, const BackwardTask& task,
                          const int32_t* positions, const float* grads,
                          int64_t padded, int64_t size,
                          const double* to_every_row) {
  float* head = Head(array, task.b, task.kv_head);
  int64_t next = 0;  // of the visible keys
  for (int64_t s = task.start; s < task.end; ++s) {
    float* row = head + s * array.strides.length;
    const bool visible =
        next < task.keys.count && KeyPosition(task.keys, positions, next) == s;
    const float* grad = grads + next * padded;
    for (int64_t h = 0; h < size; ++h) row[h] = visible ? grad[h] : 0.0f;
    if (to_every_row)
      for (int64_t h = 0; h < size; ++h)
        row[h] += static_cast<float>(to_every_row[h]);
    next += visible;
  }
}

void Backward(const AttentionBackwardArgs& args,
              const AttentionBackwardShared& shared, int64_t task_index,
              float* base) {
  const AttentionShape& shape = args.shape;
  const int64_t group = shape.num_heads / shape.num_kv_heads;
  const int64_t blocks = CeilDiv(shape.query_len, kQueryBlock);
  const BackwardScratch scratch(shape, base);

  // Chunks slowest, so that threads meet on one head as seldom as possible.
  BackwardTask task;
  const int64_t heads = shape.batch * shape.num_kv_heads;
  task.chunk = task_index / heads;
  task.b = task_index % heads / shape.num_kv_heads;
  task.kv_head = task_index % shape.num_kv_heads;
  task.start = task.chunk * ChunkSize(shape);
  task.end = Min(shape.key_len, task.start + ChunkSize(shape));
  const uint8_t* mask = args.options.key_mask
                            ? args.options.key_mask + task.b * shape.key_len
                            : nullptr;
  task.keys = FindVisibleKeys(mask, task.start, task.end, scratch.positions);
  GatherRows(Head(args.key, task.b, task.kv_head), args.key.strides.length,
             task.keys, scratch.positions, shape.head_dim, scratch.key_size,
             scratch.key);
  GatherRows(Head(args.value, task.b, task.kv_head), args.value.strides.length,
             task.keys, scratch.positions, shape.value_dim, scratch.value_size,
             scratch.value);
  for (int64_t i = 0; i < task.keys.count * scratch.key_size; i += kLanes)
    Store(scratch.grad_key + i, Vec{});
  for (int64_t i = 0; i < task.keys.count * scratch.value_size; i += kLanes)
    Store(scratch.grad_value + i, Vec{});

  // Under causality no query before the chunk sees it. A block is visited by
  // chunks 0, 1, ... without a gap, so the turns add up.
  const int64_t first_block =
      args.options.is_causal ? task.start / kQueryBlock : 0;
  for (int64_t g = 0; g < group; ++g) {
    QueryBlock block;
    block.head = task.kv_head * group + g;
    for (int64_t i = first_block; i < blocks; ++i) {
      block.first = i * kQueryBlock;
      block.rows = Min(kQueryBlock, shape.query_len - block.first);
      if (task.keys.count > 0) {
        PackQueryBlock(args, shared, task.b, block, scratch);
        BackwardBlock(args, task, block, scratch);
      }
      AddGradQuery(
          args, task.b, task.chunk, block, scratch, task.keys.count > 0,
          shared.turns + (task.b * shape.num_heads + block.head) * blocks + i);
    }
  }

  WriteKeyGrads(args.grad_key, task, scratch.positions, scratch.grad_key,
                scratch.key_size, shape.head_dim, nullptr);
  const bool any_blind = SumBlindGrads(args, task, group, scratch.blind_sum);
  WriteKeyGrads(args.grad_value, task, scratch.positions, scratch.grad_value,
                scratch.value_size, shape.value_dim,
                any_blind ? scratch.blind_sum : nullptr);
}

}  // namespace
}  // namespace hw3tf
