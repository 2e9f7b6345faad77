// Hooks for the tests of this library: sizes to change, so that small calls
// take the paths of large ones, and counts of the paths that calls took. Not
// part of the contract; a call without tests pays nothing for them.

#pragma once

#include <cstdint>

#include "kernels/runtime/export.h"

namespace hw3tf {

// The paths of a call: bits, since a call may take several.
enum TestPath : uint32_t {
  kForwardPath = 1 << 0,  // neither decoding nor with split keys
  kDecodePath = 1 << 1,
  kSplitKeysPath = 1 << 2,
  kPackedForwardPath = 1 << 3,
  kBfloat16ForwardPath = 1 << 4,
  kBackwardPath = 1 << 5,    // no gradient of a bias that tasks share
  kSharedBiasPath = 1 << 6,  // with one
  kPackedBackwardPath = 1 << 7,
  kBfloat16BackwardPath = 1 << 8,
  kPlainForwardPath = 1 << 9,  // float64
  kPlainBackwardPath = 1 << 10,
  kSharedOperandsPath = 1 << 11,  // gradients summed over the batch
  kWholeLinesPath = 1 << 12,      // recurrence: a task is some sequences
  kLineBlocksPath = 1 << 13,      // a task is a part of a sequence
  kRowsPath = 1 << 14,
  kRowChunksPath = 1 << 15,  // time is cut
  kRnnRowsPath = 1 << 16,    // RNN: a task is some rows
  kRnnUnitsPath = 1 << 17,   // a part is some units of all rows
  kRnnRowsBackPath = 1 << 18,
  kRnnUnitsBackPath = 1 << 19,
};
constexpr int kTestPaths = 20;

struct PathCounts {
  int64_t calls;
  int64_t wanted_threads;  // calls that were to run on more than one thread
  int64_t on_threads;      // calls of which more than one thread took tasks
  int64_t tasks;
};

// Changed only while no call runs. A size of 0 is the kernels' own; others must
// not be larger than that.
struct TestHooks {
  // No call is too small for more than one thread.
  int64_t always_threads = 0;
  // No thread begins its first task before each has taken one.
  int64_t meet = 0;
  // kTestPaths counts to add to, if not nullptr.
  PathCounts* counts = nullptr;

  // Attention.
  int64_t query_block = 0;  // query rows of a task, whole query tiles
  int64_t key_tile = 0;     // keys, a multiple of what a product takes at once
  int64_t key_chunk = 0;    // keys of a task of the backward pass
  int64_t range_rows = 0;   // queries of a task of the backward pass
  int64_t enough_tasks = 0;
  int64_t keys_per_split = 0;
  int64_t decode_keys = 0;   // fewer are not decoded
  int64_t decode_chunk = 0;  // keys of a task, less than decode_keys
  int64_t plain_rows = 0;    // queries of a task in float64

  // Recurrence.
  int64_t line_block = 0;
  int64_t line_piece = 0;
  int64_t stream_bytes = 0;
  int64_t task_rows = 0;
  int64_t time_block = 0;
  int64_t shortest_chunk = 0;

  // RNN.
  int64_t rnn_chunk_rows = 0;  // of the backward pass
  int64_t rnn_rows_ahead = 0;
  int64_t rnn_many_rows = 0;  // for each thread
};
extern HW3TF_EXPORT TestHooks test_hooks;

inline int64_t Hooked(int64_t hook, int64_t own) { return hook ? hook : own; }

}  // namespace hw3tf
