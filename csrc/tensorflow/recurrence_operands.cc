#include "tensorflow/recurrence_operands.h"

#include "checks/recurrence_checks.h"

namespace hw3tf {
namespace {

// nullptr if it is not given.
const void* Data(const Operand& operand) {
  return operand.dims ? operand.data : nullptr;
}

}  // namespace

std::string SetOperands(const Operand* operands, RecurrenceArgs* args) {
  std::string error = CheckRecurrence(
      {args->input_dtype, args->weight_dtype, args->state_dtype,
       operands[kInputs].dims.value_or(Dims{}),
       operands[kKernel].dims.value_or(Dims{}),
       operands[kRecurrentKernel].dims.value_or(Dims{}), operands[kBias].dims,
       operands[kInitialState].dims, operands[kMask].dims},
      args->options, &args->shape);
  if (!error.empty()) return error;
  args->inputs = Data(operands[kInputs]);
  args->input_time_stride = args->shape.features;
  args->input_batch_stride = args->shape.timesteps * args->shape.features;
  args->kernel = Data(operands[kKernel]);
  args->recurrent_kernel = Data(operands[kRecurrentKernel]);
  args->bias = Data(operands[kBias]);
  args->initial_state = Data(operands[kInitialState]);
  args->mask = static_cast<const uint8_t*>(Data(operands[kMask]));
  return "";
}

}  // namespace hw3tf
