// A TensorFlow with another layout of a custom call's status, chosen by MODE.
// Built by ops/test_xla_probe.py with xla_registry.cc, which finds this
// function as it would find XLA's.

#include <cstdio>
#include <string_view>

#include "tensorflow/xla_registry.h"

namespace xla {

using Message = std::optional<std::string_view>;

#if MODE == 0  // as it is
Message CustomCallStatusGetMessage(const XlaCustomCallStatus_* status) {
  if (!status->message) return std::nullopt;
  return *status->message;
}
#elif MODE == 1  // a pointer to the message
Message CustomCallStatusGetMessage(const XlaCustomCallStatus_* status) {
  return **reinterpret_cast<std::string* const*>(status);
}
#elif MODE == 2  // larger, with the message at its end
Message CustomCallStatusGetMessage(const XlaCustomCallStatus_* status) {
  const auto* message = &status[2].message;
  if (!message->has_value()) return std::nullopt;
  return **message;
}
#elif MODE == 3  // no std::optional is returned
const char* CustomCallStatusGetMessage(const XlaCustomCallStatus_* status) {
  return status->message ? status->message->c_str() : nullptr;
}
#endif

}  // namespace xla

int main() {
  std::printf("%s\n", hw3tf::XlaStatusError().c_str());
  std::fflush(stdout);
  XlaCustomCallStatus_ status;
  hw3tf::SetXlaError(&status, "wrong shape");
  std::printf("%s\n", status.message->c_str());
}
