// What forward and backward share: tile sizes, the queries in the lanes of a
// tile, which keys they see, and the packing of rows.

#pragma once

#include "kernels/attention/attention.h"
#include "kernels/attention/kernel_table.h"
#include "kernels/vector/convert-inl.h"
#include "kernels/vector/simd.h"
#include "kernels/vector/tile_multiply-inl.h"

namespace hw3tf {
namespace {

// A query tile is the lanes of two vectors, so that maximum, sum and
// rescaling of the softmax are vertical operations. The last tile of a block
// uses one vector if it has that few queries.
constexpr int kQueryTile = 2 * kLanes;
constexpr int kKeyTile = 16 * kRows;
constexpr int kKeyChunk = 64 * kRows;  // of the backward pass

constexpr float kLog2E = 1.44269504088896340736f;
constexpr float kInfinity = __builtin_inff();

inline int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t Max(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }
inline int64_t PadToVector(int64_t size) { return RoundUp(size, kLanes); }

// The size of the tiles that cut `count` into as few as `largest` allows, all
// about equal: 200 keys are 72 + 72 + 56, not 96 + 96 + 8.
inline int64_t EvenTile(int64_t count, int64_t largest, int64_t multiple) {
  if (count <= 0) return multiple;
  return Min(largest,
             RoundUp(CeilDiv(count, CeilDiv(count, largest)), multiple));
}

// The sign of the scale is given to the packed queries, where it costs no
// rounding, so that a maximum of the products is one of the scores: the bits to
// change in a unit.
inline VecInt SignBits(const AttentionOptions& options) {
  return BroadcastInt(options.scale < 0 ? kUnitSigns : 0);
}

// Elements from the start of an array to position 0 of one head.
inline int64_t QueryOffset(const Strides& strides, const AttentionPlan& plan,
                           const Sequence& sequence, int64_t head) {
  return head * strides.head + (plan.packed
                                    ? sequence.query_row * strides.length
                                    : sequence.b * strides.batch);
}

inline int64_t KeyOffset(const Strides& strides, const AttentionPlan& plan,
                         const Sequence& sequence, int64_t head) {
  return head * strides.head + (plan.packed ? sequence.key_row * strides.length
                                            : sequence.b * strides.batch);
}

// Bits of the first `rows` lanes.
constexpr uint32_t UsedLanes(int rows) {
  return rows == 32 ? 0xFFFFFFFFu : (1u << rows % 32) - 1;
}

// The queries in the lanes of one tile. Lanes beyond the last query repeat it;
// what they compute is not written.
struct QueryLanes {
  int32_t position[kQueryTile];  // t
  int32_t head[kQueryTile];      // n
  int rows;                      // lanes in use
  int vectors;                   // 1 or 2, that hold them
  int64_t first, last;           // smallest and largest position
  uint32_t taking_part;          // bits: in use and not masked
};

inline void FindQueryLanes(const AttentionPlan& plan, const Sequence& sequence,
                           int64_t kv_head, int64_t first_row, int64_t rows,
                           QueryLanes* lanes) {
  const auto group = static_cast<int32_t>(plan.group);
  const auto used = static_cast<int32_t>(rows);
  lanes->rows = used;
  lanes->vectors = rows > kLanes ? 2 : 1;
  auto position = static_cast<int32_t>(first_row / group);
  auto member = static_cast<int32_t>(first_row % group);
  const auto first_head = static_cast<int32_t>(kv_head * group);
  lanes->first = position;
  if (group == 1) {
    for (int32_t i = 0; i < kQueryTile; ++i) {
      lanes->position[i] = position + (i < used ? i : used - 1);
      lanes->head[i] = first_head;
    }
  } else {
    for (int32_t i = 0; i < kQueryTile; ++i) {
      lanes->position[i] = position;
      lanes->head[i] = first_head + member;
      if (i + 1 < used && ++member == group) {
        member = 0;
        ++position;
      }
    }
  }
  lanes->last = lanes->position[kQueryTile - 1];
  const int64_t before_end = sequence.query_end * group - first_row;
  lanes->taking_part =
      UsedLanes(static_cast<int>(Max(0, Min(rows, before_end))));
  if (sequence.query_mask)
    for (int i = 0; i < kQueryTile; ++i)
      if (!sequence.query_mask[lanes->position[i]])
        lanes->taking_part &= ~(1u << i);
}

// Elements from the start of an array to the rows of lanes first, first + 1,
// ..., of which `base` is position 0 of head 0.
inline void FindOffsets(const QueryLanes& lanes, int first, int64_t base,
                        int64_t head_stride, int64_t length_stride,
                        int64_t (&offsets)[kLanes]) {
  for (int i = 0; i < kLanes; ++i)
    offsets[i] = base + lanes.head[first + i] * head_stride +
                 lanes.position[first + i] * length_stride;
}

// Keys [begin, end) are seen by some lane, as far as positions and the range of
// the key mask go; keys [full_begin, full_end) by every one.
struct KeyRange {
  int64_t begin, end;
  int64_t full_begin, full_end;
};

inline KeyRange FindKeyRange(const AttentionPlan& plan,
                             const Sequence& sequence, int64_t first,
                             int64_t last) {
  KeyRange range;
  range.begin = Max(sequence.key_begin, first - plan.before);
  range.end = Min(sequence.key_end, last + plan.after + 1);
  range.full_begin = Max(range.begin, last - plan.before);
  range.full_end = Min(range.end, first + plan.after + 1);
  if (range.full_end <= range.full_begin)
    range.full_begin = range.full_end = range.end;
  return range;
}

// The statistics that mark a query that sees no key: (0, -1). Nothing infinite,
// which TensorFlow's enable_check_numerics would stop.
inline void MarkSeesNothing(float* statistics) {
  statistics[0] = 0.0f;
  statistics[1] = kSumOfNothing;
}

inline bool SeesNothing(const float* statistics) {
  return statistics[1] == kSumOfNothing;
}

// The logsumexp of such a query.
inline float LogSumExpOfNothing(const AttentionForwardArgs& args) {
  return args.finite_logsumexp ? -__FLT_MAX__ : -kInfinity;
}

// Copies rows [first, first + count) to [count][padded] float32.
inline void CopyRows(const void* rows, DType dtype, int64_t stride,
                     int64_t first, int64_t count, int64_t size, int64_t padded,
                     float* to) {
  for (int64_t i = 0; i < count; ++i)
    WidenRow(Element(rows, (first + i) * stride, dtype), dtype, size, padded,
             to + i * padded);
}

// Writes kLanes rows of `size` units, `sign_bits` changed, as columns of `to`:
// to[h * kQueryTile + lane].
inline void PackColumns(const float* const (&rows)[kLanes], int64_t size,
                        VecInt sign_bits, float* to) {
  int64_t h = 0;
  for (; h + kLanes <= size; h += kLanes) {
    Vec block[kLanes];
    for (int i = 0; i < kLanes; ++i)
      block[i] = FromBits(Bits(Load(rows[i] + h)) ^ sign_bits);
    Transpose(block);
    for (int i = 0; i < kLanes; ++i) Store(to + (h + i) * kQueryTile, block[i]);
  }
  for (; h < size; ++h) {
    VecInt column;
    for (int i = 0; i < kLanes; ++i)
      column[i] = static_cast<int32_t>(LoadUnit(rows[i] + h));
    Store(to + h * kQueryTile, FromBits(column ^ sign_bits));
  }
}

inline bool AllFinite(const float* rows, int64_t stride, int64_t count,
                      int64_t size) {
  for (int64_t i = 0; i < count; ++i) {
    const float* row = rows + i * stride;
    VecInt any{};
    int64_t h = 0;
    for (; h + kLanes <= size; h += kLanes) any |= AnyNotFinite(Load(row + h));
    for (; h < size; ++h) any |= AnyNotFinite(BroadcastUnit(row + h));
    if (AnyTrue(any)) return false;
  }
  return true;
}

// Copies rows of units to [count][size], 0 for what is not finite. A product
// with such rows leaves alone those who do not see the others (0 * NaN would
// not), and leaves their bits as they are; those who do see them are added by
// hand.
__attribute__((noinline, cold)) void CopyFinite(const float* rows,
                                                int64_t stride, int64_t count,
                                                int64_t size, float* to) {
  for (int64_t i = 0; i < count; ++i) {
    int64_t h = 0;
    for (; !kPairs && h + kLanes <= size; h += kLanes) {
      const Vec x = Load(rows + i * stride + h);
      Store(to + i * size + h, Select(NotFinite(x), Vec{}, x));
    }
    for (; h < size; ++h) {
      uint32_t bits = LoadUnit(rows + i * stride + h);
      if ((bits & 0x7F800000) == 0x7F800000) bits &= kPairs ? 0xFFFF : 0;
      if (kPairs && (bits & 0x7F80) == 0x7F80) bits &= 0xFFFF0000;
      std::memcpy(to + i * size + h, &bits, sizeof bits);
    }
  }
}

}  // namespace
}  // namespace hw3tf
