// What both ways into the kernels check of a call of the integer recurrence, as
// attention_checks.h does for attention.

#pragma once

#include <optional>
#include <string>

#include "operations/dims.h"
#include "kernels/recurrence/recurrence.h"

namespace hw3tf {

// "int32"
const char* Name(IntDType dtype);

// The types and shapes of the arguments as received; nullopt is what was not
// given.
struct RecurrenceArguments {
  IntDType input_dtype, weight_dtype, state_dtype;
  Dims inputs, kernel, recurrent_kernel;
  std::optional<Dims> bias, initial_state, mask;
};

// What a call says in words: "none", "relu", "sign", "clip"; "raise", "wrap",
// "saturate". Fills the member and returns "", or returns what is wrong.
std::string ParseActivation(const std::string& name,
                            RecurrenceOptions* options);
std::string ParseOverflow(const std::string& name, RecurrenceOptions* options);

// Which types may meet: int64 weights make an int64 state, int32 and int8
// weights an int32 state, and inputs are no wider than the state.
std::string CheckRecurrenceDTypes(IntDType input, IntDType weight,
                                  IntDType state);

// Fills `shape` and returns "", or returns what is wrong.
std::string CheckRecurrence(const RecurrenceArguments& arguments,
                            const RecurrenceOptions& options,
                            RecurrenceShape* shape);

// Of the output, once CheckRecurrence has let the call pass.
Dims OutputDims(const RecurrenceShape& shape, const RecurrenceOptions& options);

// The error of a call whose status is kOverflow.
std::string OverflowMessage(const RecurrenceResult& result, IntDType state);

}  // namespace hw3tf
