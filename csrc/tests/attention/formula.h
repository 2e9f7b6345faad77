// The formula of attention in long double, as slow and as plain as it reads.

#pragma once

#include <vector>

#include "tests/attention/inputs.h"

namespace hw3tf {

// Rows as in Rows::Values; the bias as grad_bias has it.
struct FormulaInputs {
  std::vector<long double> query, key, value, bias;
};

struct FormulaResults {
  std::vector<long double> output, logsumexp;
  // Whose gradients the backward pass computes: the sum of output * grad_output
  // and, if there is one, of logsumexp * grad_logsumexp where it is finite.
  long double loss;
};

FormulaInputs FormulaInputsOf(const Inputs& inputs);

FormulaResults Formula(const Inputs& inputs, const FormulaInputs& values);

}  // namespace hw3tf
