// What the custom calls of XLA share: their operands, their errors.

#pragma once

#include <string>

#include "tensorflow/exceptions.h"
#include "tensorflow/operand.h"
#include "tensorflow/xla_registry.h"

namespace hw3tf {

template <XlaTarget kTarget>
void Guarded(void* results, const void** arrays, const char* config,
             size_t config_size, XlaCustomCallStatus_* status) {
  WithoutExceptions(
      [&] { kTarget(results, arrays, config, config_size, status); },
      [&](TF_Code, const char* message) {
        WithoutExceptions([&] { SetXlaError(status, message); },
                          [&](TF_Code, const char*) {
                            // Fits into the string itself.
                            SetXlaError(status, "out of memory");
                          });
      });
}

// Fills `count` operands from what hw3tf/ops/fronts/xla_module.py has put
// together: `ranks`, in the header, are those of each array, -1 where it is not
// given, and are followed by their sizes. `arrays` are those that are given,
// and the sizes once more, as they are at run time. Returns whether the two
// agree: the header has bounds, which are larger, where sizes depend on values.
bool ReadOperands(const int64_t* ranks, int count, const void** arrays,
                  Operand* operands);

// Both return "" or why the targets cannot be made known to XLA.
std::string RegisterAttentionTargets();
std::string RegisterRecurrenceTarget();

}  // namespace hw3tf
