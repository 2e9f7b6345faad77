// Both passes of a case, and what the plain form in float64 says of them.

#pragma once

#include "tests/attention/inputs.h"
#include "tests/attention/results.h"

namespace hw3tf {

// Stops the test if there is no memory.
void RunKernels(const Inputs& inputs, const Results& results, int threads);

// How much larger than those of standard normal inputs the terms of a sum may
// be.
struct Slack {
  double forward = 1.0;
  double backward = 1.0;
};

// `exact`: the same case, kept in float64.
void Judge(const Inputs& inputs, const Inputs& exact, const Results& got,
           const Slack& slack = {});

}  // namespace hw3tf
