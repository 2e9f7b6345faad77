// The forward pass of an instruction set that multiplies pairs of bfloat16: the
// same source as isa.cc, with pairs in the product x K.

#define HW3TF_BFLOAT16_PRODUCTS

#include "kernels/rnn/kernel_table.h"
#include "kernels/rnn/steps-inl.h"

namespace hw3tf {

extern const RnnKernelsOf<float> HW3TF_RNN_BFLOAT16_KERNELS;
const RnnKernelsOf<float> HW3TF_RNN_BFLOAT16_KERNELS = {
    kLanesOf<float>,
    kRnnTileRows,
    ForwardScratch<float>,
    ForwardRows<float>,
    AheadScratch<float>,
    InputsAhead<float>,
    StepAhead<float>,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
};

}  // namespace hw3tf
