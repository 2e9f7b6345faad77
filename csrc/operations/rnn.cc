#include "operations/rnn.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "kernels/rnn/rnn.h"
#include "operations/floats.h"
#include "operations/put.h"

namespace hw3tf {
namespace {

using Forward = RnnForwardArgs;
using Backward = RnnBackwardArgs;
using Options = RnnOptions;
using Operands = RnnOperands;

// ---------------------------------------------------------------- the tables

constexpr Axis kAxes[] = {
    {'B', "batch"},
    {'T', "timesteps"},
    {'F', "features"},
    {'G', "gates * units"},
    {'U', "units"},
    // Dropout: of all gates, or of each.
    {'D', "1 or gates"},
    {'E', "1 or gates"},
    // Outputs: one, or one for each timestep.
    {'S', "outputs", /*computed=*/true},
    {'Q', "kept per timestep", /*computed=*/true},
};

template <typename A>
constexpr TypeParameter kTypes[] = {
    {Type::kT, "T", kFloats, "inputs", Type::kT, nullptr, ", as `inputs`",
     PutDType<A>},
};

template <typename A>
void PutInputs(void* args, const Array& array) {
  Operands& operands = static_cast<A*>(args)->operands;
  operands.inputs = array.data;
  operands.input_batch_stride = array.strides[0];
  operands.input_time_stride = array.strides[1];
}

template <typename A, auto kData, auto kCount>
void PutDropout(void* args, const Array& array) {
  PutData<A, kData>(args, array);
  if (array.given) At<A, kCount>(args) = static_cast<int>(array.dims[0]);
}

constexpr uint32_t kOption = kOptional | kByKeyword;

template <typename A>
constexpr Operand kInputs = {"inputs", Type::kT, "B T F", kStrided | kGradient,
                             PutInputs<A>};
template <typename A>
constexpr Operand kKernel = {"kernel", Type::kT, "F G", kGradient,
                             PutData<A, &Operands::kernel>};
template <typename A>
constexpr Operand kRecurrentKernel = {"recurrent_kernel", Type::kT, "U G",
                                      kGradient,
                                      PutData<A, &Operands::recurrent_kernel>};
template <typename A>
constexpr Operand kBias = {"bias", Type::kT, "G", kOption | kGradient,
                           PutData<A, &Operands::bias>};
template <typename A>
constexpr Operand kRecurrentBias = {"recurrent_bias", Type::kT, "G",
                                    kOption | kGradient,
                                    PutData<A, &Operands::recurrent_bias>};
template <typename A>
constexpr Operand kInitialH = {"initial_h", Type::kT, "B U",
                               kOption | kGradient,
                               PutData<A, &Operands::initial_h>};
template <typename A>
constexpr Operand kInitialC = {"initial_c", Type::kT, "B U",
                               kOption | kGradient,
                               PutData<A, &Operands::initial_c>};
template <typename A>
constexpr Operand kMask = {"mask", Type::kBool, "B T", kOption,
                           PutData<A, &Operands::mask>};
template <typename A>
constexpr Operand kLengths = {"lengths", Type::kInt32, "B",
                              kOption | kPositions,
                              PutData<A, &Operands::lengths>};
template <typename A>
constexpr Operand kInputDropout = {
    "input_dropout", Type::kT, "D B F", kOption,
    PutDropout<A, &Operands::input_dropout, &Operands::input_dropouts>};
template <typename A>
constexpr Operand kRecurrentDropout = {
    "recurrent_dropout", Type::kT, "E B U", kOption,
    PutDropout<A, &Operands::recurrent_dropout, &Operands::recurrent_dropouts>};

template <typename A>
constexpr Operand kLstmOperands[] = {kInputs<A>,
                                     kKernel<A>,
                                     kRecurrentKernel<A>,
                                     kBias<A>,
                                     kInitialH<A>,
                                     kInitialC<A>,
                                     kMask<A>,
                                     kLengths<A>,
                                     kInputDropout<A>,
                                     kRecurrentDropout<A>};

template <typename A>
constexpr Operand kGruOperands[] = {kInputs<A>,
                                    kKernel<A>,
                                    kRecurrentKernel<A>,
                                    kBias<A>,
                                    kRecurrentBias<A>,
                                    kInitialH<A>,
                                    kMask<A>,
                                    kLengths<A>,
                                    kInputDropout<A>,
                                    kRecurrentDropout<A>};

template <typename A>
constexpr Operand kSimpleOperands[] = {
    kInputs<A>,  kKernel<A>,       kRecurrentKernel<A>,
    kBias<A>,    kInitialH<A>,     kMask<A>,
    kLengths<A>, kInputDropout<A>, kRecurrentDropout<A>};

// What a gradient takes beside the operands of its operation.
constexpr Operand kOutcome[] = {
    {"outputs", Type::kT, "B S U", 0, PutData<Backward, &Backward::outputs>},
    {"kept", Type::kInt64, "B T Q", 0, PutData<Backward, &Backward::kept>},
    {"grad_outputs", Type::kT, "B S U", kOption,
     PutData<Backward, &Backward::grad_outputs>},
    {"grad_last_h", Type::kT, "B U", kOption,
     PutData<Backward, &Backward::grad_last_h>},
};
constexpr Operand kLstmOutcome[] = {
    kOutcome[0],
    kOutcome[1],
    kOutcome[2],
    kOutcome[3],
    {"grad_last_c", Type::kT, "B U", kOption,
     PutData<Backward, &Backward::grad_last_c>},
};

constexpr auto kLstmBackwardOperands =
    Joined(kLstmOperands<Backward>, kLstmOutcome);
constexpr auto kGruBackwardOperands = Joined(kGruOperands<Backward>, kOutcome);
constexpr auto kSimpleBackwardOperands =
    Joined(kSimpleOperands<Backward>, kOutcome);

constexpr const char* kActivations[] = {"tanh", "sigmoid", "relu", "linear",
                                        "hard_sigmoid"};
static_assert(static_cast<int>(RnnActivation::kHardSigmoid) ==
              std::size(kActivations) - 1);

template <typename A>
constexpr Attribute kActivation = {"activation",
                                   Kind::kWord,
                                   Carrier::kAttribute,
                                   Integer(0),
                                   PutValue<A, &Options::activation>,
                                   kActivations};
template <typename A>
constexpr Attribute kRecurrentActivation = {
    "recurrent_activation",
    Kind::kWord,
    Carrier::kAttribute,
    Integer(static_cast<int>(RnnActivation::kSigmoid)),
    PutValue<A, &Options::recurrent_activation>,
    kActivations};
template <typename A>
constexpr Attribute kResetAfter = {"reset_after", Kind::kBool,
                                   Carrier::kAttribute, Integer(true),
                                   PutValue<A, &Options::reset_after>};
template <typename A>
constexpr Attribute kReverse = {"reverse", Kind::kBool, Carrier::kAttribute,
                                Integer(false), PutValue<A, &Options::reverse>};
template <typename A>
constexpr Attribute kReturnSequences = {
    "return_sequences", Kind::kBool, Carrier::kAttribute, Integer(false),
    PutValue<A, &Options::return_sequences>};
template <typename A>
constexpr Attribute kZeroOutput = {"zero_output_for_mask", Kind::kBool,
                                   Carrier::kAttribute, Integer(false),
                                   PutValue<A, &Options::zero_output_for_mask>};

// Of the forward pass: whether it fills `kept`, for a gradient.
constexpr Attribute kKeep = {"keep", Kind::kBool, Carrier::kAttribute,
                             Integer(false), PutValue<Forward, &Options::keep>};
// Of the backward pass: whether nobody wants the gradient of the inputs, which
// takes a third of the time where inputs are wide.
constexpr Attribute kSkip = {"skip_grad_inputs", Kind::kBool,
                             Carrier::kAttribute, Integer(false), nullptr};

template <typename A>
constexpr const Attribute& kLast = kSkip;
template <>
constexpr const Attribute& kLast<Forward> = kKeep;

template <typename A>
constexpr Attribute kLstmAttributes[] = {
    kActivation<A>,      kRecurrentActivation<A>, kReverse<A>,
    kReturnSequences<A>, kZeroOutput<A>,          kLast<A>};

template <typename A>
constexpr Attribute kGruAttributes[] = {
    kActivation<A>,      kRecurrentActivation<A>, kResetAfter<A>, kReverse<A>,
    kReturnSequences<A>, kZeroOutput<A>,          kLast<A>};

template <typename A>
constexpr Attribute kSimpleAttributes[] = {
    kActivation<A>, kReverse<A>, kReturnSequences<A>, kZeroOutput<A>, kLast<A>};

constexpr Result kOutputs = {"outputs", Type::kT,
                             "B S U",   nullptr,
                             nullptr,   PutOutput<Forward, &Forward::outputs>};
constexpr Result kLastH = {"last_h", Type::kT,
                           "B U",    nullptr,
                           nullptr,  PutOutput<Forward, &Forward::last_h>};
constexpr Result kLastC = {"last_c", Type::kT,
                           "B U",    nullptr,
                           nullptr,  PutOutput<Forward, &Forward::last_c>};
// Words, not numbers: much of it is never written, where steps are masked, and
// TensorFlow looks for NaN in all floats that ops return, and makes zeros of a
// gradient for each.
constexpr Result kKept = {"kept",  Type::kInt64,
                          "B T Q", nullptr,
                          nullptr, PutOutput<Forward, &Forward::kept>};

constexpr Result kLstmResults[] = {kOutputs, kLastH, kLastC, kKept};
constexpr Result kResults[] = {kOutputs, kLastH, kKept};

// The gradient of an operand; that of one that is not given is empty.
template <auto kMember>
constexpr Result GradientOf(const char* name, const char* operand,
                            const char* unless = nullptr) {
  return {name,    Type::kT, nullptr,
          operand, nullptr,  PutUnlessEmpty<Backward, kMember>,
          unless};
}

constexpr Result kGradInputs = GradientOf<&Backward::grad_inputs>(
                     "grad_inputs", "inputs", "skip_grad_inputs"),
                 kGradKernel = GradientOf<&Backward::grad_kernel>("grad_kernel",
                                                                  "kernel"),
                 kGradRecurrentKernel =
                     GradientOf<&Backward::grad_recurrent_kernel>(
                         "grad_recurrent_kernel", "recurrent_kernel"),
                 kGradBias =
                     GradientOf<&Backward::grad_bias>("grad_bias", "bias"),
                 kGradRecurrentBias =
                     GradientOf<&Backward::grad_recurrent_bias>(
                         "grad_recurrent_bias", "recurrent_bias"),
                 kGradInitialH = GradientOf<&Backward::grad_initial_h>(
                     "grad_initial_h", "initial_h"),
                 kGradInitialC = GradientOf<&Backward::grad_initial_c>(
                     "grad_initial_c", "initial_c");

constexpr Result kLstmGradients[] = {kGradInputs,          kGradKernel,
                                     kGradRecurrentKernel, kGradBias,
                                     kGradInitialH,        kGradInitialC};
constexpr Result kGruGradients[] = {kGradInputs,          kGradKernel,
                                    kGradRecurrentKernel, kGradBias,
                                    kGradRecurrentBias,   kGradInitialH};
constexpr Result kSimpleGradients[] = {
    kGradInputs, kGradKernel, kGradRecurrentKernel, kGradBias, kGradInitialH};

// ----------------------------------------------------------------- the rules

constexpr int64_t GatesOf(RnnCell cell) {
  return cell == RnnCell::kLstm ? 4 : cell == RnnCell::kGru ? 3 : 1;
}

// The rules know these by their place, which is that of all six tables.
constexpr int kInputsAt = 0, kKernelAt = 1, kRecurrentKernelAt = 2;

std::string CheckTypes(const Element*) { return ""; }

// The sizes of inputs and kernels, which decide upon all others.
std::string CheckKernels(Call* call, int64_t gates) {
  for (int i : {kInputsAt, kKernelAt, kRecurrentKernelAt}) {
    const std::string error = CheckRank(*call, i);
    if (!error.empty()) return error;
  }
  const Dims& inputs = call->operands[kInputsAt].dims;
  const Dims& recurrent = call->operands[kRecurrentKernelAt].dims;
  if (inputs[1] == 0)
    return WrongShape("inputs", "at least one timestep", inputs);
  if (inputs[2] == 0)
    return WrongShape("inputs", "at least one feature", inputs);
  if (recurrent[0] == 0)
    return WrongShape("recurrent_kernel", "at least one unit", recurrent);
  if (!Countable({recurrent[0], gates}))
    return WrongShape("recurrent_kernel", "fewer units", recurrent);
  call->sizes['B'] = inputs[0];
  call->sizes['T'] = inputs[1];
  call->sizes['F'] = inputs[2];
  call->sizes['U'] = recurrent[0];
  call->sizes['G'] = gates * recurrent[0];
  std::string error = CheckSizes(*call, kRecurrentKernelAt);
  if (error.empty()) error = CheckSizes(*call, kKernelAt);
  return error;
}

// The first axis is 1 or the number of gates, and is set as that of `letter`.
std::string CheckDropout(Call* call, const char* name, int64_t gates) {
  const int operand = IndexIn(call->operation.operands, name);
  const Array& array = call->operands[operand];
  if (!array.given) return "";
  const char letter = call->operation.operands[operand].axes[0];
  call->sizes[letter] =
      !array.dims.empty() && array.dims[0] == gates ? gates : 1;
  std::string error = CheckSizes(*call, operand);
  if (error.empty() || gates == 1) return error;
  Dims expected = call->DimsOf(call->operation.operands[operand].axes);
  expected[0] = 1;
  const std::string one = ToString(expected);
  expected[0] = gates;
  return WrongShape(name, "shape " + one + " or " + ToString(expected),
                    array.dims);
}

std::string CheckRnnLengths(Call* call) {
  Array& array = call->operands[IndexIn(call->operation.operands, "lengths")];
  if (!array.given) return "";
  const int64_t batch = call->sizes['B'];
  return CheckLengths("lengths", CopyOf<int32_t>(&array, batch), batch,
                      "inputs", call->sizes['T']);
}

bool IsTrue(const Call& call, const char* attribute) {
  const int at = IndexIn(call.operation.attributes, attribute);
  return call.attributes[at].integer != 0;
}

RnnShape ShapeOf(const Call& call) {
  const Call::Sizes& n = call.sizes;
  return {n['B'], n['T'], n['F'], n['U']};
}

// In words of 64 bits.
template <typename Args, RnnCell kCell>
int64_t KeptPerTimestep(const Call& call) {
  Args args{};
  for (const TypeParameter& type : call.operation.types)
    if (type.put) type.put(&args, call.types[static_cast<int>(type.type)]);
  for (int i = 0; i < call.operation.attributes.size(); ++i)
    if (call.operation.attributes[i].put)
      call.operation.attributes[i].put(&args, call.attributes[i]);
  args.options.keep = true;
  RnnShape shape = ShapeOf(call);
  shape.batch = std::max<int64_t>(shape.batch, 1);
  const bool is_double = args.dtype == RnnDType::kFloat64;
  const int64_t bytes =
      RnnKeptElements(kCell, args.dtype, shape, args.options) *
      static_cast<int64_t>(is_double ? sizeof(double) : sizeof(float));
  const auto unit =
      static_cast<int64_t>(sizeof(int64_t)) * shape.batch * shape.timesteps;
  return (bytes + unit - 1) / unit;
}

// Sizes of what the kernels make: outputs, what they keep, their scratch.
template <typename Args, RnnCell kCell>
std::string CheckResults(Call* call) {
  const auto [batch, timesteps, features, units] = ShapeOf(*call);
  // A step of a batch entry takes up to eight rows of numbers, which the
  // kernels pad by less than 64.
  if (!Countable({batch, timesteps, features}) ||
      !Countable({batch, timesteps, 8, units, 64}))
    return WrongShape("inputs", "fewer elements",
                      call->operands[kInputsAt].dims);
  if (!Countable({features, call->sizes['G']}) ||
      !Countable({units, call->sizes['G']}))
    return WrongShape("recurrent_kernel", "fewer units",
                      call->operands[kRecurrentKernelAt].dims);
  call->sizes['S'] = IsTrue(*call, "return_sequences") ? timesteps : 1;
  const bool keeps = std::is_same_v<Args, Backward> || IsTrue(*call, "keep");
  call->sizes['Q'] = keeps ? KeptPerTimestep<Args, kCell>(*call) : 0;
  return "";
}

// Before the product the reset gate multiplies the state alone.
std::string CheckRecurrentBias(const Call& call) {
  const int operand = IndexIn(call.operation.operands, "recurrent_bias");
  if (operand < 0 || !call.operands[operand].given ||
      IsTrue(call, "reset_after"))
    return "";
  return WrongShape("recurrent_bias", "no place without `reset_after`",
                    call.operands[operand].dims);
}

template <typename Args, RnnCell kCell>
std::string Check(Call* call) {
  constexpr int64_t kGates = GatesOf(kCell);
  std::string error = CheckKernels(call, kGates);
  if (error.empty()) error = CheckRecurrentBias(*call);
  if (error.empty()) error = CheckResults<Args, kCell>(call);
  for (const char* name : {"input_dropout", "recurrent_dropout"})
    if (error.empty()) error = CheckDropout(call, name, kGates);
  const int count = call->operation.operands.size();
  for (int i = kRecurrentKernelAt + 1; i < count && error.empty(); ++i)
    error = CheckSizes(*call, i);
  if (error.empty()) error = CheckRnnLengths(call);
  return error;
}

// ------------------------------------------------------------------ the calls

template <typename Args, RnnCell kCell, bool (*kRun)(const Args&, int)>
Outcome Run(const Call& call, const Output* outputs, int threads) {
  if (call.sizes['B'] == 0) {
    // Nothing but the gradients of weights has elements: sums of nothing.
    for (int i = 0; i < call.operation.results.size(); ++i) {
      if (!call.ResultGiven(i)) continue;
      auto bytes = static_cast<size_t>(
          SizeOf(call.ElementOf(call.operation.results[i].type)));
      for (int64_t size : outputs[i].dims) bytes *= static_cast<size_t>(size);
      if (bytes > 0) std::memset(outputs[i].data, 0, bytes);
    }
    return {Ending::kDone, ""};
  }
  Args args = Filled<Args>(call, outputs);
  args.cell = kCell;
  if (std::is_same_v<Args, Backward>) args.options.keep = true;
  args.shape = ShapeOf(call);
  if (kRun(args, threads)) return {Ending::kDone, ""};
  return OutOfMemory(call.operation);
}

constexpr char kUnknownSizes[] =
    "hw3tf's recurrent layers know no sizes under XLA that depend on values, "
    "as after tf.boolean_mask. Pass a mask or lengths instead";

constexpr char kForwardDoc[] =
    "Returns the outputs, the last h, of the LSTM the last c, and what is\n"
    "kept; see csrc/kernels/rnn/rnn.h for the formula and each option.\n\n"
    "inputs (B, T, F), contiguous along the last axis, kernel (F, gates * U),\n"
    "recurrent_kernel (U, gates * U), bias (gates * U,), initial states\n"
    "(B, U): float32, float64, float16 or bfloat16 (of ml_dtypes), all of one\n"
    "dtype. mask (B, T): bool. lengths (B,): int32. input_dropout\n"
    "(1 or gates, B, F) and recurrent_dropout (1 or gates, B, U): factors.\n\n"
    "outputs are (B, T, U) with return_sequences, else (B, 1, U). kept, int64\n"
    "of as many words per timestep as the kernel needs, is memory for the\n"
    "backward function, and empty without keep. Nothing is converted. Raises\n"
    "TypeError on a wrong dtype, ValueError on a wrong shape or value,\n"
    "MemoryError without memory.";

constexpr char kBackwardDoc[] =
    "Returns the gradients of inputs, kernel, recurrent_kernel, of the biases\n"
    "and of the initial states, from what the forward function took and, with\n"
    "keep, returned, and the gradients of its results (None = zero). The\n"
    "gradient of what is not given is None, and with skip_grad_inputs that of\n"
    "inputs.";

}  // namespace

constexpr Operation kLstmOperation = {
    "lstm",
    "lstm_forward",
    "Hw3tfLstm",
    "hw3tf_lstm_2",
    "the LSTM",
    kForwardDoc,
    kUnknownSizes,
    kTypes<Forward>,
    kAxes,
    kLstmOperands<Forward>,
    std::size(kLstmOperands<Forward>),
    /*packs=*/false,
    /*least_numbers=*/0,
    kLstmAttributes<Forward>,
    kLstmResults,
    CheckTypes,
    Check<Forward, RnnCell::kLstm>,
    Run<Forward, RnnCell::kLstm, RnnForward>,
};

constexpr Operation kLstmGrad = {
    "lstm_grad",
    "lstm_backward",
    "Hw3tfLstmGrad",
    "hw3tf_lstm_grad_2",
    "the gradient of the LSTM",
    kBackwardDoc,
    kUnknownSizes,
    kTypes<Backward>,
    kAxes,
    kLstmBackwardOperands,
    std::size(kLstmOperands<Backward>),
    /*packs=*/false,
    /*least_numbers=*/0,
    kLstmAttributes<Backward>,
    kLstmGradients,
    CheckTypes,
    Check<Backward, RnnCell::kLstm>,
    Run<Backward, RnnCell::kLstm, RnnBackward>,
};

constexpr Operation kGruOperation = {
    "gru",
    "gru_forward",
    "Hw3tfGru",
    "hw3tf_gru_2",
    "the GRU",
    kForwardDoc,
    kUnknownSizes,
    kTypes<Forward>,
    kAxes,
    kGruOperands<Forward>,
    std::size(kGruOperands<Forward>),
    /*packs=*/false,
    /*least_numbers=*/0,
    kGruAttributes<Forward>,
    kResults,
    CheckTypes,
    Check<Forward, RnnCell::kGru>,
    Run<Forward, RnnCell::kGru, RnnForward>,
};

constexpr Operation kGruGrad = {
    "gru_grad",
    "gru_backward",
    "Hw3tfGruGrad",
    "hw3tf_gru_grad_2",
    "the gradient of the GRU",
    kBackwardDoc,
    kUnknownSizes,
    kTypes<Backward>,
    kAxes,
    kGruBackwardOperands,
    std::size(kGruOperands<Backward>),
    /*packs=*/false,
    /*least_numbers=*/0,
    kGruAttributes<Backward>,
    kGruGradients,
    CheckTypes,
    Check<Backward, RnnCell::kGru>,
    Run<Backward, RnnCell::kGru, RnnBackward>,
};

constexpr Operation kSimpleRnnOperation = {
    "simple_rnn",
    "simple_rnn_forward",
    "Hw3tfSimpleRnn",
    "hw3tf_simple_rnn_2",
    "the simple RNN",
    kForwardDoc,
    kUnknownSizes,
    kTypes<Forward>,
    kAxes,
    kSimpleOperands<Forward>,
    std::size(kSimpleOperands<Forward>),
    /*packs=*/false,
    /*least_numbers=*/0,
    kSimpleAttributes<Forward>,
    kResults,
    CheckTypes,
    Check<Forward, RnnCell::kSimple>,
    Run<Forward, RnnCell::kSimple, RnnForward>,
};

constexpr Operation kSimpleRnnGrad = {
    "simple_rnn_grad",
    "simple_rnn_backward",
    "Hw3tfSimpleRnnGrad",
    "hw3tf_simple_rnn_grad_2",
    "the gradient of the simple RNN",
    kBackwardDoc,
    kUnknownSizes,
    kTypes<Backward>,
    kAxes,
    kSimpleBackwardOperands,
    std::size(kSimpleOperands<Backward>),
    /*packs=*/false,
    /*least_numbers=*/0,
    kSimpleAttributes<Backward>,
    kSimpleGradients,
    CheckTypes,
    Check<Backward, RnnCell::kSimple>,
    Run<Backward, RnnCell::kSimple, RnnBackward>,
};

static_assert(IsWellFormed(kLstmOperation) && IsWellFormed(kLstmGrad));
static_assert(IsWellFormed(kGruOperation) && IsWellFormed(kGruGrad));
static_assert(IsWellFormed(kSimpleRnnOperation) &&
              IsWellFormed(kSimpleRnnGrad));

}  // namespace hw3tf
