// What forward and backward share: tile sizes, which keys are visible, and the
// packing of rows into the layouts that the register tile reads.

#pragma once

#include "kernels/attention.h"
#include "kernels/simd.h"
#include "kernels/tile_multiply-inl.h"

namespace hw3tf {
namespace {

// A query tile is the lanes of two vectors, so that maximum, sum and
// rescaling of the softmax are vertical operations.
constexpr int kQueryTile = 2 * kLanes;
// Queries that share the reading of one key tile.
constexpr int kQueryBlock = 4 * kQueryTile;
constexpr int kKeyTile = 16 * kRows;

constexpr float kLog2E = 1.44269504088896340736f;
constexpr float kInfinity = __builtin_inff();

inline int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }
inline int64_t PadToVector(int64_t size) { return RoundUp(size, kLanes); }

// The size of the tiles that cut `count` into as few as `largest` allows, all
// about equal: 200 keys are 72 + 72 + 56, not 96 + 96 + 8.
inline int64_t EvenTile(int64_t count, int64_t largest, int64_t multiple) {
  return Min(largest,
             RoundUp(CeilDiv(count, CeilDiv(count, largest)), multiple));
}

// What the products are multiplied by to be exponents of 2. The sign of the
// scale is given to the packed queries, where it costs no rounding, so that a
// maximum of the products is one of the scores.
inline float Factor(const AttentionOptions& options) {
  return __builtin_fabsf(options.scale) * kLog2E;
}

inline float Sign(const AttentionOptions& options) {
  return options.scale < 0 ? -1.0f : 1.0f;
}

// Start of the rows of one batch entry and head.
inline const float* Head(const ConstArray& array, int64_t b, int64_t head) {
  return array.data + b * array.strides.batch + head * array.strides.head;
}

inline float* Head(const MutableArray& array, int64_t b, int64_t head) {
  return array.data + b * array.strides.batch + head * array.strides.head;
}

// First key that takes part in batch entry b; key_len if none does.
inline int64_t FirstVisibleKey(const AttentionShape& shape,
                               const AttentionOptions& options, int64_t b) {
  if (!options.key_mask) return 0;
  const uint8_t* mask = options.key_mask + b * shape.key_len;
  int64_t s = 0;
  while (s < shape.key_len && !mask[s]) ++s;
  return s;
}

// Whether query t of batch entry b sees any key.
inline bool SeesAKey(const AttentionShape& shape,
                     const AttentionOptions& options, int64_t b, int64_t t,
                     int64_t first_visible_key) {
  if (options.query_mask && !options.query_mask[b * shape.query_len + t])
    return false;
  return first_visible_key < shape.key_len &&
         (!options.is_causal || first_visible_key <= t);
}

// The statistics that mark a query that sees no key. A score of +inf has the
// maximum too, but its sum is NaN.
inline void MarkBlind(float* statistics) {
  statistics[0] = kInfinity;
  statistics[1] = 1.0f;
}

inline bool IsBlind(const float* statistics) {
  return statistics[0] == kInfinity && statistics[1] == 1.0f;
}

// The keys of [start, end) that take part: their number, and their positions
// unless they lie side by side, in which case the first says it all.
struct VisibleKeys {
  int64_t first;
  int64_t count;
  bool contiguous;
};

// `positions` holds at least end - start entries.
inline VisibleKeys FindVisibleKeys(const uint8_t* mask, int64_t start,
                                   int64_t end, int32_t* positions) {
  if (!mask) return {start, end - start, true};
  int64_t count = 0;
  for (int64_t s = start; s < end; ++s) {
    positions[count] = static_cast<int32_t>(s);
    count += mask[s] != 0;
  }
  if (count == 0) return {start, 0, true};
  return {positions[0], count,
          positions[count - 1] - positions[0] == count - 1};
}

inline int64_t KeyPosition(const VisibleKeys& keys, const int32_t* positions,
                           int64_t index) {
  return keys.contiguous ? keys.first + index : positions[index];
}

// Of the visible keys, how many stand at or before `position`.
inline int64_t CountUpTo(const VisibleKeys& keys, const int32_t* positions,
                         int64_t position) {
  if (keys.contiguous) {
    const int64_t upto = position + 1 - keys.first;
    return upto < 0 ? 0 : Min(upto, keys.count);
  }
  int64_t count = 0;
  while (count < keys.count && positions[count] <= position) ++count;
  return count;
}

// Copies the visible rows to [count][padded], zeros after `size`.
inline void GatherRows(const float* rows, int64_t stride,
                       const VisibleKeys& keys, const int32_t* positions,
                       int64_t size, int64_t padded, float* to) {
  for (int64_t i = 0; i < keys.count; ++i) {
    const float* row = rows + KeyPosition(keys, positions, i) * stride;
    std::memcpy(to, row, static_cast<size_t>(size) * sizeof(float));
    for (int64_t h = size; h < padded; ++h) to[h] = 0.0f;
    to += padded;
  }
}

// Writes kLanes rows of `size` floats, times `sign`, as columns of `to`:
// to[h * kQueryTile + lane]. Lanes whose row is nullptr become 0.
inline void PackColumns(const float* const (&rows)[kLanes], int64_t size,
                        float sign, float* to) {
  int64_t h = 0;
  for (; h + kLanes <= size; h += kLanes) {
    Vec block[kLanes];
    for (int i = 0; i < kLanes; ++i)
      block[i] = rows[i] ? Load(rows[i] + h) * sign : Vec{};
    Transpose(block);
    for (int i = 0; i < kLanes; ++i) Store(to + (h + i) * kQueryTile, block[i]);
  }
  for (; h < size; ++h)
    for (int i = 0; i < kLanes; ++i)
      to[h * kQueryTile + i] = rows[i] ? rows[i][h] * sign : 0.0f;
}

// Copies kLanes rows of `size` floats to [kLanes][padded], zeros after `size`
// and for nullptr.
inline void PackRows(const float* const (&rows)[kLanes], int64_t size,
                     int64_t padded, float* to) {
  for (int i = 0; i < kLanes; ++i, to += padded) {
    const int64_t used = rows[i] ? size : 0;
    for (int64_t h = 0; h < used; ++h) to[h] = rows[i][h];
    for (int64_t h = used; h < padded; ++h) to[h] = 0.0f;
  }
}

}  // namespace
}  // namespace hw3tf
