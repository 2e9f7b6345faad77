// Data that the steps of the backward pass share, and the packing of a block of
// queries.

#pragma once

#include "kernels/attention/row_prefetch-inl.h"
#include "kernels/attention/terms-inl.h"

namespace hw3tf {
namespace {

// Query rows of a block. They are packed once per chunk: the longer the chunk,
// the less of it. With chunks of 512 keys on a Xeon, 64 rows are as fast as 128
// and 2-3 % faster than those with chunks of 256, at H = 64 and 128; 256 rows
// lost 2-6 %, chunks of 1024 keys won 3 % at S = 512 and lost 3-6 % beyond.
constexpr int kBackwardRows = 64;
constexpr int kBackwardTiles = kBackwardRows / kQueryTile;

// The scratch of one thread, carved from one array of floats.
struct BackwardScratch {
  int64_t key_size, value_size;  // padded to whole vectors
  float* key;                    // [kKeyChunk][key_size]
  float* value;                  // [kKeyChunk][value_size]
  float* grad_key;               // [kKeyChunk][key_size]
  float* grad_value;             // [kKeyChunk][value_size]
  float* weights;                // [kKeyChunk][kBackwardRows]: p
  float* score_grads;            // [kKeyChunk][kBackwardRows]: dS
  float* query_columns;          // [tiles][H][kQueryTile]
  float* grad_columns;           // [tiles][value_dim][kQueryTile]: dO
  float* query_rows;             // [kBackwardRows][key_size]
  float* grad_rows;              // [kBackwardRows][value_size]: dO
  float* grad_query;             // [kBackwardRows][key_size], of this chunk
  float* maximum;                // [kBackwardRows], as in the statistics
  float* inverse_sum;            // [kBackwardRows]
  float* output_dot_grad;        // [kBackwardRows]
  float* finite;                 // [larger of kKeyChunk and kBackwardRows]
                                 // [larger of key_size and value_size]
  float* row;                    // [larger of key_size and value_size]
  uint32_t* visible;             // [tiles][kKeyChunk]
  uint32_t* keep;                // [kKeyChunk], of one tile
  float* bias;                   // [kKeyChunk][kQueryTile], of one tile
  float* slope;                  // the same
  float* grad_bias;              // [group][kKeyChunk]
  float* end;

