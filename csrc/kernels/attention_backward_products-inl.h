// The backward pass, second step: dV, dK and dQ of a block of query rows and a
// chunk of keys, from p and dS.

#pragma once

#include "kernels/attention_backward-inl.h"

namespace hw3tf {
namespace {

// The products of p and dS with what is not finite, each key and query meeting
// only if one sees the other: the plain products would turn what is hidden into
// 0 * NaN. to[key][h] += a[key][query] * from[query][h].
__attribute__((noinline, cold)) void AddToSeenKeys(
    const BackwardScratch& scratch, const QueryRows& block, const float* a,
    const float* from, int64_t size, float* to) {
  for (int64_t key = block.key_begin; key < block.key_end; ++key)
    for (int64_t row = 0; row < block.count; ++row) {
      const uint32_t lanes =
          scratch.visible[row / kQueryTile * kKeyChunk + key];
      if (!(lanes >> row % kQueryTile & 1)) continue;
      for (int64_t h = 0; h < size; ++h)
        to[key * size + h] +=
            a[key * kBackwardRows + row] * from[row * size + h];
    }
}

// grad_query[row][h] = sum over the keys that it sees.
__attribute__((noinline, cold)) void SumOverSeenKeys(
    const BackwardScratch& scratch, const QueryRows& block) {
  const int64_t size = scratch.key_size;
  for (int64_t i = 0; i < block.count * size; ++i) scratch.grad_query[i] = 0;
  for (int64_t row = 0; row < block.count; ++row)
    for (int64_t key = block.key_begin; key < block.key_end; ++key) {
      const uint32_t lanes =
          scratch.visible[row / kQueryTile * kKeyChunk + key];
      if (!(lanes >> row % kQueryTile & 1)) continue;
      for (int64_t h = 0; h < size; ++h)
        scratch.grad_query[row * size + h] +=
            scratch.score_grads[key * kBackwardRows + row] *
            scratch.key[key * size + h];
    }
}

// The three products of a block, from p and dS.
inline void MultiplyGradients(const BackwardContext& context,
                              const QueryRows& block) {
  const BackwardScratch& scratch = context.scratch;
  const int64_t first = block.key_begin, keys = block.key_end - first;
  const auto add_to_keys = [&](const float* a, const float* from, int64_t size,
                               float* to) {
    if (block.any_hidden && !AllFinite(from, size, block.count, size)) {
      AddToSeenKeys(scratch, block, a, from, size, to);
      return;
    }
    Multiply<Contiguous::kAlongDepth>(
        {{a + first * kBackwardRows, kBackwardRows},
         {from, size},
         block.count,
         to + first * size,
         size,
         size,
         /*accumulate=*/true},
        keys);
  };
  add_to_keys(scratch.weights, scratch.grad_rows, scratch.value_size,
              scratch.grad_value);
  add_to_keys(scratch.score_grads, scratch.query_rows, scratch.key_size,
              scratch.grad_key);
  if (block.any_hidden && !context.keys_finite) {
    SumOverSeenKeys(scratch, block);
    return;
  }
  Multiply<Contiguous::kAlongRows>(
      {{scratch.score_grads + first * kBackwardRows, kBackwardRows},
       {scratch.key + first * scratch.key_size, scratch.key_size},
       keys,
       scratch.grad_query,
       scratch.key_size,
       scratch.key_size,
       /*accumulate=*/false},
      block.count);
}

}  // namespace
}  // namespace hw3tf
