// The scratch of a task of the forward pass, and its end: tiles, or parts of
// the keys, become output, statistics and logsumexp.

#pragma once

#include "kernels/attention_forward-inl.h"

namespace hw3tf {
namespace {

constexpr int kQueryBlock = 1024;  // at most (QueryBlock)
constexpr int kTilesPerBlock = kQueryBlock / kQueryTile;
constexpr AttentionTiles kTiles = {kQueryTile, kQueryBlock, kKeyTile,
                                   kKeyChunk};

// The scratch of one thread, carved from one array of floats.
struct ForwardScratch {
  float* query;          // [tiles][units of H][kQueryTile]
  float* output;         // [tiles], each as OutputLayout says
  float* statistics;     // [tiles][3][kQueryTile]: maximum, sum, tile sum
  float* products;       // [kKeyTile][kQueryTile]
  float* probabilities;  // [units of kKeyTile][kQueryTile]
  float* key;            // [kKeyTile][H]
  float* value;          // [kKeyTile][value_dim padded]
  float* finite_value;   // [kKeyTile][value_dim padded]
  float* rows;           // [kLanes][larger of H and value_dim, padded]
  double* value_sum;     // [value_dim padded]
  float* mean_value;     // [value_dim padded]
  TermsStorage* terms;
  float* bias;  // [kKeyTile][kQueryTile], if there is a bias
  float* end;

