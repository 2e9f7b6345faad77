// The part of XLA that a custom call needs, found at run time: XLA has no C API
// for it, and its headers would tie the build to one version of TensorFlow.
//
// All of it is private to TensorFlow: names, and the layout of a status. Every
// part is tested before it is used, and the caller tests the whole with a small
// call (hw3tf/ops/fronts/xla_probe.py); where something is missing, attention
// under XLA runs in pure Keras.

#pragma once

#include <cstddef>
#include <optional>
#include <string>

// In the global namespace, as XLA's own. No message is success.
struct XlaCustomCallStatus_ {
  std::optional<std::string> message;
};

namespace hw3tf {

// A custom call of API version 3 ("status returning, unified") on the CPU: the
// results, an array of pointers if there are several; the operands; the call's
// backend_config.
using XlaTarget = void (*)(void* results, const void** operands,
                           const char* config, size_t config_size,
                           XlaCustomCallStatus_* status);

// Makes a target known to XLA for the CPU under `name`. Returns "", or why it
// cannot be done. Doing it again is harmless. Names of symbols are all that
// this relies on: it is done while the library is imported.
std::string RegisterXlaTarget(const char* name, XlaTarget target);

// "", or why a status of this TensorFlow cannot be written. XLA's own functions
// that set one are not exported by TensorFlow 2.16 to 2.21, so the layout above
// is taken from its sources. Whether it still holds is tried once, when it is
// needed, in a process of its own: a wrong one could end that.
const std::string& XlaStatusError();

// The call fails with this message; ends the process if it could not be told.
void SetXlaError(XlaCustomCallStatus_* status, const std::string& message);

}  // namespace hw3tf
