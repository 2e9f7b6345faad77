#include "checks/attention_values.h"

#include <algorithm>
#include <cmath>

namespace hw3tf {
namespace {

std::string At(int64_t index) { return "[" + std::to_string(index) + "]"; }

// The kernels compute in Real: there 1e300 is infinite in float32.
double InReal(DType dtype, double number) {
  if (dtype == DType::kFloat64) return number;
  return static_cast<double>(static_cast<float>(number));
}

bool IsNormal(DType dtype, double number) {
  if (dtype == DType::kFloat64) return std::isnormal(number);
  return std::isnormal(static_cast<float>(number));
}

std::string CheckWindow(const char* name, int64_t* window) {
  if (*window < -1)
    return WrongValue(name, "a number of positions, or -1 for no limit",
                      *window);
  if (*window > kLongest) *window = -1;
  return "";
}

}  // namespace

const char* Name(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kBfloat16:
      return "bfloat16";
    case DType::kFloat16:
      return "float16";
    case DType::kFloat64:
      return "float64";
  }
  return "";
}

const char* RealName(DType dtype) {
  return dtype == DType::kFloat64 ? "float64" : "float32";
}

std::string CheckDropoutRate(const char* name, double rate) {
  if (rate >= 0 && rate < 1) return "";
  return WrongValue(name, "at least 0 and below 1", rate);
}

std::string CheckNumbers(DType dtype, AttentionOptions* options) {
  const std::string real = RealName(dtype);
  if (!std::isfinite(InReal(dtype, options->scale)))
    return WrongValue("scale", "a finite " + real, options->scale);
  if (options->soft_cap != 0 &&
      !(options->soft_cap > 0 && IsNormal(dtype, options->soft_cap)))
    return WrongValue("soft_cap", "0 (none) or a positive, finite " + real,
                      options->soft_cap);
  std::string error = CheckDropoutRate("dropout_rate", options->dropout_rate);
  if (error.empty())
    error = CheckWindow("window_before", &options->window_before);
  if (error.empty())
    error = CheckWindow("window_after", &options->window_after);
  return error;
}

std::string CheckLengths(const char* name, const int32_t* lengths,
                         int64_t batch, const char* of, int64_t limit) {
  for (int64_t b = 0; b < batch; ++b)
    if (lengths[b] < 0 || lengths[b] > limit)
      return WrongValue(name,
                        "between 0 and the length of `" + std::string(of) +
                            "`, " + std::to_string(limit),
                        lengths[b], At(b));
  return "";
}

std::string CheckSplits(const char* name, const int64_t* splits, int64_t batch,
                        const char* of, int64_t rows, int64_t* longest) {
  *longest = 0;
  if (splits[0] != 0)
    return WrongValue(name, "ascending from 0", splits[0], "[0]");
  for (int64_t b = 0; b < batch; ++b) {
    if (splits[b + 1] < splits[b])
      return WrongValue(
          name, "ascending", splits[b + 1],
          At(b) + "=" + std::to_string(splits[b]) + " and " + name + At(b + 1));
    *longest = std::max(*longest, splits[b + 1] - splits[b]);
  }
  if (splits[batch] != rows)
    return WrongValue(name,
                      "ascending to the number of rows of `" + std::string(of) +
                          "`, " + std::to_string(rows),
                      splits[batch], At(batch));
  return "";
}

}  // namespace hw3tf
