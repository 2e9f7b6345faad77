// dropout.h in lanes: which weights of a tile are kept.

#pragma once

#include "kernels/dropout.h"
#include "kernels/simd.h"

namespace hw3tf {
namespace {

typedef uint32_t VecUint __attribute__((vector_size(kVecBytes)));
typedef uint64_t HalfWide
    __attribute__((vector_size(kVecBytes)));  // kLanes / 2 lanes

// The high and the low words of a * b: two products of the even and of the odd
// lanes, whose halves are then put back together.
inline void MultiplyWords(uint32_t a, VecUint b, VecUint* high, VecUint* low) {
  HalfWide pairs;
  std::memcpy(&pairs, &b, sizeof pairs);
  const HalfWide even = (pairs & 0xFFFFFFFFu) * static_cast<uint64_t>(a);
  const HalfWide odd = (pairs >> 32) * static_cast<uint64_t>(a);
  const HalfWide h = (even >> 32) | (odd & 0xFFFFFFFF00000000u);
  const HalfWide l = (even & 0xFFFFFFFFu) | (odd << 32);
  std::memcpy(high, &h, sizeof h);
  std::memcpy(low, &l, sizeof l);
}

// keep[key - first_key], for keys [first_key, end_key): bit `first_bit` + i is
// whether the weight of lane i is kept.
inline void AddDropoutBits(uint32_t threshold, uint64_t seed, uint32_t batch,
                           VecUint head, VecUint query, int64_t first_key,
                           int64_t end_key, int first_bit, uint32_t* keep) {
  for (int64_t quad = first_key / 4; quad * 4 < end_key; ++quad) {
    VecUint c[4] = {VecUint{} + static_cast<uint32_t>(quad), query, head,
                    VecUint{} + batch};
    uint32_t k0 = static_cast<uint32_t>(seed);
    uint32_t k1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round) {
      VecUint high0, low0, high1, low1;
      MultiplyWords(kPhiloxMultiplier0, c[0], &high0, &low0);
      MultiplyWords(kPhiloxMultiplier1, c[2], &high1, &low1);
      c[0] = high1 ^ c[1] ^ k0;
      c[1] = low1;
      c[2] = high0 ^ c[3] ^ k1;
      c[3] = low0;
      k0 += kPhiloxWeyl0;
      k1 += kPhiloxWeyl1;
    }
    for (int word = 0; word < 4; ++word) {
      const int64_t key = quad * 4 + word;
      if (key < first_key || key >= end_key) continue;
      keep[key - first_key] |= BitsOf(c[word] >= threshold) << first_bit;
    }
  }
}

}  // namespace
}  // namespace hw3tf
