#include "checks/recurrence_checks.h"

#include <limits>

namespace hw3tf {
namespace {

// "`overflow` must be one of ... Received: overflow='no'"
std::string WrongWord(const char* name, const char* expected,
                      const std::string& received) {
  return "`" + std::string(name) + "` must be one of " + expected +
         ". Received: " + name + "='" + received + "'";
}

std::string CheckRank(const char* name, const Dims& dims, size_t rank,
                      const char* axes) {
  if (dims.size() == rank) return "";
  return WrongShape(name, std::to_string(rank) + " axes: " + axes, dims);
}

std::string CheckOptional(const char* name, const std::optional<Dims>& dims,
                          const Dims& expected) {
  return dims ? CheckDims(name, *dims, expected) : "";
}

std::string CheckClip(const RecurrenceOptions& options, IntDType state) {
  if (options.activation != Activation::kClip) return "";
  const bool wide = state == IntDType::kInt64;
  using Narrow = std::numeric_limits<int32_t>;
  const int64_t low = options.clip_low, high = options.clip_high;
  const std::string range = "within the range of " + std::string(Name(state));
  if (!wide && (low < Narrow::min() || low > Narrow::max()))
    return WrongValue("clip_low", range, low);
  if (!wide && (high < Narrow::min() || high > Narrow::max()))
    return WrongValue("clip_high", range, high);
  if (low > high)
    return WrongValue("clip_low",
                      "at most `clip_high`, " + std::to_string(high), low);
  return "";
}

std::string CheckFractionalBits(const RecurrenceOptions& options,
                                IntDType state) {
  const int most = state == IntDType::kInt64 ? 63 : 31;
  if (options.fractional_bits >= 0 && options.fractional_bits <= most)
    return "";
  return WrongValue("fractional_bits", "from 0 to " + std::to_string(most),
                    static_cast<int64_t>(options.fractional_bits));
}

std::string CheckShapes(const RecurrenceArguments& arguments) {
  const auto& [input, weight, state, inputs, kernel, recurrent, bias, initial,
               mask] = arguments;
  std::string error =
      CheckRank("inputs", inputs, 3, "(batch, timesteps, features)");
  if (error.empty())
    error = CheckRank("kernel", kernel, 2, "(features, units)");
  if (!error.empty()) return error;
  const int64_t features = inputs[2], units = kernel[1];
  if (features == 0)
    return WrongShape("inputs", "at least one feature", inputs);
  if (units == 0) return WrongShape("kernel", "at least one unit", kernel);
  error = CheckDims("kernel", kernel, {features, units});
  if (error.empty())
    error = CheckDims("recurrent_kernel", recurrent, {units, units});
  if (error.empty()) error = CheckOptional("bias", bias, {units});
  if (error.empty())
    error = CheckOptional("initial_state", initial, {inputs[0], units});
  if (error.empty())
    error = CheckOptional("mask", mask, {inputs[0], inputs[1]});
  return error;
}

}  // namespace

const char* Name(IntDType dtype) {
  switch (dtype) {
    case IntDType::kBool:
      return "bool";
    case IntDType::kInt8:
      return "int8";
    case IntDType::kUint8:
      return "uint8";
    case IntDType::kInt16:
      return "int16";
    case IntDType::kInt32:
      return "int32";
    default:
      return "int64";
  }
}

std::string ParseActivation(const std::string& name,
                            RecurrenceOptions* options) {
  if (name == "none")
    options->activation = Activation::kNone;
  else if (name == "relu")
    options->activation = Activation::kRelu;
  else if (name == "sign")
    options->activation = Activation::kSign;
  else if (name == "clip")
    options->activation = Activation::kClip;
  else
    return WrongWord("activation", "'none', 'relu', 'sign', 'clip'", name);
  return "";
}

std::string ParseOverflow(const std::string& name, RecurrenceOptions* options) {
  if (name == "raise")
    options->overflow = Overflow::kRaise;
  else if (name == "wrap")
    options->overflow = Overflow::kWrap;
  else if (name == "saturate")
    options->overflow = Overflow::kSaturate;
  else
    return WrongWord("overflow", "'raise', 'wrap', 'saturate'", name);
  return "";
}

std::string CheckRecurrenceDTypes(IntDType input, IntDType weight,
                                  IntDType state) {
  const bool wide = state == IntDType::kInt64;
  if (weight != state && (wide || weight != IntDType::kInt8))
    return WrongDType("kernel",
                      wide ? "dtype int64, that of the state"
                           : "dtype int32, that of the state, or int8",
                      Name(weight));
  if (!wide && input == IntDType::kInt64)
    return WrongDType("inputs",
                      "a dtype no wider than int32, that of the state",
                      Name(input));
  return "";
}

std::string CheckRecurrence(const RecurrenceArguments& arguments,
                            const RecurrenceOptions& options,
                            RecurrenceShape* shape) {
  std::string error = CheckRecurrenceDTypes(
      arguments.input_dtype, arguments.weight_dtype, arguments.state_dtype);
  if (error.empty()) error = CheckClip(options, arguments.state_dtype);
  if (error.empty())
    error = CheckFractionalBits(options, arguments.state_dtype);
  if (error.empty()) error = CheckShapes(arguments);
  if (!error.empty()) return error;
  const Dims& inputs = arguments.inputs;
  const int64_t units = arguments.kernel[1];
  if (!Countable(inputs) || !Countable({inputs[0], inputs[1], units}))
    return WrongShape("inputs", "fewer elements", inputs);
  *shape = {inputs[0], inputs[1], inputs[2], units};
  return "";
}

Dims OutputDims(const RecurrenceShape& shape,
                const RecurrenceOptions& options) {
  if (options.return_sequences)
    return {shape.batch, shape.timesteps, shape.units};
  return {shape.batch, shape.units};
}

std::string OverflowMessage(const RecurrenceResult& result, IntDType state) {
  return "the recurrence overflows " + std::string(Name(state)) +
         " in batch entry " + std::to_string(result.batch_entry) +
         " at timestep " + std::to_string(result.timestep) +
         ". A wider dtype holds more; overflow=\"wrap\" and \"saturate\" "
         "define a result";
}

}  // namespace hw3tf
