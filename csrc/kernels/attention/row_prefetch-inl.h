// Rows of the arrays of a task, for the prefetcher.

#pragma once

#include "kernels/attention/rows-inl.h"
#include "kernels/vector/prefetch-inl.h"

namespace hw3tf {
namespace {

// Queries [first, first + count) of a task's rows, of all heads of its group.
inline void PrefetchQueries(const AttentionPlan& plan, DType dtype,
                            const AttentionTask& task, const void* data,
                            const Strides& strides, int64_t size, int64_t first,
                            int64_t count, bool to_write,
                            Prefetcher* prefetcher) {
  const int64_t bytes = ElementBytes(dtype);
  for (int64_t g = 0; g < plan.group; ++g) {
    const int64_t head = QueryOffset(strides, plan, plan.sequences[task.b],
                                     task.kv_head * plan.group + g);
    prefetcher->Add(
        Element(data, head + first / plan.group * strides.length, dtype),
        strides.length * bytes, CeilDiv(count, plan.group), size * bytes,
        to_write);
  }
}

// Keys, or values, [first, first + count) of the sequence of a task.
inline void PrefetchKeys(const AttentionPlan& plan, DType dtype,
                         const AttentionTask& task, const void* data,
                         const Strides& strides, int64_t size, int64_t first,
                         int64_t count, bool to_write, Prefetcher* prefetcher) {
  const int64_t bytes = ElementBytes(dtype);
  const int64_t head =
      KeyOffset(strides, plan, plan.sequences[task.b], task.kv_head);
  prefetcher->Add(Element(data, head + first * strides.length, dtype),
                  strides.length * bytes, count, size * bytes, to_write);
}

}  // namespace
}  // namespace hw3tf
