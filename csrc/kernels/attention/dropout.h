// Which weights dropout keeps: a function of (seed, batch, head, query, key)
// alone, so that it is the same for every number of threads, every tile size
// and every instruction set, and in forward and backward.
//
// The generator is Philox4x32-10 (Salmon, Moraes, Dror & Shaw, "Parallel random
// numbers: as easy as 1, 2, 3", SC 2011): ten rounds turn a counter of four
// words and a key of two into four random words.
//
//   key     = (seed & 0xFFFFFFFF, seed >> 32)
//   counter = (key position / 4, query position, head, batch entry)
//
// Word (key position % 4) decides: the weight is kept if it is at least
// DropoutThreshold(rate).

#pragma once

#include <cstdint>

namespace hw3tf {

constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53;
constexpr uint32_t kPhiloxMultiplier1 = 0xCD9E8D57;
constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9;
constexpr uint32_t kPhiloxWeyl1 = 0xBB67AE85;
constexpr int kPhiloxRounds = 10;

// rate * 2^32, rounded to the nearest. 0 <= rate < 1.
static inline uint32_t DropoutThreshold(double rate) {
  const double scaled = rate * 4294967296.0 + 0.5;
  return scaled >= 4294967295.0 ? 4294967295u : static_cast<uint32_t>(scaled);
}

// One word at a time, as the text above reads; dropout-inl.h is the same in
// lanes.
static inline bool DropoutKeeps(uint32_t threshold, uint64_t seed,
                                int64_t batch, int64_t head, int64_t query,
                                int64_t key) {
  uint32_t k0 = static_cast<uint32_t>(seed);
  uint32_t k1 = static_cast<uint32_t>(seed >> 32);
  uint32_t c[4] = {static_cast<uint32_t>(key / 4), static_cast<uint32_t>(query),
                   static_cast<uint32_t>(head), static_cast<uint32_t>(batch)};
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(kPhiloxMultiplier0) * c[0];
    const uint64_t p1 = static_cast<uint64_t>(kPhiloxMultiplier1) * c[2];
    const uint32_t next[4] = {
        static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
        static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    for (int i = 0; i < 4; ++i) c[i] = next[i];
    k0 += kPhiloxWeyl0;
    k1 += kPhiloxWeyl1;
  }
  return c[key % 4] >= threshold;
}

}  // namespace hw3tf
