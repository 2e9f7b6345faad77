// Forward and backward: scratch memory, the number of threads, and the tasks of
// the chosen instruction set over the pool.

#include "kernels/attention.h"

#include <cassert>
#include <cstring>
#include <memory>
#include <new>

#include "kernels/attention_kernels.h"
#include "kernels/dispatch.h"
#include "kernels/parallel.h"

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

// nullptr if there is no memory.
Floats Allocate(int64_t count) {
  return Floats(static_cast<float*>(::operator new(
      static_cast<size_t>(count) * sizeof(float), kAlignment, std::nothrow)));
}

int64_t RoundToLine(int64_t floats) {
  return (floats + kFloatsPerLine - 1) / kFloatsPerLine * kFloatsPerLine;
}

// Below about 100 us of work on one core a second one is not worth its waking
// (up to 50 us, parallel.h): 5e6 operations at the 50 GFLOP/s that a small call
// reaches.
constexpr double kSerialFlops = 5e6;

int Threads(int requested, int64_t tasks, double flops) {
  if (flops < kSerialFlops) return 1;
  const int threads = ResolveNumThreads(requested);
  return tasks < threads ? static_cast<int>(tasks) : threads;
}

double Products(const AttentionShape& shape, const AttentionOptions& options) {
  return static_cast<double>(shape.batch) *
         static_cast<double>(shape.num_heads) *
         static_cast<double>(shape.query_len) *
         static_cast<double>(shape.key_len) * (options.is_causal ? 1.0 : 2.0);
}

void AssertShape(const AttentionShape& shape) {
  assert(shape.batch >= 0 && shape.query_len >= 0 && shape.key_len >= 1);
  assert(shape.head_dim >= 1 && shape.value_dim >= 1);
  assert(shape.num_kv_heads >= 1 && shape.num_heads % shape.num_kv_heads == 0);
  (void)shape;
}

}  // namespace

bool AttentionForward(const AttentionForwardArgs& args, int num_threads) {
  const AttentionShape& shape = args.shape;
  AssertShape(shape);
  const AttentionKernels& kernels = *ChosenInstructionSet().attention;
  const int64_t tasks = kernels.forward_tasks(shape);
  if (tasks == 0) return true;
  const double flops = Products(shape, args.options) *
                       static_cast<double>(shape.head_dim + shape.value_dim);
  const int threads = Threads(num_threads, tasks, flops);
  const int64_t per_thread = RoundToLine(kernels.forward_scratch(shape));
  const Floats scratch = Allocate(per_thread * threads);
  if (!scratch) return false;
  ParallelFor(tasks, threads, [&](int64_t task, int worker) {
    kernels.forward(args, task, scratch.get() + worker * per_thread);
  });
  return true;
}

bool AttentionBackward(const AttentionBackwardArgs& args, int num_threads) {
  const AttentionShape& shape = args.shape;
  AssertShape(shape);
  const AttentionKernels& kernels = *ChosenInstructionSet().attention;
  const int64_t tasks = kernels.backward_tasks(shape);
  if (tasks == 0) return true;
  const int64_t heads = shape.batch * shape.num_heads;
  const double flops =
      Products(shape, args.options) *
      static_cast<double>(3 * shape.head_dim + 2 * shape.value_dim);
  const int threads = Threads(num_threads, tasks, flops);
  const int64_t per_thread = RoundToLine(kernels.backward_scratch(shape));
  const int64_t dots = RoundToLine(heads * shape.query_len);
  const int64_t turns = kernels.backward_turns(shape);
  const Floats memory =
      Allocate(per_thread * threads + dots + RoundToLine(turns));
  if (!memory) return false;

  AttentionBackwardShared shared;
  shared.output_dot_grad = memory.get() + per_thread * threads;
  shared.turns = reinterpret_cast<int32_t*>(shared.output_dot_grad + dots);
  std::memset(shared.turns, 0, static_cast<size_t>(turns) * sizeof(int32_t));
  ParallelFor(heads, threads, [&](int64_t task, int) {
    kernels.output_dot_grad(args, task, shared.output_dot_grad);
  });
  ParallelFor(tasks, threads, [&](int64_t task, int worker) {
    kernels.backward(args, shared, task, memory.get() + worker * per_thread);
  });
  return true;
}

AttentionTiles GetAttentionTiles() {
  return ChosenInstructionSet().attention->tiles;
}

}  // namespace hw3tf
