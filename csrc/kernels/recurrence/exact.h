// One step of the recurrence in as many bits as it takes. The fast kernels come
// here with the steps whose sums bounds do not confine; it is also the plain
// form of the whole, one row and one step after the other.

#pragma once

#include "kernels/recurrence/recurrence.h"

namespace hw3tf {

// Reads input x[i], of any type, as a number.
int64_t WidenedInput(IntDType dtype, const void* x, int64_t i);

// next = activation(W x + U previous + b) for one batch entry; `x` points at
// `features` widened inputs of the state's type. Returns whether a value did
// not fit the state, which kSaturate has then brought into its range and the
// others have wrapped. `next` does not overlap `previous`.
bool ExactStep(const RecurrenceArgs& args, const void* x, const void* previous,
               void* next);

}  // namespace hw3tf
