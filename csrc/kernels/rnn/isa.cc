// The RNN kernels of one instruction set. CMakeLists.txt compiles this file
// once for each, with its flags and HW3TF_RNN_KERNELS, the name of the table;
// the table is the only symbol that leaves the object.

#include "kernels/rnn/kernel_table.h"
#include "kernels/rnn/steps-inl.h"

namespace hw3tf {
namespace {

template <typename Real>
constexpr RnnKernelsOf<Real> kKernels = {
    kLanesOf<Real>,    kRnnTileRows,          ForwardScratch<Real>,
    ForwardRows<Real>, AheadScratch<Real>,    InputsAhead<Real>,
    StepAhead<Real>,   BackwardScratch<Real>, BackwardRows<Real>,
    StepBack<Real>,    InputGradients<Real>,  WeightsOfPanel<Real>,
};

}  // namespace

extern const RnnKernels HW3TF_RNN_KERNELS;
const RnnKernels HW3TF_RNN_KERNELS = {kKernels<float>, kKernels<double>};

}  // namespace hw3tf
