// The part of XLA that a custom call needs, found at run time: XLA has no C API
// for it, and its headers would tie the build to one version of TensorFlow.
//
// All of it is private to TensorFlow: names, and the layout of a status. Every
// part is tested before it is used, and the caller tests the whole with a small
// call (hw3tf/ops/xla_probe.py); where something is missing, attention under
// XLA runs in pure Keras.

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
// cannot be done. Doing it again is harmless.
std::string RegisterXlaTarget(const char* name, XlaTarget target);

}  // namespace hw3tf
