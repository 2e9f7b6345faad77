// The interface between attention.cc and an instruction set: the table that the
// dispatch chooses, and the plan that its functions read. Not part of the
// contract; include attention.h instead. No STL here: the objects of the
// instruction sets include this file, and must share no inline function.

#pragma once

#include <cstdint>

#include "kernels/attention/attention.h"
#include "kernels/attention/visibility.h"

namespace hw3tf {

// One batch entry, in whatever form its masks and lengths came.
struct Sequence {
  int64_t b;                   // its index in the caller's arrays
  int64_t query_len, key_len;  // positions that exist
  int64_t query_end;           // queries from here on see no key
  int64_t key_begin, key_end;  // no query sees a key outside
  const uint8_t* query_mask;   // nullptr: all of [0, query_end) take part
  const uint8_t* key_mask;     // nullptr: all of [key_begin, key_end) do
  int64_t query_row, key_row;  // packed sequences: the first row
  int64_t statistics;          // of head 0 and query 0, counted in queries
};

// Work is cut into tasks: rows of queries, or keys, of one key/value head.
// Query heads that share a key/value head share its tasks: row r is query r /
// (N/K) of head r % (N/K) of the group. Keys are cut by shape and masks alone,
// and so are blocks of queries; a task of the forward pass may be a part of a
// block.
struct AttentionTask {
  int64_t b;  // index of the sequence in the plan
  int64_t kv_head;
  int64_t index;   // backward: of the chunk of keys within the batch entry
  int64_t pieces;  // how many of them there are
  int64_t first;   // query row, or key
  int64_t count;
  // Forward: the block of query rows, which decides the key tiles. Backward:
  // the query blocks that the task visits.
  int64_t block_first, block_count;
  // Backward: the queries are cut into so many ranges, of which this is one;
  // key chunk i begins at chunk_start + i * chunk_size.
  int64_t range = 0, ranges = 1;
  int64_t chunk_start = 0, chunk_size = 1;
};

// The plan of a call (plan.h makes it).
struct AttentionPlan {
  bool packed;
  int64_t group;              // N/K
  int64_t statistics_stride;  // from head to head, counted in queries
  // Query t sees keys t - before .. t + after; kUnlimited if there is no limit.
  int64_t before, after;
  bool transformed;  // scores, beyond their scale: soft cap or bias
  // More than 1: sequence b * splits + i holds part i of the keys of batch
  // entry b, and its results go to `partials`: per sequence, head and query,
  // the statistics and the output in float32.
  int64_t splits;
  float* partials;
  // Those with queries or keys; their index in here is the `b` of a task.
  const Sequence* sequences;
  int64_t num_sequences;
  const AttentionTask* tasks;  // in the order in which they are taken
  int64_t num_tasks;
  int64_t key_tile;  // keys of a tile of the forward pass, at most
  // The order of key chunks is 0, chunk_step, 2 * chunk_step, ..., then 1, 1 +
  // chunk_step, .... Under a window the chunks of such a round have no block of
  // queries in common, and do not wait for each other.
  int64_t chunk_step;
  // A thread that has taken a task is likely to come back for the one so many
  // later: a hint, no more.
  int64_t tasks_ahead;
};

// The sum in the statistics of a query that sees no key: no other is negative.
constexpr float kSumOfNothing = -1.0f;

// Decoding cuts the keys into parts; fewer are not worth a second pass.
constexpr int64_t kDecodeKeys = 512;

// Larger than any position, small enough to be added to one in 32 bits.
constexpr int64_t kUnlimited = int64_t{1} << 30;

// Data that the tasks of one backward pass share.
struct AttentionBackwardShared {
  // Per query: sum over value_dim of output * grad_output, less the gradient of
  // the logsumexp. Indexed as the statistics are. nullptr: the keys of a head
  // are one chunk, whose tasks compute them from their packed rows.
  float* output_dot_grad;
  // Per sequence of the plan and key/value head: the gradient that each value
  // gets from the queries that see no key, value_dim doubles.
  double* mean_grads;
  // Per sequence, key/value head and query block: how many of the key chunks
  // that it sees have been added to grad_query.
  int32_t* query_turns;
  // Per key chunk, sequence and key/value head: how many query ranges have been
  // added to `key_sums`: in float32, for each sequence and head, all dK of a
  // chunk and then its dV, rows padded to vectors. nullptr if the queries are
  // one range.
  int32_t* key_turns;
  float* key_sums;
  // How many have been added to grad_bias. Per key chunk, query block and, if
  // the bias differs between them, key/value head or batch entry: batch
  // entries, heads, or both. If the bias does not differ between queries, per
  // key chunk: batch entries, heads and query ranges.
  int32_t* bias_turns;
  int64_t query_blocks;  // of the longest sequence
  // Of grad_bias; 0 along the axes that the bias does not have.
  ScoreStrides grad_bias_strides;
  // grad_query in float32, [query][H], if the caller's is not float32.
  float* grad_query;
};

// Query rows of a block of the forward pass: as many as share the reading, and
// the copying, of one key tile, while queries and outputs stay in a cache of
// 512 KiB. On a Xeon with 2 MiB, 512 rows against 256 won 2-3 % (4096 and 2048
// keys, 8 heads), 1024 rows 3-6 %.
static inline int64_t QueryBlock(const AttentionTiles& tiles,
                                 const AttentionShape& shape) {
  constexpr int64_t kCachedFloats = int64_t{1} << 17;
  const int64_t rows = kCachedFloats / (shape.head_dim + shape.value_dim) /
                       tiles.query_tile * tiles.query_tile;
  const int64_t least = 4 * tiles.query_tile;
  return rows < least               ? least
         : rows > tiles.query_block ? tiles.query_block
                                    : rows;
}

// Some queries of one head in float64, and the rows of its keys and values.
constexpr int64_t kMaxFloat64Queries = 16;
struct Float64Tile {
  int64_t b, head, first, count;      // queries first .. first + count - 1
  Reach reach[kMaxFloat64Queries];    // of each; masks may hide some of it
  const double *query, *key, *value;  // row `first`; row 0 of the keys
  int64_t query_stride, key_stride, value_stride;
  double* output;  // row `first`
  int64_t output_stride;
  // The statistics.
  double top[kMaxFloat64Queries], sum[kMaxFloat64Queries];
};

// The gradients that belong to a tile, with the same rows.
struct Float64Gradients {
  const double* output;
  int64_t output_stride;
  // The gradient of the logsumexp less the sum of output * grad_output.
  double shift[kMaxFloat64Queries];
  double *query, *key, *value;  // key and value are added to
  int64_t query_stride, key_stride, value_stride;
};

// Tasks may run on any thread; a thread takes them in ascending order. Scratch
// counts floats, is aligned to 64 bytes, and belongs to one thread for the
// length of a task.
struct AttentionKernels {
  AttentionTiles tiles;
  int64_t backward_rows;  // query rows of a block of the backward pass

