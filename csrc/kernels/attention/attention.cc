// Forward and backward: the plan of a call, scratch memory, the number of
// threads, and the tasks of the chosen instruction set over the pool.

#include "kernels/attention/attention.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>

#include "kernels/attention/kernel_table.h"
#include "kernels/attention/plain.h"
#include "kernels/attention/plan.h"
#include "kernels/attention/shared_operands.h"
#include "kernels/runtime/dispatch.h"
#include "kernels/runtime/parallel.h"
#include "kernels/runtime/test_hooks.h"

namespace hw3tf {
namespace {

constexpr std::align_val_t kAlignment{64};
constexpr int64_t kFloatsPerLine = 16;

struct Free {
  void operator()(float* floats) const {
    ::operator delete(floats, kAlignment);
  }
};
using Floats = std::unique_ptr<float, Free>;

// nullptr if there is no memory. HW3TF_POISON fills it with NaN, so that a
// test shows a value that is read without having been written.
Floats Allocate(int64_t count) {
  Floats floats(static_cast<float*>(::operator new(
      static_cast<size_t>(count) * sizeof(float), kAlignment, std::nothrow)));
#if defined(HW3TF_POISON)
  if (floats)
    std::fill_n(floats.get(), count, std::numeric_limits<float>::quiet_NaN());
#endif
  return floats;
}

int64_t RoundToLine(int64_t floats) {
  return (floats + kFloatsPerLine - 1) / kFloatsPerLine * kFloatsPerLine;
}

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Below about 100 us of work on one core a second one is not worth its waking
// (up to 50 us, parallel.h): 5e6 operations at the 50 GFLOP/s that a small call
// reaches.
constexpr double kSerialFlops = 5e6;

int Threads(int requested, int64_t tasks, double flops) {
  if (flops < kSerialFlops && !test_hooks.always_threads) return 1;
  const int threads = ResolveNumThreads(requested);
  return tasks < threads ? static_cast<int>(tasks) : threads;
}

void AssertShape(const AttentionShape& shape) {
  assert(shape.batch >= 0 && shape.query_len >= 0 && shape.key_len >= 0);
  assert(shape.head_dim >= 1 && shape.value_dim >= 1);
  assert(shape.num_kv_heads >= 1 && shape.num_heads % shape.num_kv_heads == 0);
  (void)shape;
}

// Without a query there is nothing to compute, however large the other sizes
// of an array without elements are.
bool HasQueries(const AttentionShape& shape, const AttentionOptions& options) {
  return options.query_splits ? options.query_splits[shape.batch] > 0
                              : shape.batch > 0 && shape.query_len > 0;
}

// Strides of a C-contiguous array that has the axes of the bias, and its size.
ScoreStrides ContiguousBias(const AttentionShape& shape,
                            const AttentionOptions& options, int64_t* size) {
  const ScoreStrides& bias = options.bias_strides;
  *size = 1;
  const auto axis = [size](int64_t stride, int64_t count) {
    if (stride == 0) return int64_t{0};
    const int64_t own = *size;
    *size *= count;
    return own;
  };
  ScoreStrides strides;
  strides.key = axis(bias.key, shape.key_len);
  strides.query = axis(bias.query, shape.query_len);
  strides.head = axis(bias.head, shape.num_heads);
  strides.batch = axis(bias.batch, shape.batch);
  return strides;
}

// The gradient of a bias that does not differ between keys: shifting all scores
// of a query changes its logsumexp alone. NaN stays visible.
void GradOfShifts(const AttentionBackwardArgs& args, const AttentionPlan& plan,
                  const ScoreStrides& strides) {
  const auto* statistics = static_cast<const float*>(args.statistics);
  const auto* grad = static_cast<const float*>(args.grad_logsumexp);
  auto* bias = static_cast<float*>(args.grad_bias);
  for (int64_t i = 0; i < plan.num_sequences; ++i) {
    const Sequence& s = plan.sequences[i];
    for (int64_t n = 0; s.query_len > 0 && n < args.shape.num_heads; ++n)
      for (int64_t t = 0; t < s.query_len; ++t) {
        const int64_t query = s.statistics + n * plan.statistics_stride + t;
        const float sum = statistics[2 * query + 1];
        const float zero_or_nan =
            sum > 0 ? 0.0f : std::numeric_limits<float>::quiet_NaN();
        if (sum != kSumOfNothing)
          bias[s.b * strides.batch + n * strides.head + t * strides.query] +=
              (grad ? grad[query] : 0.0f) + zero_or_nan;
      }
  }
}

bool IsDecode(const AttentionForwardArgs& args, const AttentionKernels& kernels,
              const PlanStorage& storage) {
  const AttentionShape& shape = args.shape;
  const AttentionOptions& options = args.options;
  return shape.query_len * shape.num_heads <=
             kernels.decode_rows * shape.num_kv_heads &&
         shape.query_len > 0 &&
         shape.key_len >= Hooked(test_hooks.decode_keys, kDecodeKeys) &&
         !options.bias && !options.mask && options.soft_cap == 0 &&
         options.dropout_rate == 0 && !options.query_splits &&
         storage.AllVisible();
}

// For the counts of tests.
uint32_t ForwardPaths(const AttentionForwardArgs& args, bool decode,
                      int64_t splits) {
  return (decode       ? kDecodePath
          : splits > 1 ? kSplitKeysPath
                       : kForwardPath) |
         (args.options.query_splits ? kPackedForwardPath : 0u) |
         (args.dtype == DType::kBfloat16 ? kBfloat16ForwardPath : 0u);
}

uint32_t BackwardPaths(const AttentionBackwardArgs& args) {
  const ScoreStrides& bias = args.options.bias_strides;
  const bool shares_bias =
      args.grad_bias && bias.key != 0 && (bias.batch == 0 || bias.head == 0);
  return (shares_bias ? kSharedBiasPath : kBackwardPath) |
         (args.options.query_splits ? kPackedBackwardPath : 0u) |
         (args.dtype == DType::kBfloat16 ? kBfloat16BackwardPath : 0u);
}

bool Forward(const AttentionForwardArgs& args, int num_threads) {
  const AttentionShape& shape = args.shape;
  const InstructionSet& set = ChosenInstructionSet();
  const AttentionKernels& kernels =
      args.dtype == DType::kBfloat16 && set.attention_bfloat16
          ? *set.attention_bfloat16
          : *set.attention;
  PlanStorage storage(shape, args.options);
  const bool decode = IsDecode(args, kernels, storage);
  const int64_t splits =
      decode ? CeilDiv(shape.key_len,
                       Hooked(test_hooks.decode_chunk, kernels.decode_chunk))
             : storage.KeySplits(kernels.tiles.query_tile);
  Floats partials;
  if (splits > 1) {
    partials = Allocate(splits * shape.batch * shape.num_heads *
                        shape.query_len * (2 + shape.value_dim));
    if (!partials) return false;
    storage.Split(splits, partials.get());
  }
  const double flops = 2 * storage.VisiblePairs() *
                       static_cast<double>(shape.head_dim + shape.value_dim);
  const int wanted = Threads(num_threads, kMaxThreads, flops);
  if (decode)
    storage.AddKeyRanges();
  else
    storage.AddQueryBlocks(
        Hooked(test_hooks.query_block, QueryBlock(kernels.tiles, shape)),
        kernels.tiles.query_tile, wanted);
  AttentionPlan plan = storage.View();
  if (plan.num_tasks == 0) return true;
  const int threads =
      static_cast<int>(std::min<int64_t>(wanted, plan.num_tasks));
  plan.tasks_ahead = threads;
  const int64_t per_thread =
      RoundToLine(std::max(kernels.forward_scratch(args),
                           decode ? kernels.decode_scratch(args) : 0));
  const Floats scratch = Allocate(per_thread * threads);
  if (!scratch) return false;
  const auto run = decode ? kernels.decode : kernels.forward;
  const uint32_t paths = ForwardPaths(args, decode, splits);
  ParallelFor(plan.num_tasks, threads, paths, [&](int64_t task, int worker) {
    run(args, plan, plan.tasks[task], scratch.get() + worker * per_thread);
  });
  if (splits > 1)
    ParallelFor(shape.batch * shape.num_heads, threads,
                [&](int64_t index, int worker) {
                  kernels.merge_splits(args, plan, index / shape.num_heads,
                                       index % shape.num_heads,
                                       scratch.get() + worker * per_thread);
                });
  return true;
}

bool Backward(const AttentionBackwardArgs& args, int num_threads) {
  const AttentionShape& shape = args.shape;
  const AttentionKernels& kernels = *ChosenInstructionSet().attention;
  PlanStorage storage(shape, args.options);
  storage.AddKeyChunks(Hooked(test_hooks.key_chunk, kernels.tiles.key_chunk),
                       kernels.tiles.key_chunk / 64,
                       /*aligned=*/args.grad_bias != nullptr,
                       kernels.backward_rows);
  AttentionPlan plan = storage.View();
  const double flops =
      2 * storage.VisiblePairs() *
      static_cast<double>(3 * shape.head_dim + 2 * shape.value_dim);
  const int threads =
      Threads(num_threads, std::max<int64_t>(1, plan.num_tasks), flops);
  plan.tasks_ahead = threads;

  AttentionBackwardShared shared{};
  shared.query_blocks = storage.QueryBlocks(kernels.backward_rows);
  const int64_t heads = plan.num_sequences * shape.num_kv_heads;
  const int64_t queries = plan.packed
                              ? plan.statistics_stride * shape.num_heads
                              : shape.batch * shape.num_heads * shape.query_len;
  int64_t chunks = 0, ranges = 1;
  for (int64_t i = 0; i < plan.num_tasks; ++i) {
    chunks = std::max(chunks, plan.tasks[i].pieces);
    ranges = plan.tasks[i].ranges;
  }
  const int64_t per_thread = RoundToLine(kernels.backward_scratch(args));
  const int64_t dots = chunks > 1 ? RoundToLine(queries) : 0;
  const int64_t mean_grads = RoundToLine(2 * heads * shape.value_dim);
  const int64_t query_turns = RoundToLine(heads * shared.query_blocks);
  const int64_t bias_turns =
      args.grad_bias
          ? RoundToLine(chunks * std::max<int64_t>(1, shared.query_blocks) *
                        std::max(plan.num_sequences, shape.num_kv_heads))
          : 0;
  const int64_t key_turns = ranges > 1 ? RoundToLine(chunks * heads) : 0;
  const int64_t key_sums =
      ranges > 1
          ? heads * shape.key_len *
                (RoundToLine(shape.head_dim) + RoundToLine(shape.value_dim))
          : 0;
  const int64_t grad_query =
      args.dtype == DType::kFloat32 ? 0 : RoundToLine(queries * shape.head_dim);
  const Floats memory =
      Allocate(per_thread * threads + dots + mean_grads + query_turns +
               bias_turns + key_turns + key_sums + grad_query);
  if (!memory) return false;
  float* next = memory.get() + per_thread * threads;
  const auto carve = [&next](int64_t count) {
    float* const begin = next;
    next += count;
    return begin;
  };
  shared.output_dot_grad = dots ? carve(dots) : nullptr;
  shared.mean_grads = reinterpret_cast<double*>(carve(mean_grads));
  shared.query_turns = reinterpret_cast<int32_t*>(carve(query_turns));
  shared.bias_turns = reinterpret_cast<int32_t*>(carve(bias_turns));
  shared.key_turns = reinterpret_cast<int32_t*>(carve(key_turns));
  shared.key_sums = key_sums ? carve(key_sums) : nullptr;
  shared.grad_query = carve(grad_query);
  std::memset(shared.query_turns, 0,
              static_cast<size_t>(query_turns + bias_turns + key_turns) *
                  sizeof(int32_t));

  if (args.grad_bias) {
    int64_t size;
    shared.grad_bias_strides = ContiguousBias(shape, args.options, &size);
    std::memset(args.grad_bias, 0, static_cast<size_t>(size) * sizeof(float));
    if (args.options.bias_strides.key == 0)
      GradOfShifts(args, plan, shared.grad_bias_strides);
  }
  ParallelFor(heads, threads, [&](int64_t task, int) {
    kernels.prepare_backward(args, plan, shared, task / shape.num_kv_heads,
                             task % shape.num_kv_heads);
  });
  const uint32_t paths = BackwardPaths(args);
  ParallelFor(plan.num_tasks, threads, paths, [&](int64_t task, int worker) {
    kernels.backward(args, plan, shared, plan.tasks[task],
                     memory.get() + worker * per_thread);
  });
  return true;
}

}  // namespace

bool AttentionForward(const AttentionForwardArgs& args, int num_threads) {
  AssertShape(args.shape);
  if (!HasQueries(args.shape, args.options)) return true;
  const FloatingPointScope scope;
  try {
    return args.dtype == DType::kFloat64
               ? AttentionForwardFloat64(args, num_threads)
               : Forward(args, num_threads);
  } catch (const std::bad_alloc&) {
    return false;
  } catch (const std::length_error&) {
    return false;
  }
}

bool AttentionBackward(const AttentionBackwardArgs& args, int num_threads) {
  AssertShape(args.shape);
  if (!HasQueries(args.shape, args.options)) {
    ZeroGradients(args);
    return true;
  }
  const FloatingPointScope scope;
  try {
    return BackwardWithSharedOperands(
        args, num_threads,
        args.dtype == DType::kFloat64 ? AttentionBackwardFloat64 : Backward);
  } catch (const std::bad_alloc&) {
    return false;
  } catch (const std::length_error&) {
    return false;
  }
}

AttentionTiles GetAttentionTiles() {
  return ChosenInstructionSet().attention->tiles;
}

}  // namespace hw3tf
