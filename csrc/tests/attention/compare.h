// Results of a kernel against those of a judge in float64.

#pragma once

#include "kernels/attention/attention.h"
#include "tests/attention/inputs.h"
#include "tests/attention/results.h"

namespace hw3tf {

// How far a result may be from the judge's: `rounding` of its own size, which
// is what storing it in its type costs, and `work` of the size of what it was
// computed from.
struct Tolerance {
  double rounding;
  double work;
};

// Whether the bias is the same for all keys of a query. It then changes nothing
// but the logsumexp, and its gradient is that of the logsumexp, whatever the
// output was rounded to and whether or not there is NaN in values.
bool IsShift(const Case& c);

// For both: NaN exactly where the judge has NaN, but for the gradient of a
// shift. The judge computes in float64 from the inputs; its backward pass takes
// output and statistics from `got`, so that the error of the forward pass does
// not count twice, but not for the gradient of a shift.
void CompareForward(const Inputs& inputs, const Results& got,
                    const Results& want, Tolerance values, Tolerance reals);
void CompareBackward(const Inputs& inputs, const Results& got,
                     const Results& want, Tolerance values, Tolerance reals);

}  // namespace hw3tf
