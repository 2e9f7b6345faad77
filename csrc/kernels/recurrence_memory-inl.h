// The scratch memory of the general kernel (recurrence_rows-inl.h).

#pragma once

#include "kernels/recurrence_kernels.h"
#include "kernels/recurrence_multiply-inl.h"
#include "kernels/recurrence_wide-inl.h"

namespace hw3tf {
namespace {

inline int64_t Aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Where the rows of one task keep their numbers.
template <typename State>
struct RowsMemory {
  // [row][step of the block][feature], and in two planes; features even there.
  State* inputs;
  int16_t *low_inputs, *high_inputs;
  State* sums;    // [row][step of the block][padded unit]
  State* states;  // [row][padded unit]
  int16_t *low_states, *high_states;
  double* largest_input;  // [row], of the block
  double* largest_state;  // [row]
  int64_t* wide;          // WideScratch
  int64_t bytes;

  RowsMemory(const RowsPlan& plan, int64_t rows, char* memory) {
    const int64_t features = plan.args->shape.features;
    const int64_t steps = rows * plan.time_block;
    const int64_t pairs = plan.narrow ? 1 : 0;
    char* const begin = memory;
    Carve(&memory, steps * features, &inputs);
    Carve(&memory, pairs * steps * Even(features), &low_inputs);
    Carve(&memory, pairs * steps * Even(features), &high_inputs);
    Carve(&memory, steps * plan.padded_units, &sums);
    Carve(&memory, rows * plan.padded_units, &states);
    Carve(&memory, pairs * rows * plan.padded_units, &low_states);
    Carve(&memory, pairs * rows * plan.padded_units, &high_states);
    Carve(&memory, rows, &largest_input);
    Carve(&memory, rows, &largest_state);
    Carve(&memory, WideScratch(plan), &wide);
    bytes = memory - begin;
  }

 private:
  template <typename T>
  static void Carve(char** memory, int64_t count, T** array) {
    *array = reinterpret_cast<T*>(*memory);
    *memory += Aligned(count * static_cast<int64_t>(sizeof(T)));
  }
};

}  // namespace
}  // namespace hw3tf
