// What the custom calls of XLA share: their operands, their errors.

#pragma once

#include <exception>
#include <new>
#include <string>

#include "tensorflow/operand.h"
#include "tensorflow/xla_registry.h"

namespace hw3tf {

// The string is XLA's from here on: made and freed by the same libstdc++.
inline void Fail(XlaCustomCallStatus_* status, const std::string& message) {
  status->message = message;
}

// No exception may reach XLA's code, which is compiled without them.
template <XlaTarget kTarget>
void Guarded(void* results, const void** arrays, const char* config,
             size_t config_size, XlaCustomCallStatus_* status) {
  try {
    kTarget(results, arrays, config, config_size, status);
  } catch (const std::bad_alloc&) {
    status->message.emplace("out of memory");  // fits into the string itself
  } catch (const std::exception&) {
    status->message.emplace("error in hw3tf");  // likewise
  }
}

// Fills `count` operands from what hw3tf/ops/xla_module.py has put together:
// `ranks`, in the header, are those of each array, -1 where it is not given,
// and are followed by their sizes. `arrays` are those that are given, and the
// sizes once more, as they are at run time. Returns whether the two agree: the
// header has bounds, which are larger, where sizes depend on values.
bool ReadOperands(const int64_t* ranks, int count, const void** arrays,
                  Operand* operands);

// Both return "" or why the targets cannot be made known to XLA.
std::string RegisterAttentionTargets();
std::string RegisterRecurrenceTarget();

}  // namespace hw3tf
