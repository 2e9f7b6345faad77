// The arrays of an attention call, as TensorFlow and XLA hand them over: one
// list, one order, for the op and for the custom call.

#pragma once

#include <string>

#include "checks/attention_checks.h"
#include "kernels/attention/attention.h"
#include "tensorflow/operand.h"

namespace hw3tf {

// The order in which both take them.
enum AttentionOperand {
  kQuery,
  kKey,
  kValue,
  kBias,
  kMask,
  kQueryMask,
  kKeyMask,
  kQueryLengths,
  kKeyLengths,
  kQuerySplits,
  kKeySplits,
  kAttentionOperands,
};

struct AttentionOperands {
  AttentionArguments arguments;
  AttentionShape shape;
  AttentionOptions options;
  Positions positions;  // to which `options` points

  // Fills all from `operands`, kAttentionOperands of them, and `options`
  // with its numbers set. Returns "" or what is wrong.
  std::string Set(DType dtype, const AttentionOptions& numbers,
                  const Operand* operands);
};

// Of (batch, length, heads, size) or, packed, (length, heads, size).
ConstArray View(const Operand& operand);
MutableArray MutableView(const Dims& dims, void* data);

}  // namespace hw3tf
