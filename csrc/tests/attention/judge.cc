#include "tests/attention/judge.h"

#include "kernels/attention/plain.h"
#include "tests/attention/compare.h"
#include "tests/check.h"

namespace hw3tf {
namespace {

// Sums in float32: some hundred units in the last place, 6e-8, of their largest
// terms.
constexpr Tolerance kFloat32 = {0, 3e-5};

Tolerance ToleranceOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return kFloat32;
    case DType::kBfloat16:
      // Half a unit in the last place of 8 bits; and kernels that multiply in
      // bfloat16 round weights and gradients of scores to it, once.
      return {1.0 / 256, 1.0 / 256};
    case DType::kFloat16:
      // Half a unit in the last place of 11 bits.
      return {1.0 / 2048, 3e-5};
    case DType::kFloat64:
      // As float32: some hundred units, 1e-16.
      return {0, 1e-13};
  }
  return {0, 0};
}

Tolerance Slackened(Tolerance tolerance, double slack) {
  return {tolerance.rounding, tolerance.work * slack};
}

}  // namespace

void RunKernels(const Inputs& inputs, const Results& results, int threads) {
  CHECK(AttentionForward(results.Forward(inputs), threads), "no memory");
  CHECK(AttentionBackward(results.Backward(inputs), threads), "no memory");
}

void Judge(const Inputs& inputs, const Inputs& exact, const Results& got,
           const Slack& slack) {
  const Tolerance values = ToleranceOf(inputs.dtype);
  const Tolerance reals = ToleranceOf(RealType(inputs.dtype));
  const Results own(exact), want(exact);
  CHECK(AttentionForwardPlain(own.Forward(exact), 1), "no memory");
  CompareForward(inputs, got, own, Slackened(values, slack.forward),
                 Slackened(reals, slack.forward));
  want.output.CopyFrom(got.output);
  want.statistics.CopyFrom(got.statistics);
  CHECK(AttentionBackwardPlain(want.Backward(exact), 1), "no memory");
  if (IsShift(inputs.c)) {
    CHECK(AttentionBackwardPlain(own.Backward(exact), 1), "no memory");
    want.grad_bias.CopyFrom(own.grad_bias);
  }
  CompareBackward(inputs, got, want, Slackened(values, slack.backward),
                  Slackened(reals, slack.backward));
}

}  // namespace hw3tf
