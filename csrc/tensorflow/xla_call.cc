#include "tensorflow/xla_call.h"

#include <algorithm>

namespace hw3tf {

bool ReadOperands(const int64_t* ranks, int count, const void** arrays,
                  Operand* operands) {
  const int64_t* const bounds = ranks + count;
  const int64_t* sizes = bounds;
  for (int i = 0; i < count; ++i) {
    const int64_t rank = ranks[i];
    if (rank < 0) continue;
    operands[i] = {Dims(sizes, sizes + rank), *arrays++};
    sizes += rank;
  }
  return std::equal(bounds, sizes, static_cast<const int64_t*>(*arrays));
}

}  // namespace hw3tf

// For hw3tf/ops/fronts/xla_probe.py: both return "" or what is wrong.
extern "C" __attribute__((visibility("default"))) const char*
Hw3tfRegisterXlaTargets() {
  static const std::string error = [] {
    std::string why = hw3tf::RegisterAttentionTargets();
    return why.empty() ? hw3tf::RegisterRecurrenceTarget() : why;
  }();
  return error.c_str();
}

extern "C" __attribute__((visibility("default"))) const char*
Hw3tfXlaStatusError() {
  return hw3tf::XlaStatusError().c_str();
}
