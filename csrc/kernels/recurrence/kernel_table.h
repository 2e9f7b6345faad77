// What one instruction set offers to recurrence.cc and its parts: the table
// that the dispatch chooses, and what its functions read. Not part of the
// contract; include recurrence.h instead. No STL here: the objects of the
// instruction sets include this file, and must share no inline function.

#pragma once

#include <cstdint>

#include "kernels/recurrence/recurrence.h"

namespace hw3tf {

// A stretch of one sequence with one feature and one unit, in the order of the
// steps: `count` inputs from `inputs` on, downwards in memory if `reverse`,
// when `inputs` is the last address. Numbers are those of the state, modulo
// 2^32 or 2^64.
struct Line {
  IntDType input_dtype, state_dtype;
  const void* inputs;
  int64_t count;
  bool reverse;
  int64_t kernel, recurrent_kernel, bias;
};

struct LineEnd {
  int64_t sum;  // of recurrent_kernel^(count - 1 - i) * input i
  // Every input is within -2^(n-1) .. 2^(n-1) - 1 for n - 1 the highest bit
  // that is set here, or 0.
  uint64_t sign_changes;
};

// A stretch of one batch entry, for the general kernel.
struct RecurrenceRow {
  int64_t batch_entry;
  int64_t first_step, steps;  // counted in the order in which they are taken
  const void* initial;        // State (units); nullptr = zeros
  void* last;                 // State (units); nullptr = not wanted
  int64_t overflow;           // the first step that overflows; -1: none
};

// What the rows of a call share.
struct RowsPlan {
  const RecurrenceArgs* args;
  bool diagonal;   // U
  bool narrow;     // int32 states, weights that fit int16: multiplied in pairs
  bool checked;    // sums that bounds do not confine go to `exact`
  bool sequences;  // states go to the output
  int64_t time_block;
  int64_t padded_units;
  // The largest sum of magnitudes of a column of W and U, and of b.
  double kernel_norm, recurrent_norm, bias_norm;
  // Packed by `pack` for `narrow` or not; a diagonal is padded only.
  const void *kernel, *recurrent_kernel;
  const void* bias;  // padded
  // The same in int64 for a state of int32; nullptr: not prepared. A diagonal
  // is not repeated.
  const void *wide_kernel, *wide_recurrent_kernel;
  // ExactStep (exact.h): not to be compiled with the flags of an
  // instruction set.
  bool (*exact)(const RecurrenceArgs& args, const void* x, const void* previous,
                void* next);
};

struct RecurrenceKernels {
  void (*line_end)(const Line& line, LineEnd* end);
  // All states of the line from `state` on, into `states`, past the caches if
  // `stream`.
  void (*line_states)(const Line& line, int64_t state, void* states,
                      bool stream);

  int64_t lanes32;  // units are padded to a multiple, of int64 to half of it
  int64_t tile_rows;
  // Bytes of a (depth, units) matrix packed for RowsPlan, and the packing.
  int64_t (*packed_bytes)(const RowsPlan& plan, int64_t depth);
  void (*pack)(const RowsPlan& plan, const void* weights, int64_t depth,
               void* packed);
  // For wide_kernel and wide_recurrent_kernel.
  int64_t (*wide_packed_bytes)(const RowsPlan& plan, int64_t depth);
  void (*wide_pack)(const RowsPlan& plan, const void* weights, int64_t depth,
                    void* packed);
  int64_t (*rows_scratch)(const RowsPlan& plan, int64_t rows);  // in bytes
  // Some rows, of which none has more steps than the one before. Scratch is
  // aligned to 64 bytes.
  void (*rows)(const RowsPlan& plan, RecurrenceRow* rows, int64_t count,
               void* scratch);
};

extern const RecurrenceKernels kRecurrenceBase;
extern const RecurrenceKernels kRecurrenceAvx2;
extern const RecurrenceKernels kRecurrenceAvx512;
extern const RecurrenceKernels kRecurrenceAvx512Vnni;

}  // namespace hw3tf
