// The recurrence as it is defined, one number after the other: what the kernels
// are judged by. Shares no line with them.

#pragma once

#include <cstdint>
#include <vector>

#include "kernels/recurrence/recurrence.h"

namespace hw3tf {

// A call whose numbers are all int64, with inputs and mask in the order of
// (B, T).
struct RecurrenceCase {
  RecurrenceArgs args;  // types, shape and options; no pointers
  std::vector<int64_t> inputs, kernel, recurrent_kernel;
  std::vector<int64_t> bias, initial_state;  // empty: not given
  std::vector<uint8_t> mask;                 // empty: not given
};

// Fills `states`, of the size of the output, or returns where it overflows.
RecurrenceResult RecurrenceFormula(const RecurrenceCase& c,
                                   std::vector<int64_t>* states);

}  // namespace hw3tf
