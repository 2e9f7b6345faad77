// The integer recurrence as a custom call of XLA: what the ops are where
// TensorFlow runs the graph itself.
//
// A custom call is told no shapes. So its first operand is a vector of int64
// that hw3tf/ops/fronts/xla_module.py makes: the header below, then the sizes
// of every array given. All else is as in the ops: the same checks, the same
// kernel.

#include "checks/recurrence_checks.h"
#include "kernels/recurrence/recurrence.h"
#include "tensorflow/recurrence_operands.h"
#include "tensorflow/xla_call.h"

namespace hw3tf {
namespace {

// The header. The name of the call ends in a version: another header, another
// name, because saved models keep the calls.
enum Header {
  kInputDType,  // all three as in IntDType
  kWeightDType,
  kStateDType,
  kActivation,  // as in Activation
  kClipLow,
  kClipHigh,
  kOverflow,  // as in Overflow
  kFractionalBits,
  kReverse,
  kReturnSequences,
  kThreads,  // of the session; 0 if it is not set
  kRanks,    // of each array, -1 where it is not given; then their sizes
};

void Recurrence(void* output, const void** arrays, const char*, size_t,
                XlaCustomCallStatus_* status) {
  const auto* header = static_cast<const int64_t*>(*arrays++);
  RecurrenceArgs args{};
  args.input_dtype = static_cast<IntDType>(header[kInputDType]);
  args.weight_dtype = static_cast<IntDType>(header[kWeightDType]);
  args.state_dtype = static_cast<IntDType>(header[kStateDType]);
  args.options.activation = static_cast<Activation>(header[kActivation]);
  args.options.clip_low = header[kClipLow];
  args.options.clip_high = header[kClipHigh];
  args.options.overflow = static_cast<Overflow>(header[kOverflow]);
  args.options.fractional_bits = static_cast<int>(header[kFractionalBits]);
  args.options.reverse = header[kReverse] != 0;
  args.options.return_sequences = header[kReturnSequences] != 0;
  Operand operands[kRecurrenceOperands];
  if (!ReadOperands(header + kRanks, kRecurrenceOperands, arrays, operands))
    return SetXlaError(
        status,
        "hw3tf's recurrence knows no sizes under XLA that depend on "
        "values, as after tf.boolean_mask. Pass a mask instead");
  const std::string error = SetOperands(operands, &args);
  if (!error.empty()) return SetXlaError(status, error);
  args.output = output;
  const RecurrenceResult result =
      IntegerRecurrence(args, static_cast<int>(header[kThreads]));
  if (result.status == RecurrenceStatus::kOutOfMemory)
    SetXlaError(status,
                "out of memory for the scratch arrays of the recurrence");
  if (result.status == RecurrenceStatus::kOverflow)
    SetXlaError(status, OverflowMessage(result, args.state_dtype));
}

}  // namespace

std::string RegisterRecurrenceTarget() {
  return RegisterXlaTarget("hw3tf_integer_rnn_1", Guarded<Recurrence>);
}

}  // namespace hw3tf
