// The forward pass of an instruction set that multiplies pairs of bfloat16: the
// same source as isa.cc, with pairs as the units of its products.

#define HW3TF_BFLOAT16_PRODUCTS

#include "kernels/attention/decode-inl.h"
#include "kernels/attention/forward-inl.h"
#include "kernels/attention/kernel_table.h"

namespace hw3tf {

extern const AttentionKernels HW3TF_ATTENTION_BFLOAT16_KERNELS;
const AttentionKernels HW3TF_ATTENTION_BFLOAT16_KERNELS = {
    kTiles,
    /*backward_rows=*/0,
    ForwardScratchFloats,
    Forward,
    MergeSplits,
    kDecodeRows,
    kDecodeChunk,
    DecodeScratchFloats,
    Decode,
    nullptr,
    nullptr,
    nullptr,
    /*float64_queries=*/0,
    nullptr,
    nullptr,
    nullptr,
};

}  // namespace hw3tf
