#include "operations/integer_rnn.h"

#include <iterator>
#include <limits>

#include "kernels/recurrence/recurrence.h"
#include "operations/put.h"

namespace hw3tf {
namespace {

using Args = RecurrenceArgs;
using Options = RecurrenceOptions;

// ---------------------------------------------------------------- the table

constexpr Axis kAxes[] = {
    {'B', "batch"},
    {'T', "timesteps"},
    {'F', "features"},
    {'U', "units"},
};

constexpr Element kStates[] = {Element::kInt32, Element::kInt64};
constexpr Element kWeights[] = {Element::kInt8, Element::kInt32,
                                Element::kInt64};
constexpr Element kInputs[] = {Element::kBool,  Element::kInt8,
                               Element::kUint8, Element::kInt16,
                               Element::kInt32, Element::kInt64};

constexpr Element StateOf(Element weight) {
  return weight == Element::kInt64 ? Element::kInt64 : Element::kInt32;
}

template <auto kMember>
void PutElement(void* args, Element element) {
  static_cast<Args*>(args)->*kMember = static_cast<IntDType>(element);
}
static_assert(static_cast<int>(IntDType::kBool) ==
                  static_cast<int>(Element::kBool) &&
              static_cast<int>(IntDType::kInt64) ==
                  static_cast<int>(Element::kInt64));

constexpr TypeParameter kTypes[] = {
    {Type::kT, "T", kStates, nullptr, Type::kWeight, StateOf, "",
     PutElement<&Args::state_dtype>},
    {Type::kWeight, "Weight", kWeights, "recurrent_kernel", Type::kWeight,
     nullptr, "", PutElement<&Args::weight_dtype>},
    {Type::kInput, "Input", kInputs, "inputs", Type::kInput, nullptr, "",
     PutElement<&Args::input_dtype>},
};

void PutInputs(void* arguments, const Array& array) {
  auto* args = static_cast<Args*>(arguments);
  args->inputs = array.data;
  args->input_batch_stride = array.strides[0];
  args->input_time_stride = array.strides[1];
}

constexpr Operand kOperands[] = {
    {"inputs", Type::kInput, "B T F", kStrided, PutInputs},
    {"kernel", Type::kWeight, "F U", 0, PutData<Args, &Args::kernel>},
    {"recurrent_kernel", Type::kWeight, "U U", 0,
     PutData<Args, &Args::recurrent_kernel>},
    {"bias", Type::kT, "U", kOptional, PutData<Args, &Args::bias>},
    {"initial_state", Type::kT, "B U", kOptional,
     PutData<Args, &Args::initial_state>},
    {"mask", Type::kBool, "B T", kOptional, PutData<Args, &Args::mask>},
};

constexpr const char* kActivations[] = {"none", "relu", "sign", "clip"};
static_assert(static_cast<int>(Activation::kClip) ==
              std::size(kActivations) - 1);
constexpr const char* kOverflows[] = {"raise", "wrap", "saturate"};
static_assert(static_cast<int>(Overflow::kSaturate) ==
              std::size(kOverflows) - 1);

constexpr Attribute kAttributes[] = {
    {"activation", Kind::kWord, Carrier::kAttribute, Integer(0),
     PutValue<Args, &Options::activation>, kActivations},
    {"clip_low", Kind::kInt, Carrier::kAttribute, Integer(0),
     PutValue<Args, &Options::clip_low>},
    {"clip_high", Kind::kInt, Carrier::kAttribute, Integer(0),
     PutValue<Args, &Options::clip_high>},
    {"reverse", Kind::kBool, Carrier::kAttribute, Integer(false),
     PutValue<Args, &Options::reverse>},
    // Two ops, because a shape function over the C API reads no attribute.
    {"return_sequences",
     Kind::kBool,
     Carrier::kOpName,
     Integer(false),
     PutValue<Args, &Options::return_sequences>,
     {},
     "Sequence"},
    {"overflow", Kind::kWord, Carrier::kAttribute, Integer(0),
     PutValue<Args, &Options::overflow>, kOverflows},
    {"fractional_bits", Kind::kInt, Carrier::kAttribute, Integer(0),
     PutValue<Args, &Options::fractional_bits>},
};

constexpr Result kResults[] = {
    {"states", Type::kT, "B (T) U", nullptr, nullptr,
     PutOutput<Args, &Args::output>},
};

// ----------------------------------------------------------------- the rules

std::string CheckTypes(const Element* types) {
  const Element input = types[static_cast<int>(Type::kInput)],
                weight = types[static_cast<int>(Type::kWeight)],
                state = types[static_cast<int>(Type::kT)];
  const bool wide = state == Element::kInt64;
  if (weight != state && (wide || weight != Element::kInt8))
    return WrongDType("kernel",
                      wide ? "dtype int64, that of the state"
                           : "dtype int32, that of the state, or int8",
                      Name(weight));
  if (!wide && input == Element::kInt64)
    return WrongDType("inputs",
                      "a dtype no wider than int32, that of the state",
                      Name(input));
  return "";
}

int64_t ValueOf(const Call& call, const char* attribute) {
  return call.attributes[IndexIn(call.operation.attributes, attribute)].integer;
}

std::string CheckClip(const Call& call, bool wide) {
  const auto activation = static_cast<Activation>(ValueOf(call, "activation"));
  if (activation != Activation::kClip) return "";
  using Narrow = std::numeric_limits<int32_t>;
  const int64_t low = ValueOf(call, "clip_low"),
                high = ValueOf(call, "clip_high");
  const std::string range =
      "within the range of " + std::string(wide ? "int64" : "int32");
  if (!wide && (low < Narrow::min() || low > Narrow::max()))
    return WrongValue("clip_low", range, low);
  if (!wide && (high < Narrow::min() || high > Narrow::max()))
    return WrongValue("clip_high", range, high);
  if (low > high)
    return WrongValue("clip_low",
                      "at most `clip_high`, " + std::to_string(high), low);
  return "";
}

std::string CheckFractionalBits(const Call& call, bool wide) {
  const int64_t most = wide ? 63 : 31;
  const int64_t bits = ValueOf(call, "fractional_bits");
  if (bits >= 0 && bits <= most) return "";
  return WrongValue("fractional_bits", "from 0 to " + std::to_string(most),
                    bits);
}

std::string CheckShapes(Call* call) {
  std::string error = CheckRank(*call, 0);
  if (error.empty()) error = CheckRank(*call, 1);
  if (!error.empty()) return error;
  const Dims& inputs = call->operands[0].dims;
  const Dims& kernel = call->operands[1].dims;
  call->sizes['B'] = inputs[0];
  call->sizes['T'] = inputs[1];
  call->sizes['F'] = inputs[2];
  call->sizes['U'] = kernel[1];
  if (inputs[2] == 0)
    return WrongShape("inputs", "at least one feature", inputs);
  if (kernel[1] == 0) return WrongShape("kernel", "at least one unit", kernel);
  for (int i = 1; i < call->operation.operands.size() && error.empty(); ++i)
    error = CheckSizes(*call, i);
  return error;
}

std::string Check(Call* call) {
  const bool wide = call->ElementOf(Type::kT) == Element::kInt64;
  std::string error = CheckTypes(call->types);
  if (error.empty()) error = CheckClip(*call, wide);
  if (error.empty()) error = CheckFractionalBits(*call, wide);
  if (error.empty()) error = CheckShapes(call);
  if (!error.empty()) return error;
  const Dims& inputs = call->operands[0].dims;
  if (!Countable(inputs) ||
      !Countable({inputs[0], inputs[1], call->sizes['U']}))
    return WrongShape("inputs", "fewer elements", inputs);
  return "";
}

Outcome Run(const Call& call, const Output* outputs, int threads) {
  RecurrenceArgs args = Filled<RecurrenceArgs>(call, outputs);
  args.shape = {call.sizes['B'], call.sizes['T'], call.sizes['F'],
                call.sizes['U']};
  const RecurrenceResult result = IntegerRecurrence(args, threads);
  if (result.status == RecurrenceStatus::kOutOfMemory)
    return OutOfMemory(call.operation);
  if (result.status == RecurrenceStatus::kDone) return {Ending::kDone, ""};
  return {Ending::kOverflow,
          "the recurrence overflows " +
              std::string(Name(call.ElementOf(Type::kT))) + " in batch entry " +
              std::to_string(result.batch_entry) + " at timestep " +
              std::to_string(result.timestep) +
              ". A wider dtype holds more; overflow=\"wrap\" and \"saturate\" "
              "define a result"};
}

}  // namespace

constexpr Operation kIntegerRnn = {
    "integer_rnn",
    "integer_rnn",
    "Hw3tfIntegerRnn",
    "hw3tf_integer_rnn_2",
    "the recurrence",
    "Returns the last state, (B, units), or all, (B, T, units); see\n"
    "csrc/kernels/recurrence/recurrence.h.\n\n"
    "inputs (B, T, F): bool, int8, uint8, int16, int32 or int64, contiguous\n"
    "along the last axis, no wider than the state. kernel (F, units) and\n"
    "recurrent_kernel (units, units): int64 for an int64 state, int32 or\n"
    "int8 for an int32 state. bias (units,) and initial_state (B, units): of\n"
    "the state's dtype. mask (B, T): bool. activation: 'none', 'relu',\n"
    "'sign' or 'clip'. overflow: 'raise', 'wrap' or 'saturate'.\n\n"
    "Nothing is converted. Raises TypeError on a wrong dtype, ValueError on\n"
    "a wrong shape or value, OverflowError if a state does not fit,\n"
    "MemoryError without memory.",
    "hw3tf's recurrence knows no sizes under XLA that depend on values, as "
    "after tf.boolean_mask. Pass a mask instead",
    kTypes,
    kAxes,
    kOperands,
    std::size(kOperands),
    /*packs=*/false,
    /*least_numbers=*/0,
    kAttributes,
    kResults,
    CheckTypes,
    Check,
    Run,
};

static_assert(IsWellFormed(kIntegerRnn));

}  // namespace hw3tf