  BackwardScratch(const AttentionBackwardArgs& args, float* base) {
    const AttentionShape& shape = args.shape;
    const AttentionOptions& options = args.options;
    key_size = PadToVector(shape.head_dim);
    value_size = PadToVector(shape.value_dim);
    key = base;
    value = key + kKeyChunk * key_size;
    grad_key = value + kKeyChunk * value_size;
    grad_value = grad_key + kKeyChunk * key_size;
    weights = grad_value + kKeyChunk * value_size;
    score_grads = weights + kKeyChunk * kBackwardRows;
    query_columns = score_grads + kKeyChunk * kBackwardRows;
    grad_columns = query_columns + kBackwardRows * shape.head_dim;
    query_rows = grad_columns + kBackwardRows * shape.value_dim;
    grad_rows = query_rows + kBackwardRows * key_size;
    grad_query = grad_rows + kBackwardRows * value_size;
    maximum = grad_query + kBackwardRows * key_size;
    inverse_sum = maximum + kBackwardRows;
    output_dot_grad = inverse_sum + kBackwardRows;
    finite = output_dot_grad + kBackwardRows;
    row = finite + Max(kKeyChunk, kBackwardRows) * Max(key_size, value_size);
    visible = reinterpret_cast<uint32_t*>(row + Max(key_size, value_size));
    keep = visible + kBackwardTiles * kKeyChunk;
    bias = reinterpret_cast<float*>(keep + kKeyChunk);
    slope = bias + (options.bias ? kKeyChunk * kQueryTile : 0);
    grad_bias = slope + (options.soft_cap > 0 ? kKeyChunk * kQueryTile : 0);
    const bool sums = args.grad_bias && options.bias_strides.query == 0;
    end = grad_bias +
          (sums ? shape.num_heads / shape.num_kv_heads * kKeyChunk : 0);
  }
};

// What the steps of one task share.
struct BackwardContext {
  const AttentionBackwardArgs& args;
  const AttentionPlan& plan;
  const AttentionBackwardShared& shared;
  const Sequence& sequence;
  const AttentionTask& task;
  const BackwardScratch& scratch;
  ScoreConstants constants;
  bool keys_finite;
  // Whether the gradient of a bias that tasks share takes dS when it is there
  // for the whole block: a task whose turn has come lets the next one go on
  // after microseconds.
  bool adds_bias_late;
  Prefetcher* prefetcher;
};

// Query rows [first, first + rows) of the task's group of heads.
struct QueryRows {
  int64_t index;  // of the block
  int64_t first, count;
  int64_t tiles;
  QueryLanes lanes[kBackwardTiles];
  // Keys of the chunk that some lane of some tile sees, relative to the chunk.
  int64_t key_begin, key_end;
  bool any_hidden;  // some lane does not see one of them
  // The place of this chunk among those that add to these queries, and their
  // number. -1: it does not.
  int64_t turn, turns;
};

// sum(output * grad_output) of kLanes queries, in the order in which the
// products of grad_output with the values are summed: where one key takes all,
// the two are equal bit for bit, and their difference, the gradient of the
// score, is 0 and not rounding. Rows of `outputs` are padded to vectors.
inline Vec DotColumns(const float* outputs, int64_t stride, const float* grads,
                      int64_t size) {
  Vec dot{};
  for (int64_t h = 0; h < size; h += kLanes) {
    Vec block[kLanes];
    for (int i = 0; i < kLanes; ++i) block[i] = Load(outputs + i * stride + h);
    Transpose(block);
    const int columns = static_cast<int>(Min(kLanes, size - h));
    for (int i = 0; i < columns; ++i)
      dot += block[i] * Load(grads + (h + i) * kQueryTile);
  }
  return dot;
}

// Packs kLanes queries and their output gradients, as columns and as rows.
// Queries that see no key become zeros with an inverse sum of 0, so that p is 0
// and nothing comes of them; so do the lanes beyond the last.
inline void PackQueryLanes(const BackwardContext& context,
                           const QueryLanes& lanes, int64_t tile, int v) {
  const AttentionBackwardArgs& args = context.args;
  const BackwardScratch& scratch = context.scratch;
  const int64_t size = args.shape.head_dim, value_dim = args.shape.value_dim;
  const auto* statistics = static_cast<const float*>(args.statistics);
  const auto* grad_logsumexp = static_cast<const float*>(args.grad_logsumexp);
  const float* const dots = context.shared.output_dot_grad;
  const int64_t first_row = tile * kQueryTile + v * kLanes;
  int64_t queries[kLanes];
  FindOffsets(lanes, v * kLanes, context.sequence.statistics,
              context.plan.statistics_stride, 1, queries);
  bool used[kLanes];
  for (int i = 0; i < kLanes; ++i)
    used[i] = v * kLanes + i < lanes.rows &&
              !SeesNothing(statistics + 2 * queries[i]);
  const auto widen = [&](const ConstArray& array, int64_t count, int64_t padded,
                         float* to, const float*(&rows)[kLanes]) {
    int64_t offsets[kLanes];
    FindOffsets(lanes, v * kLanes,
                QueryOffset(array.strides, context.plan, context.sequence, 0),
                array.strides.head, array.strides.length, offsets);
    for (int i = 0; i < kLanes; ++i) {
      WidenRow(Element(array.data, used[i] ? offsets[i] : 0, args.dtype),
               args.dtype, used[i] ? count : 0, padded, to + i * padded);
      rows[i] = to + i * padded;
    }
  };
  const float* rows[kLanes];
  widen(args.query, size, scratch.key_size,
        scratch.query_rows + first_row * scratch.key_size, rows);
  PackColumns(rows, size, SignBits(args.options),
              scratch.query_columns + tile * size * kQueryTile + v * kLanes);
  float* const grad_columns =
      scratch.grad_columns + tile * value_dim * kQueryTile + v * kLanes;
  widen(args.grad_output, value_dim, scratch.value_size,
        scratch.grad_rows + first_row * scratch.value_size, rows);
  PackColumns(rows, value_dim, /*sign_bits=*/VecInt{}, grad_columns);
  Vec dot{};
  if (!dots) {
    widen(args.output, value_dim, scratch.value_size, scratch.finite, rows);
    dot =
        DotColumns(scratch.finite, scratch.value_size, grad_columns, value_dim);
  }
  for (int i = 0; i < kLanes; ++i) {
    const float* const at = statistics + 2 * queries[i];
    const int64_t row = first_row + i;
    scratch.maximum[row] = used[i] ? at[0] : 0.0f;
    scratch.inverse_sum[row] = used[i] ? 1.0f / at[1] : 0.0f;
    float& output_dot_grad = scratch.output_dot_grad[row];
    output_dot_grad = 0.0f;
    if (!used[i]) continue;
    output_dot_grad = dots ? dots[queries[i]] : dot[i];
    if (!dots && grad_logsumexp) output_dot_grad -= grad_logsumexp[queries[i]];
  }
}

// Packs a block of queries and of output gradients.
inline void PackQueryRows(const BackwardContext& context,
                          const QueryRows& block) {
  for (int64_t tile = 0; tile < block.tiles; ++tile)
    for (int v = 0; v < block.lanes[tile].vectors; ++v)
      PackQueryLanes(context, block.lanes[tile], tile, v);
}

}  // namespace
}  // namespace hw3tf
