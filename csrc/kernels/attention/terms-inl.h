// What may change the scores of a tile beyond their product: who sees whom,
// bias, soft cap and dropout, brought into the lanes of the tile.
//
// Only tiles that have such terms pay for them: they take a second pass over
// the products, so that the loop in registers exists once and knows nothing of
// them. (A prototype of the whole kernel in two passes was 2-3 % slower.)

#pragma once

#include "kernels/attention/dropout-inl.h"
#include "kernels/attention/rows-inl.h"

namespace hw3tf {
namespace {

// The constants of a call.
struct ScoreConstants {
  float scale;     // |scale|; the queries carry the sign
  float factor;    // what a product, or a transformed score, is multiplied by
                   // to be an exponent of 2
  float soft_cap;  // 0: none
  bool transformed;
  bool dropout;
  uint32_t dropout_threshold;
  float keep_scale;  // 1 / (1 - rate)
};

inline ScoreConstants MakeScoreConstants(const AttentionOptions& options,
                                         const AttentionPlan& plan) {
  ScoreConstants c;
  c.scale = __builtin_fabsf(static_cast<float>(options.scale));
  c.transformed = plan.transformed;
  c.factor = c.transformed ? kLog2E : c.scale * kLog2E;
  c.soft_cap = static_cast<float>(options.soft_cap);
  c.dropout = options.dropout_rate > 0;
  c.dropout_threshold = c.dropout ? DropoutThreshold(options.dropout_rate) : 0;
  c.keep_scale = static_cast<float>(1.0 / (1.0 - options.dropout_rate));
  return c;
}

// ln(sum of exp(score)) from the statistics. A query whose visible scores are
// all -infinity has no weights: NaN, as its output.
inline Vec LogSumExp(const ScoreConstants& constants, Vec maximum, Vec sum) {
  const float unit = constants.transformed ? 1.0f : constants.scale;
  return Select(sum == Vec{}, Broadcast(__builtin_nanf("")),
                maximum * unit + Log(sum));
}

// Where the keys are split: the partial results of one query, as statistics and
// an output in float32.
inline int64_t PartialFloats(const AttentionShape& shape) {
  return 2 + shape.value_dim;
}

inline float* PartialResults(const AttentionShape& shape,
                             const AttentionPlan& plan, int64_t sequence,
                             int64_t head, int64_t t) {
  return plan.partials +
         ((sequence * shape.num_heads + head) * shape.query_len + t) *
             PartialFloats(shape);
}

// Writes the results of one query, given in float32; `sum` and `maximum` may be
// those that mark a query that sees no key.
inline void WriteResults(const AttentionForwardArgs& args,
                         const AttentionPlan& plan, const Sequence& sequence,
                         const ScoreConstants& constants, int64_t head,
                         int64_t t, const float* output, float maximum,
                         float sum) {
  const Strides& strides = args.output.strides;
  NarrowRow(
      output, args.dtype, args.shape.value_dim,
      Element(args.output.data,
              QueryOffset(strides, plan, sequence, head) + t * strides.length,
              args.dtype));
  const int64_t query = sequence.statistics + head * plan.statistics_stride + t;
  float* statistics = static_cast<float*>(args.statistics) + 2 * query;
  statistics[0] = maximum;
  statistics[1] = sum;
  if (args.logsumexp)
    static_cast<float*>(args.logsumexp)[query] =
        SeesNothing(statistics)
            ? LogSumExpOfNothing(args)
            : LogSumExp(constants, Broadcast(maximum), Broadcast(sum))[0];
}

// What the forward pass keeps of them in scratch.
struct TermsStorage {
  uint32_t visible[kKeyTile];
  uint32_t keep[kKeyTile];
};

// The terms of one query tile and some keys. A pointer is nullptr where a term
// is absent.
struct Terms {
  const uint32_t* visible;  // [key]: bit = lane sees it
  const uint32_t* keep;     // [key]: bit = dropout keeps it
  const float* bias;        // [key][kQueryTile]
};

constexpr uint32_t kAllLanes = UsedLanes(kQueryTile);

// Takes from visible[i] the lanes for which key begin + i lies outside of
// causality or window.
inline void HideByPosition(const AttentionPlan& plan, const QueryLanes& lanes,
                           int64_t begin, int64_t count, uint32_t* visible) {
  const auto before = static_cast<int32_t>(plan.before);
  const auto after = static_cast<int32_t>(plan.after);
  for (int v = 0; v < 2; ++v) {
    VecInt position;
    std::memcpy(&position, lanes.position + v * kLanes, sizeof position);
    for (int64_t i = 0; i < count; ++i) {
      const VecInt key = BroadcastInt(static_cast<int32_t>(begin + i));
      const VecInt sees =
          (key <= position + after) & (key >= position - before);
      visible[i] &= ~(BitsOf(~sees) << (v * kLanes));
    }
  }
}

// The mask of the lanes of a tile, row by row, from one key on.
struct MaskRows {
  const uint8_t* row[kQueryTile];
  int rows;
};

// Takes from visible[i] the lanes whose mask is zero at key i, for all keys of
// [begin, end), which lie side by side.
inline void HideBitByBit(const MaskRows& mask, int64_t begin, int64_t end,
                         uint32_t* visible) {
  for (int lane = 0; lane < mask.rows; ++lane)
    for (int64_t i = begin; i < end; ++i)
      visible[i] &= ~(static_cast<uint32_t>(mask.row[lane][i] == 0) << lane);
}

// The same for `count` keys. Where all see them all, or none sees any, as in
// most tiles of a causal mask, that is found without the bits. 1024 causal
// positions of 12 heads with H = 64 took 11.8 ms with the bits alone, 10.4 so,
// 9.8 with TrimKeys, and 8.9 told that they are causal.
inline void HideByDenseMask(const MaskRows& mask, int64_t count,
                            uint32_t* visible) {
  constexpr int64_t kBlock = sizeof(VecBytes);
  if (count < kBlock) return HideBitByBit(mask, 0, count, visible);
  for (int64_t next = 0; next < count; next += kBlock) {
    // The last block overlaps the one before: what is hidden stays hidden.
    const int64_t begin = Min(next, count - kBlock);
    VecBytes zeros{}, most{};
    for (int lane = 0; lane < mask.rows; ++lane) {
      VecBytes row;
      std::memcpy(&row, mask.row[lane] + begin, sizeof row);
      zeros |= reinterpret_cast<VecBytes>(row == 0);
      most |= row;
    }
    if (!AnyByte(zeros)) continue;
    if (AnyByte(most))
      HideBitByBit(mask, begin, begin + kBlock, visible);
    else
      for (int64_t i = begin; i < begin + kBlock; ++i) visible[i] = 0;
  }
}

// Takes from visible[i] the lanes whose mask is zero at key begin + i.
inline void HideByMask(const AttentionOptions& options, int64_t group,
                       const Sequence& sequence, const QueryLanes& lanes,
                       int64_t begin, int64_t count, uint32_t* visible) {
  const ScoreStrides& strides = options.mask_strides;
  const uint8_t* first =
      options.mask + sequence.b * strides.batch + begin * strides.key;
  MaskRows mask;
  mask.rows = lanes.rows;
  for (int lane = 0; lane < lanes.rows; ++lane)
    mask.row[lane] = first + lanes.head[lane] * strides.head +
                     lanes.position[lane] * strides.query;
  if (strides.query == 0 && (strides.head == 0 || group == 1)) {
    for (int64_t i = 0; i < count; ++i)
      if (!mask.row[0][i * strides.key]) visible[i] = 0;
    return;
  }
  if (strides.key == 1) {
    HideByDenseMask(mask, count, visible);
    return;
  }
  for (int lane = 0; lane < lanes.rows; ++lane)
    for (int64_t i = 0; i < count; ++i)
      visible[i] &= ~(
          static_cast<uint32_t>(mask.row[lane][i * strides.key] == 0) << lane);
}

// visible[i] = the lanes that see key begin + i. Returns the lanes that see
// any of them; *all becomes whether all lanes see all of them.
inline uint32_t FindVisible(const AttentionOptions& options,
                            const AttentionPlan& plan, const Sequence& sequence,
                            const QueryLanes& lanes, int64_t begin, int64_t end,
                            uint32_t* visible, bool* all) {
  const int64_t count = end - begin;
  for (int64_t i = 0; i < count; ++i) visible[i] = kAllLanes;
  if (begin < lanes.last - plan.before || end > lanes.first + plan.after + 1)
    HideByPosition(plan, lanes, begin, count, visible);
  if (sequence.key_mask)
    for (int64_t i = 0; i < count; ++i)
      if (!sequence.key_mask[begin + i]) visible[i] = 0;
  if (options.mask)
    HideByMask(options, plan.group, sequence, lanes, begin, count, visible);
  const uint32_t used = UsedLanes(lanes.rows);
  uint32_t any = 0, every = kAllLanes;
  for (int64_t i = 0; i < count; ++i) {
    any |= visible[i];
    every &= visible[i];
  }
  *all = (every & used) == used;
  return any & used;
}

// Leaves out of keys [*begin, *end) those at both ends that no lane sees, in
// whole groups of rows: a causal mask or a window that came as a mask costs
// little more than as what it is. `visible` are the bits of *begin; returns
// those of the new one. A lane sees one of the keys.
inline uint32_t* TrimKeys(uint32_t used, uint32_t* visible, int64_t* begin,
                          int64_t* end) {
  int64_t last = *end - *begin, first = 0;
  while (!(visible[last - 1] & used)) --last;
  while (!(visible[first] & used)) ++first;
  first = first / kRows * kRows;
  *end = Min(*end, *begin + first + RoundUp(last - first, kRows));
  *begin += first;
  return visible + first;
}

// bias[i][lane] of keys begin + i, transposed into the lanes.
inline void GatherBias(const AttentionOptions& options,
                       const Sequence& sequence, const QueryLanes& lanes,
                       int64_t begin, int64_t end, float* to) {
  const ScoreStrides& strides = options.bias_strides;
  const float* bias = static_cast<const float*>(options.bias) +
                      sequence.b * strides.batch + begin * strides.key;
  const int64_t count = end - begin;
  const float* rows[kQueryTile];
  for (int i = 0; i < kQueryTile; ++i)
    rows[i] =
        bias + lanes.head[i] * strides.head + lanes.position[i] * strides.query;
  int64_t done = 0;
  if (strides.key == 1) {
    for (; done + kLanes <= count; done += kLanes)
      for (int v = 0; v < lanes.vectors; ++v) {
        Vec block[kLanes];
        for (int i = 0; i < kLanes; ++i)
          block[i] = Load(rows[v * kLanes + i] + done);
        Transpose(block);
        for (int i = 0; i < kLanes; ++i)
          Store(to + (done + i) * kQueryTile + v * kLanes, block[i]);
      }
  }
  for (; done < count; ++done)
    for (int i = 0; i < kQueryTile; ++i)
      to[done * kQueryTile + i] = rows[i][done * strides.key];
}

inline void FindKept(const AttentionOptions& options,
                     const ScoreConstants& constants, const Sequence& sequence,
                     const QueryLanes& lanes, int64_t begin, int64_t end,
                     uint32_t* keep) {
  for (int64_t i = 0; i < end - begin; ++i) keep[i] = 0;
  for (int v = 0; v < lanes.vectors; ++v) {
    VecUint head, position;
    std::memcpy(&head, lanes.head + v * kLanes, sizeof head);
    std::memcpy(&position, lanes.position + v * kLanes, sizeof position);
    AddDropoutBits(constants.dropout_threshold, options.dropout_seed,
                   static_cast<uint32_t>(sequence.b), head, position, begin,
                   end, v * kLanes, keep);
  }
}

// The score of a product: scale, soft cap, bias; the product itself if there is
// nothing but a scale, which the factor of the exponent then contains. `slope`
// becomes the derivative of the soft cap.
inline Vec Transform(const ScoreConstants& constants, Vec product,
                     const float* bias, Vec* slope) {
  *slope = Broadcast(1.0f);
  if (!constants.transformed) return product;
  Vec score = product * constants.scale;
  if (constants.soft_cap > 0) {
    const Vec t = Tanh(score / constants.soft_cap);
    *slope = 1.0f - t * t;
    score = t * constants.soft_cap;
  }
  return bias ? score + Load(bias) : score;
}

}  // namespace
}  // namespace hw3tf
