// The backward pass, second step: dV, dK and dQ of a block of query rows and a
// chunk of keys, from p and dS.

#pragma once

#include "kernels/attention_backward-inl.h"

namespace hw3tf {
namespace {

// to[key][h] += a[key][query] * from[query][h], for what is not finite of
// `from` and the keys that its query sees.
__attribute__((noinline, cold)) void AddToSeenKeys(
    const BackwardScratch& scratch, const QueryRows& block, const float* a,
    const float* from, int64_t size, float* to) {
  for (int64_t row = 0; row < block.count; ++row)
    for (int64_t h = 0; h < size; ++h) {
      const float x = from[row * size + h];
      if (__builtin_isfinite(x)) continue;
      const uint32_t* lanes = scratch.visible + row / kQueryTile * kKeyChunk;
      for (int64_t key = block.key_begin; key < block.key_end; ++key)
        if (lanes[key] >> row % kQueryTile & 1)
          to[key * size + h] += a[key * kBackwardRows + row] * x;
    }
}

// grad_query[query][h] += dS[key][query] * key[key][h], likewise.
__attribute__((noinline, cold)) void AddSeenKeys(const BackwardScratch& scratch,
                                                 const QueryRows& block) {
  const int64_t size = scratch.key_size;
  for (int64_t key = block.key_begin; key < block.key_end; ++key)
    for (int64_t h = 0; h < size; ++h) {
      const float x = scratch.key[key * size + h];
      if (__builtin_isfinite(x)) continue;
      for (int64_t row = 0; row < block.count; ++row) {
        const uint32_t lanes =
            scratch.visible[row / kQueryTile * kKeyChunk + key];
        if (lanes >> row % kQueryTile & 1)
          scratch.grad_query[row * size + h] +=
              scratch.score_grads[key * kBackwardRows + row] * x;
      }
    }
}

// The three products of a block, from p and dS.
inline void MultiplyGradients(const BackwardContext& context,
                              const QueryRows& block) {
  const BackwardScratch& scratch = context.scratch;
  const int64_t first = block.key_begin, keys = block.key_end - first;
  const auto add_to_keys = [&](const float* a, const float* from, int64_t size,
                               float* to) {
    const float* rows = from;
    const bool by_hand =
        block.any_hidden && !AllFinite(from, size, block.count, size);
    if (by_hand) {
      CopyFinite(from, size, block.count, size, scratch.finite);
      rows = scratch.finite;
    }
    Multiply<Contiguous::kAlongDepth>(
        {{a + first * kBackwardRows, kBackwardRows},
         {rows, size},
         block.count,
         to + first * size,
         size,
         size,
         /*accumulate=*/true,
         context.prefetcher},
        keys);
    if (by_hand) AddToSeenKeys(scratch, block, a, from, size, to);
  };
  add_to_keys(scratch.weights, scratch.grad_rows, scratch.value_size,
              scratch.grad_value);
  add_to_keys(scratch.score_grads, scratch.query_rows, scratch.key_size,
              scratch.grad_key);
  const bool by_hand = block.any_hidden && !context.keys_finite;
  const float* key = scratch.key;
  if (by_hand) {
    CopyFinite(key, scratch.key_size, context.task.count, scratch.key_size,
               scratch.finite);
    key = scratch.finite;
  }
  Multiply<Contiguous::kAlongRows>(
      {{scratch.score_grads + first * kBackwardRows, kBackwardRows},
       {key + first * scratch.key_size, scratch.key_size},
       keys,
       scratch.grad_query,
       scratch.key_size,
       scratch.key_size,
       /*accumulate=*/false,
       context.prefetcher},
      block.count);
  if (by_hand) AddSeenKeys(scratch, block);
}

}  // namespace
}  // namespace hw3tf
