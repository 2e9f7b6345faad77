// What the two passes write, and their arguments.

#pragma once

#include "kernels/attention/attention.h"
#include "tests/attention/arrays.h"
#include "tests/attention/inputs.h"

namespace hw3tf {

// All bytes are 0xFF before: NaN, if nothing overwrites them.
struct Results {
  explicit Results(const Inputs& inputs);

  AttentionForwardArgs Forward(const Inputs& inputs) const;
  AttentionBackwardArgs Backward(const Inputs& inputs) const;
  // Stops the test if a byte differs, those between the rows included.
  void CheckSameBits(const Results& other, const Case& c) const;

  Rows output, grad_query, grad_key, grad_value;
  Elements statistics, logsumexp, grad_bias;
};

}  // namespace hw3tf
