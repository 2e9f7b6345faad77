// dropout.h in lanes: which weights of a tile are kept.

#pragma once

#include "kernels/attention/dropout.h"
#include "kernels/vector/simd.h"

namespace hw3tf {
namespace {

typedef uint32_t VecUint __attribute__((vector_size(kVecBytes)));
typedef uint64_t VecWide
    __attribute__((vector_size(kVecBytes)));  // kLanes / 2 lanes

// A word for every lane, as products want it: those of the even and those of
// the odd lanes, in the low half of 64 bits. The high halves hold anything.
struct Words {
  VecWide even, odd;
};

inline VecWide Wide(uint64_t x) { return VecWide{} + x; }

inline Words Split(VecUint lanes) {
  VecWide pairs;
  std::memcpy(&pairs, &lanes, sizeof pairs);
  return {pairs, pairs >> 32};
}

inline VecUint Join(const Words& words) {
  const VecWide pairs = (words.even & Wide(0xFFFFFFFFu)) | (words.odd << 32);
  VecUint lanes;
  std::memcpy(&lanes, &pairs, sizeof lanes);
  return lanes;
}

// 64-bit products of the low halves.
inline VecWide MultiplyLow(VecWide a, uint32_t b) {
#if defined(__AVX512F__)
  // The form without a mask warns of its own undefined operand (GCC 12).
  return reinterpret_cast<VecWide>(_mm512_maskz_mul_epu32(
      0xFF, reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(Wide(b))));
#elif defined(__AVX2__)
  return reinterpret_cast<VecWide>(_mm256_mul_epu32(
      reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(Wide(b))));
#elif defined(__SSE2__)
  return reinterpret_cast<VecWide>(_mm_mul_epu32(
      reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(Wide(b))));
#else
  return (a & Wide(0xFFFFFFFFu)) * static_cast<uint64_t>(b);
#endif
}

inline Words Multiply(const Words& a, uint32_t b) {
  return {MultiplyLow(a.even, b), MultiplyLow(a.odd, b)};
}

// The high halves of `a`, exclusive or of `b` and `c`.
inline Words MixHigh(const Words& a, const Words& b, uint64_t c) {
  return {(a.even >> 32) ^ b.even ^ Wide(c), (a.odd >> 32) ^ b.odd ^ Wide(c)};
}

// keep[key - first_key], for keys [first_key, end_key): bit `first_bit` + i is
// whether the weight of lane i is kept.
//
// In the first two rounds most is the same for all lanes or for all quads of
// keys, and is multiplied once. Words stay split until the end. With lanes put
// together after every product, and ten whole rounds,
// forward-2x2048x2048x8x8x32 took 66.7 ms, now 61.8; without dropout 44
// (benchmarks/compare_builds.py, two threads, Zen 4).
inline void AddDropoutBits(uint32_t threshold, uint64_t seed, uint32_t batch,
                           VecUint head, VecUint query, int64_t first_key,
                           int64_t end_key, int first_bit, uint32_t* keep) {
  uint32_t k0[kPhiloxRounds], k1[kPhiloxRounds];
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const auto r = static_cast<uint32_t>(round);
    k0[round] = static_cast<uint32_t>(seed) + r * kPhiloxWeyl0;
    k1[round] = static_cast<uint32_t>(seed >> 32) + r * kPhiloxWeyl1;
  }
  const Words of_head = Multiply(Split(head), kPhiloxMultiplier1);
  const Words of_query =
      Multiply(MixHigh(of_head, Split(query), k0[0]), kPhiloxMultiplier0);
  for (int64_t quad = first_key / 4; quad * 4 < end_key; ++quad) {
    const uint64_t of_quad =
        static_cast<uint64_t>(kPhiloxMultiplier0) * static_cast<uint32_t>(quad);
    const auto mixed = static_cast<uint32_t>(of_quad >> 32) ^ batch ^ k1[0];
    const uint64_t of_mixed = static_cast<uint64_t>(kPhiloxMultiplier1) * mixed;
    // Rounds 0 and 1 end here.
    Words c[4] = {
        {of_head.even ^ Wide((of_mixed >> 32) ^ k0[1]),
         of_head.odd ^ Wide((of_mixed >> 32) ^ k0[1])},
        {Wide(of_mixed), Wide(of_mixed)},
        MixHigh(of_query, {Wide(of_quad), Wide(of_quad)}, k1[1]),
        of_query,
    };
    for (int round = 2; round < kPhiloxRounds; ++round) {
      const Words product0 = Multiply(c[0], kPhiloxMultiplier0);
      const Words product1 = Multiply(c[2], kPhiloxMultiplier1);
      c[0] = MixHigh(product1, c[1], k0[round]);
      c[2] = MixHigh(product0, c[3], k1[round]);
      c[1] = product1;
      c[3] = product0;
    }
    for (int word = 0; word < 4; ++word) {
      const int64_t key = quad * 4 + word;
      if (key < first_key || key >= end_key) continue;
      keep[key - first_key] |= BitsOf(Join(c[word]) >= threshold) << first_bit;
    }
  }
}

}  // namespace
}  // namespace hw3tf
