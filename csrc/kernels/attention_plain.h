#pragma once
#include "kernels/attention.h"
namespace hw3tf {
bool AttentionForwardPlain(const AttentionForwardArgs& args, int num_threads);
bool AttentionBackwardPlain(const AttentionBackwardArgs& args, int num_threads);
}
