// The recurrence kernels of one instruction set. CMakeLists.txt compiles this
// file once for each, with its flags and HW3TF_RECURRENCE_KERNELS, the name of
// the table; the table is the only symbol that leaves the object.

#include "kernels/recurrence/kernel_table.h"
#include "kernels/recurrence/line-inl.h"
#include "kernels/recurrence/rows-inl.h"

namespace hw3tf {

extern const RecurrenceKernels HW3TF_RECURRENCE_KERNELS;
const RecurrenceKernels HW3TF_RECURRENCE_KERNELS = {
    FindLineEnd, WriteLineStates, kLanes,   kRows,       PackedBytes,
    Pack,        WidePackedBytes, WidePack, RowsScratch, RunRows,
};

}  // namespace hw3tf
