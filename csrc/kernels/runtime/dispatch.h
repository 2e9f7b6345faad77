// The choice of the instruction set: the widest that was compiled, that this
// processor has and that is fast on it, or the one that HW3TF_ISA names.

#pragma once

#include <string>
#include <vector>

#include "kernels/runtime/export.h"

namespace hw3tf {

struct AttentionKernels;
struct RecurrenceKernels;
struct RnnKernels;
template <typename Real>
struct RnnKernelsOf;

// One instruction set that was compiled into this library.
struct InstructionSet {
  const char* name;  // as HW3TF_ISA spells it: "base", "avx2", "avx512",
                     // "avx512_vnni", "avx512_bf16"
  bool supported;    // by this processor and operating system
  bool preferred;    // to the narrower ones, where none is named
  const AttentionKernels* attention;
  // The forward pass in bfloat16; nullptr: `attention` has it, too.
  const AttentionKernels* attention_bfloat16;
  const RecurrenceKernels* recurrence;
  const RnnKernels* rnn;
  // Likewise.
  const RnnKernelsOf<float>* rnn_bfloat16;
};

// All that were compiled, narrowest first.
HW3TF_EXPORT const std::vector<InstructionSet>& CompiledInstructionSets();

// The one in use; chosen once, at the first call.
HW3TF_EXPORT const InstructionSet& ChosenInstructionSet();

// Empty, or why the environment's HW3TF_ISA or HW3TF_NUM_THREADS could not be
// honoured. The kernels then run with the defaults, and the program that loads
// the library must report it.
HW3TF_EXPORT std::string EnvironmentError();

}  // namespace hw3tf
