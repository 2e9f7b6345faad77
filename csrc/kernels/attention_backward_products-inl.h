// The backward pass, second step: dV, dK and dQ of a block of query rows and a
// chunk of keys, from p and dS.

#pragma once

#include "kernels/attention_backward-inl.h"

namespace hw3tf {
namespace {

// to[0..size) += factor * from[0..size), for what is not finite of `from`;
// sizes are padded to vectors.
inline void AddNotFinite(float factor, const float* from, int64_t size,
                         float* to) {
  for (int64_t h = 0; h < size; h += kLanes) {
    const Vec x = Load(from + h), sum = Load(to + h);
    Store(to + h, Select(NotFinite(x), sum + factor * x, sum));
  }
}

// Whether a query sees a key of the chunk.
inline bool SeesKey(const BackwardScratch& scratch, int64_t row, int64_t key) {
  return scratch.visible[row / kQueryTile * kKeyChunk + key] >>
             row % kQueryTile &
         1;
}

// to[key][h] += a[key][query] * from[query][h], for what is not finite of
// `from` and the keys of [begin, end) that its query sees.
__attribute__((noinline, cold)) void AddToSeenKeys(
    const BackwardScratch& scratch, const QueryRows& block, int64_t begin,
    int64_t end, const float* a, const float* from, int64_t size, float* to) {
  for (int64_t row = 0; row < block.count; ++row) {
    const float* x = from + row * size;
    if (AllFinite(x, size, 1, size)) continue;
    for (int64_t key = begin; key < end; ++key)
      if (SeesKey(scratch, row, key))
        AddNotFinite(a[key * kBackwardRows + row], x, size, to + key * size);
  }
}

// The first run of keys that all queries of the block see.
inline void FindSeenByAll(const BackwardScratch& scratch,
                          const QueryRows& block, int64_t* begin,
                          int64_t* end) {
  const auto all_see = [&](int64_t key) {
    for (int64_t tile = 0; tile < block.tiles; ++tile) {
      const uint32_t used = UsedLanes(block.lanes[tile].rows);
      if ((scratch.visible[tile * kKeyChunk + key] & used) != used)
        return false;
    }
    return true;
  };
  *begin = block.key_begin;
  while (*begin < block.key_end && !all_see(*begin)) ++*begin;
  *end = *begin;
  while (*end < block.key_end && all_see(*end)) ++*end;
}

// grad_query[query][h] += dS[key][query] * key[key][h], likewise.
__attribute__((noinline, cold)) void AddSeenKeys(const BackwardScratch& scratch,
                                                 const QueryRows& block) {
  const int64_t size = scratch.key_size;
  for (int64_t key = block.key_begin; key < block.key_end; ++key) {
    const float* x = scratch.key + key * size;
    if (AllFinite(x, size, 1, size)) continue;
    for (int64_t row = 0; row < block.count; ++row)
      if (SeesKey(scratch, row, key))
        AddNotFinite(scratch.score_grads[key * kBackwardRows + row], x, size,
                     scratch.grad_query + row * size);
  }
}

// The three products of a block, from p and dS.
inline void MultiplyGradients(const BackwardContext& context,
                              const QueryRows& block) {
  const BackwardScratch& scratch = context.scratch;
  const int64_t first = block.key_begin, keys = block.key_end - first;
  const auto add_to_keys = [&](const float* a, const float* from, int64_t size,
                               float* to) {
    const auto multiply = [&](const float* rows, int64_t begin, int64_t end) {
      Multiply<Contiguous::kAlongDepth>(
          {{a + begin * kBackwardRows, kBackwardRows},
           {rows, size},
           block.count,
           to + begin * size,
           size,
           size,
           /*accumulate=*/true,
           context.prefetcher},
          end - begin);
    };
    if (!block.any_hidden || AllFinite(from, size, block.count, size)) {
      multiply(from, first, first + keys);
      return;
    }
    // Of a causal block most keys are seen by all its queries. By hand for all
    // keys, a gradient with upstream gradients of infinity, as a loss scale
    // that overflows gives them, took 8 to 21 times as long.
    int64_t begin, end;
    FindSeenByAll(scratch, block, &begin, &end);
    multiply(from, begin, end);
    CopyFinite(from, size, block.count, size, scratch.finite);
    const auto by_hand = [&](int64_t some, int64_t more) {
      multiply(scratch.finite, some, more);
      AddToSeenKeys(scratch, block, some, more, a, from, size, to);
    };
    by_hand(first, begin);
    by_hand(end, first + keys);
  };
  add_to_keys(scratch.weights, scratch.grad_rows, scratch.value_size,
              scratch.grad_value);
  add_to_keys(scratch.score_grads, scratch.query_rows, scratch.key_size,
              scratch.grad_key);
  const bool keys_by_hand = block.any_hidden && !context.keys_finite;
  const float* key = scratch.key;
  if (keys_by_hand) {
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
  if (keys_by_hand) AddSeenKeys(scratch, block);
}

}  // namespace
}  // namespace hw3tf