  ForwardScratch(const AttentionForwardArgs& args, float* base) {
    const AttentionShape& shape = args.shape;
    const int64_t key_size = PadToVector(shape.head_dim);
    const int64_t value_size = PadToVector(shape.value_dim);
    const int64_t block = QueryBlock(kTiles, shape);
    query = base;
    output = query + block * shape.head_dim;
    statistics = output + block * value_size;
    products = statistics + block * 3;
    probabilities = products + (kPairs ? kKeyTile * kQueryTile : 0);
    key = probabilities + kKeyTile / kUnitDepth * kQueryTile;
    value = key + kKeyTile * key_size;
    finite_value = value + kKeyTile * value_size;
    rows = finite_value + kKeyTile * value_size;
    value_sum =
        reinterpret_cast<double*>(rows + kLanes * Max(key_size, value_size));
    mean_value = reinterpret_cast<float*>(value_sum + value_size);
    terms = reinterpret_cast<TermsStorage*>(mean_value + value_size);
    bias = reinterpret_cast<float*>(terms + 1);
    end = bias + (args.options.bias ? kKeyTile * kQueryTile : 0);
  }
};

int64_t ForwardScratchFloats(const AttentionForwardArgs& args) {
  float* const base = nullptr;
  return ForwardScratch(args, base).end - base;
}

// Where the results of a task go: the caller's arrays, or the partial results.
struct Results {
  void* output;
  DType dtype;
  int64_t output_base, output_head, output_length;  // as FindOffsets takes them
  float* statistics;
  int64_t statistics_base, statistics_head, statistics_length;
  float* logsumexp;
};

inline Results FindResults(const ForwardContext& context,
                           const AttentionTask& task) {
  const AttentionForwardArgs& args = context.args;
  if (context.plan.splits > 1) {
    float* const first =
        PartialResults(args.shape, context.plan, task.b, /*head=*/0, /*t=*/0);
    const int64_t length = PartialFloats(args.shape);
    const int64_t head = args.shape.query_len * length;
    return {first + 2, DType::kFloat32, 0,      head, length, first, 0,
            head,      length,          nullptr};
  }
  const Strides& strides = args.output.strides;
  return {args.output.data,
          args.dtype,
          QueryOffset(strides, context.plan, context.sequence, 0),
          strides.head,
          strides.length,
          static_cast<float*>(args.statistics),
          2 * context.sequence.statistics,
          2 * context.plan.statistics_stride,
          2,
          static_cast<float*>(args.logsumexp)};
}

// Columns [first, first + kLanes) of an output, times `factor`, as rows.
// Returns those with something infinite or NaN.
inline VecInt TransposeColumns(const float* output, Vec factor, int64_t size,
                               int rows, float* const (&to)[kLanes]) {
  // NaN where a product is not finite: one operation, not the three that look
  // at exponents, which cost 1.5 % of the kernel at 128 positions.
  Vec zeros{};
  int64_t h = 0;
  for (; h + kLanes <= size; h += kLanes) {
    Vec block[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      block[i] = Load(output + (h + i) * kQueryTile) * factor;
      zeros += block[i] * 0.0f;
    }
    Transpose(block);
    if (rows == kLanes)
      for (int i = 0; i < kLanes; ++i) Store(to[i] + h, block[i]);
    else
      for (int i = 0; i < rows; ++i) Store(to[i] + h, block[i]);
  }
  for (; h < size; ++h) {
    const Vec column = Load(output + h * kQueryTile) * factor;
    zeros += column * 0.0f;
    for (int i = 0; i < rows; ++i) to[i][h] = column[i];
  }
  return zeros != zeros;
}

// A row of an output, times `factor`. Returns whether all of it is finite.
inline bool ScaleRow(const float* output, float factor, int64_t size,
                     float* to) {
  Vec zeros{};  // as above
  int64_t h = 0;
  for (; h + kLanes <= size; h += kLanes) {
    const Vec row = Load(output + h) * factor;
    zeros += row * 0.0f;
    Store(to + h, row);
  }
  bool finite = !AnyTrue(zeros != zeros);
  for (; h < size; ++h) {
    to[h] = output[h] * factor;
    finite = finite && __builtin_isfinite(to[h]);
  }
  return finite;
}

// Divides by the sums and writes the output of kLanes lanes, from `first` on.
// Returns the lanes whose output is not finite although their sum is finite and
// positive.
inline uint32_t FinishOutput(const ForwardContext& context,
                             const Results& results,
                             const ForwardScratch& scratch,
                             const QueryTileState& tile, int first,
                             uint32_t sees, const float* mean_value) {
  const int64_t size = context.args.shape.value_dim;
  const int rows = static_cast<int>(Min(kLanes, tile.lanes.rows - first));
  const bool is_float32 = results.dtype == DType::kFloat32;
  int64_t places[kLanes];
  FindOffsets(tile.lanes, first, results.output_base, results.output_head,
              results.output_length, places);
  // A row goes to its place at once, if that is float32.
  float* to[kLanes];
  for (int i = 0; i < kLanes; ++i)
    to[i] = is_float32 ? static_cast<float*>(results.output) + places[i]
                       : scratch.rows + i * PadToVector(size);
  const Vec sum = Load(tile.sum + first);
  const Vec inverse =
      context.constants.keep_scale / (tile.normalized ? Broadcast(1.0f) : sum);
  uint32_t special = 0;
  if (context.layout.rows) {
    for (int i = 0; i < rows; ++i)
      if ((sees >> i & 1) &&
          !ScaleRow(tile.output + (first + i) * context.layout.size, inverse[i],
                    size, to[i]))
        special |= 1u << i;
  } else if (sees) {
    special =
        BitsOf(TransposeColumns(tile.output + first, inverse, size, rows, to));
  }
  // Without a sum there are no weights: NaN, as it is.
  if (special) special &= sees & BitsOf((sum > Vec{}) & ~NotFinite(sum));
  if (is_float32 && sees == UsedLanes(rows)) return special;
  for (int i = 0; i < rows; ++i)
    if (!is_float32 || !(sees >> i & 1))
      NarrowRow(sees >> i & 1 ? to[i] : mean_value, results.dtype, size,
                Element(results.output, places[i], results.dtype));
  return special;
}

// Writes output, statistics and logsumexp of a tile. Returns whether an output
// is not finite although its sum is.
inline bool FinishTile(const ForwardContext& context, const Results& results,
                       const ForwardScratch& scratch,
                       const QueryTileState& tile, const float* mean_value) {
  const uint32_t seeing = tile.seeing & tile.lanes.taking_part;
  uint32_t special = 0;
  for (int v = 0; v < tile.lanes.vectors; ++v) {
    const int first = v * kLanes;
    const int rows = static_cast<int>(Min(kLanes, tile.lanes.rows - first));
    const uint32_t sees = seeing >> first & UsedLanes(rows);
    special |=
        FinishOutput(context, results, scratch, tile, first, sees, mean_value);
    int64_t places[kLanes];
    FindOffsets(tile.lanes, first, results.statistics_base,
                results.statistics_head, results.statistics_length, places);
    float logsumexp[kLanes];
    if (results.logsumexp)
      Store(logsumexp, LogSumExp(context.constants, Load(tile.maximum + first),
                                 Load(tile.sum + first)));
    for (int i = 0; i < rows; ++i) {
      float* const to = results.statistics + places[i];
      to[0] = tile.maximum[first + i];
      to[1] = tile.sum[first + i];
      const bool sees_nothing = !(sees >> i & 1);
      if (sees_nothing) MarkSeesNothing(to);
      if (results.logsumexp)
        results.logsumexp[places[i] / 2] =
            sees_nothing ? LogSumExpOfNothing(context.args) : logsumexp[i];
    }
  }
  return special != 0;
}

// The parts of the keys of one batch entry and head become output, statistics
// and logsumexp, in the order of the parts.
void MergeSplits(const AttentionForwardArgs& args, const AttentionPlan& plan,
                 int64_t b, int64_t head, float* base) {
  const AttentionShape& shape = args.shape;
  const ForwardScratch scratch(args, base);
  const Sequence& sequence = plan.sequences[b * plan.splits];
  const ForwardContext context{args,
                               plan,
                               sequence,
                               MakeScoreConstants(args.options, plan),
                               OutputLayout(shape),
                               nullptr,
                               nullptr,
                               nullptr,
                               nullptr,
                               nullptr,
                               nullptr};
  bool mean_known = false;
  for (int64_t t = 0; t < shape.query_len; ++t) {
    const auto part = [&](int64_t i) {
      return PartialResults(shape, plan, b * plan.splits + i, head, t);
    };
    // A part that is seen but has no weight, all scores -infinity, counts as
    // seen and adds nothing.
    const auto weighs = [&](const float* p) {
      return !SeesNothing(p) && p[1] != 0.0f;
    };
    float maximum = -kInfinity;
    bool sees_nothing = true;
    for (int64_t i = 0; i < plan.splits; ++i) {
      sees_nothing = sees_nothing && SeesNothing(part(i));
      if (weighs(part(i)) && !(part(i)[0] <= maximum)) maximum = part(i)[0];
    }
    if (sees_nothing) maximum = 0.0f;
    float sum = sees_nothing ? kSumOfNothing : 0.0f;
    float* const output = scratch.rows;
    const auto weight_of = [&](const float* from) {
      const Vec rescale =
          Exp2(Broadcast((from[0] - maximum) * context.constants.factor));
      return from[1] * rescale[0];
    };
    for (int64_t h = 0; h < shape.value_dim; ++h) output[h] = 0.0f;
    for (int64_t i = 0; i < plan.splits; ++i) {
      const float* from = part(i);
      if (!weighs(from)) continue;
      const float weight = weight_of(from);
      sum += weight;
      for (int64_t h = 0; h < shape.value_dim; ++h)
        output[h] += weight * from[2 + h];
    }
    // Large outputs times weights above 1: the same with weights of at most 1.
    bool finite = true;
    for (int64_t h = 0; h < shape.value_dim; ++h)
      finite = finite && __builtin_isfinite(output[h]);
    if (!finite && __builtin_isfinite(sum) && sum > 0) {
      for (int64_t h = 0; h < shape.value_dim; ++h) output[h] = 0.0f;
      for (int64_t i = 0; i < plan.splits; ++i) {
        const float* from = part(i);
        if (!weighs(from)) continue;
        const float share = weight_of(from) / sum;
        for (int64_t h = 0; h < shape.value_dim; ++h)
          output[h] += share * from[2 + h];
      }
    }
    const float divisor = finite ? sum : 1.0f;
    if (sees_nothing && !mean_known) {
      MeanValue(context, head / plan.group, scratch.rows, scratch.value_sum,
                scratch.mean_value);
      mean_known = true;
    }
    for (int64_t h = 0; h < shape.value_dim; ++h)
      output[h] = sees_nothing ? scratch.mean_value[h] : output[h] / divisor;
    WriteResults(args, plan, sequence, context.constants, head, t, output,
                 maximum, sum);
  }
}

}  // namespace
}  // namespace hw3tf
