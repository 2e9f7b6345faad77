// What one instruction set offers to attention.cc: the table that the dispatch
// chooses. Not part of the contract; include attention.h instead.

#pragma once

#include <cstdint>

#include "kernels/attention.h"

namespace hw3tf {

// What the tasks of one backward pass share.
struct AttentionBackwardShared {
  // (B, N, T): sum over value_dim of output * grad_output.
  float* output_dot_grad;
  // (B, N, query blocks): how many key chunks have been added to grad_query.
  int32_t* turns;
};

// Work is cut into tasks that depend on the shape alone. Tasks may run on any
// thread; a thread takes them in ascending order. Scratch counts floats, is
// aligned to 64 bytes, and belongs to one thread for the length of a task.
struct AttentionKernels {
  AttentionTiles tiles;

  int64_t (*forward_tasks)(const AttentionShape& shape);
  int64_t (*forward_scratch)(const AttentionShape& shape);
  void (*forward)(const AttentionForwardArgs& args, int64_t task,
                  float* scratch);

  // One task per batch entry and query head.
  void (*output_dot_grad)(const AttentionBackwardArgs& args, int64_t task,
                          float* output_dot_grad);
  int64_t (*backward_tasks)(const AttentionShape& shape);
  int64_t (*backward_scratch)(const AttentionShape& shape);
  int64_t (*backward_turns)(const AttentionShape& shape);
  void (*backward)(const AttentionBackwardArgs& args,
                   const AttentionBackwardShared& shared, int64_t task,
                   float* scratch);
};

// One per instruction set, each in an object of its own. Which of them exist is
// decided by CMakeLists.txt (HW3TF_HAVE_*).
extern const AttentionKernels kAttentionBase;
extern const AttentionKernels kAttentionAvx2;
extern const AttentionKernels kAttentionAvx512;

}  // namespace hw3tf
