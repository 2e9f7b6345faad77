// Attention and its gradient.

#pragma once

#include <string>

#include "operations/description.h"

namespace hw3tf {

extern const Operation kAttention;
extern const Operation kAttentionGrad;

// For AttentionDropoutMask: `dims` are (B, N, T, S).
std::string CheckDropoutMask(const Dims& dims, double rate,
                             AttentionShape* shape);

}  // namespace hw3tf