  int64_t (*forward_scratch)(const AttentionForwardArgs& args);
  void (*forward)(const AttentionForwardArgs& args, const AttentionPlan& plan,
                  const AttentionTask& task, float* scratch);

  // Merges the splits of one batch entry and head, if there are any.
  void (*merge_splits)(const AttentionForwardArgs& args,
                       const AttentionPlan& plan, int64_t b, int64_t head,
                       float* scratch);

  // For few queries: at most decode_rows per key/value head, keys hidden by
  // their range only, no other terms. The keys are split; a task is a part of
  // at most decode_chunk keys, with all its heads.
  int64_t decode_rows, decode_chunk;
  int64_t (*decode_scratch)(const AttentionForwardArgs& args);
  void (*decode)(const AttentionForwardArgs& args, const AttentionPlan& plan,
                 const AttentionTask& task, float* scratch);

  // One task per sequence and key/value head.
  void (*prepare_backward)(const AttentionBackwardArgs& args,
                           const AttentionPlan& plan,
                           const AttentionBackwardShared& shared, int64_t b,
                           int64_t kv_head);
  int64_t (*backward_scratch)(const AttentionBackwardArgs& args);
  void (*backward)(const AttentionBackwardArgs& args, const AttentionPlan& plan,
                   const AttentionBackwardShared& shared,
                   const AttentionTask& task, float* scratch);

  // Without soft cap and without the gradient of a bias. Scratch counts
  // doubles.
  int64_t float64_queries;  // of a tile, at most
  int64_t (*float64_scratch)(const AttentionShape& shape);
  // Writes the outputs that are finite. Bit i of the result is whether that of
  // query i is; the others are for the plain form. Statistics go to the tile.
  uint32_t (*forward_float64)(const AttentionShape& shape,
                              const AttentionOptions& options,
                              Float64Tile& tile, double* scratch);
  // If a gradient is not finite, all of the head are for the plain form.
  void (*backward_float64)(const AttentionShape& shape,
                           const AttentionOptions& options,
                           const Float64Tile& tile,
                           const Float64Gradients& grads, double* scratch);
};

// One per instruction set, each in an object of its own. Which of them exist is
// decided by CMakeLists.txt (HW3TF_HAVE_*).
extern const AttentionKernels kAttentionBase;
extern const AttentionKernels kAttentionAvx2;
extern const AttentionKernels kAttentionAvx512;
// Forward in bfloat16 only, by products of pairs.
extern const AttentionKernels kAttentionAvx512Bfloat16;

}  // namespace hw3tf
