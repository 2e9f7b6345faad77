// The arrays of a call of the recurrence, as TensorFlow and XLA hand them over:
// one list, one order, for the ops and for the custom call.

#pragma once

#include <string>

#include "kernels/recurrence/recurrence.h"
#include "tensorflow/operand.h"

namespace hw3tf {

// The order in which both take them.
enum RecurrenceOperand {
  kInputs,
  kKernel,
  kRecurrentKernel,
  kBias,
  kInitialState,
  kMask,
  kRecurrenceOperands,
};

// Fills what is still open in `args`, whose dtypes and options are set: the
// shape, and all pointers but the output. Returns "" or what is wrong.
std::string SetOperands(const Operand* operands, RecurrenceArgs* args);

}  // namespace hw3tf
