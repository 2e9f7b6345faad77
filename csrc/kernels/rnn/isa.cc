// The RNN kernels of one instruction set. CMakeLists.txt compiles this file
// once for each, with its flags and HW3TF_RNN_KERNELS, the name of the table;
// the table is the only symbol that leaves the object.

#include "kernels/rnn/kernel_table.h"
#include "kernels/rnn/steps-inl.h"
#include "kernels/vector/convert-inl.h"

namespace hw3tf {
namespace {

template <typename Real>
constexpr RnnKernelsOf<Real> kKernels = {
    kLanesOf<Real>,    kRnnTileRows,          ForwardScratch<Real>,
    ForwardRows<Real>, AheadScratch<Real>,    InputsAhead<Real>,
    StepAhead<Real>,   BackwardScratch<Real>, BackwardRows<Real>,
    StepBack<Real>,    InputGradients<Real>,  WeightsOfPanel<Real>,
};

DType Half(RnnDType dtype) {
  return dtype == RnnDType::kBfloat16 ? DType::kBfloat16 : DType::kFloat16;
}

void Widen(const void* from, RnnDType dtype, int64_t size, float* to) {
  WidenRow(from, Half(dtype), size, 0, to);
}

void Narrow(const float* from, RnnDType dtype, int64_t size, void* to) {
  NarrowRow(from, Half(dtype), size, to);
}

}  // namespace

extern const RnnKernels HW3TF_RNN_KERNELS;
const RnnKernels HW3TF_RNN_KERNELS = {
    kKernels<float>, kKernels<double>, {Widen, Narrow}};

}  // namespace hw3tf
