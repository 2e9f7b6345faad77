// Gradients of operands that all batch entries share: query, key or value with
// a batch stride of 0, as the learned latents of a Perceiver.

#pragma once

#include "kernels/attention/attention.h"

namespace hw3tf {

// Runs `backward`, which writes one gradient per batch entry, and sums those
// that the caller wants summed: grad_query, grad_key or grad_value with a batch
// stride of 0. Sums are in double and in the order of the batch, whatever the
// number of threads. Takes memory for the gradients of all batch entries.
// Returns false if there is none, or if `backward` does.
bool BackwardWithSharedOperands(const AttentionBackwardArgs& args,
                                int num_threads,
                                bool (*backward)(const AttentionBackwardArgs&,
                                                 int));

// Writes the gradients of a call without a single query: zeros.
void ZeroGradients(const AttentionBackwardArgs& args);

}  // namespace hw3tf
