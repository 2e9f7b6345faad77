// The attention kernels of one instruction set. CMakeLists.txt compiles this
// file once for each, with its flags and HW3TF_ATTENTION_KERNELS, the name of
// the table; the table is the only symbol that leaves the object.

#include "kernels/attention/backward-inl.h"
#include "kernels/attention/decode-inl.h"
#include "kernels/attention/float64-inl.h"
#include "kernels/attention/forward-inl.h"
#include "kernels/attention/kernel_table.h"

namespace hw3tf {

extern const AttentionKernels HW3TF_ATTENTION_KERNELS;
const AttentionKernels HW3TF_ATTENTION_KERNELS = {
    kTiles,      kBackwardRows,   ForwardScratchFloats,  Forward,
    MergeSplits, kDecodeRows,     kDecodeChunk,          DecodeScratchFloats,
    Decode,      PrepareBackward, BackwardScratchFloats, Backward,
    kQueries64,  Float64Scratch,  ForwardFloat64,        BackwardFloat64,
};

}  // namespace hw3tf
