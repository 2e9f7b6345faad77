// The backward pass of one instruction set.
//
// A task holds a chunk of keys with its gradients and walks over the queries, a
// block at a time. With p = 2^(factor * (product - maximum)) / sum recomputed,
// from the same products in the same order as in the forward pass:
//
//   dV += p^T dO,  dS = scale * p * (dO V^T - D),  dK += dS^T Q,  dQ += dS K
//
// where D = sum(dO * O) per query (Dao 2023, arXiv:2307.08691, Algorithm 2).
// One buffer holds p and then dS, [key][query]: both products that need p are
// done before dS replaces it.
//
// dK and dV belong to the task. dQ is shared by the chunks of a head: they add
// to it in turn, in the order of the keys (shared.turns). Chunk c waits for
// chunk c - 1 at every block of queries; as tasks are taken in ascending order,
// the one waited for is always running or done. This keeps the bits the same
// for any number of threads and costs no memory, where partial sums per chunk
// would cost S / kKeyChunk times dQ.

#pragma once

#include <sched.h>

#include "kernels/attention_kernels.h"
#include "kernels/attention_pack-inl.h"

namespace hw3tf {
namespace {

constexpr int kKeyChunk = 128;

// The scratch of one thread, carved from one array of floats.
struct BackwardScratch {
  int64_t key_size, value_size;  // padded to whole vectors
  float* key;                    // [kKeyChunk][key_size]: the visible keys
  float* value;                  // [kKeyChunk][value_size]
  float* grad_key;               // [kKeyChunk][key_size]
  float* grad_value;             // [kKeyChunk][value_size]
  float* scores;                 // [kKeyChunk][kQueryBlock]: p, then dS
  float* query_columns;          // [tiles][H][kQueryTile]
  float* grad_columns;           // [tiles][value_dim][kQueryTile]: dO
  float* query_rows;             // [kQueryBlock][key_size]
  float* grad_rows;              // [kQueryBlock][value_size]: dO
  float* grad_query;             // [kQueryBlock][key_size], of this chunk
  float* maximum;                // [kQueryBlock], of the products
  float* inverse_sum;            // [kQueryBlock]
  float* output_dot_grad;        // [kQueryBlock]
  double* blind_sum;             // [value_size]
  int32_t* positions;            // [kKeyChunk]
  float* end;

  BackwardScratch(const AttentionShape& shape, float* base) {
    key_size = PadToVector(shape.head_dim);
    value_size = PadToVector(shape.value_dim);
    key = base;
    value = key + kKeyChunk * key_size;
    grad_key = value + kKeyChunk * value_size;
    grad_value = grad_key + kKeyChunk * key_size;
    scores = grad_value + kKeyChunk * value_size;
    query_columns = scores + kKeyChunk * kQueryBlock;
    grad_columns = query_columns + kQueryBlock * shape.head_dim;
    query_rows = grad_columns + kQueryBlock * shape.value_dim;
    grad_rows = query_rows + kQueryBlock * key_size;
    grad_query = grad_rows + kQueryBlock * value_size;
    maximum = grad_query + kQueryBlock * key_size;
    inverse_sum = maximum + kQueryBlock;
    output_dot_grad = inverse_sum + kQueryBlock;
    blind_sum = reinterpret_cast<double*>(output_dot_grad + kQueryBlock);
    positions = reinterpret_cast<int32_t*>(blind_sum + value_size);
    end = reinterpret_cast<float*>(positions + kKeyChunk);
  }
};

struct BackwardTask {
  int64_t b, kv_head;
  int64_t chunk;
  VisibleKeys keys;
  int64_t start, end;  // of the chunk
};

// A block of queries of one head.
struct QueryBlock {
  int64_t head;
  int64_t first, rows;
};

// p = 2^(factor * (product - maximum)) / sum of R keys against the lanes of one
// query tile.
template <bool kHide>
struct ProbabilityGroup {
  const BackwardScratch& scratch;
  const VisibleKeys& keys;
  int64_t first_key;    // index of key 0 of this range
  int64_t tile;         // of the block
  int64_t first_query;  // position of lane 0
  int64_t head_dim;
  float factor;  // |scale| * log2(e)

  template <int R>
  void Run(int64_t offset) const {
    const int64_t key = first_key + offset;
    Vec score[R][2] = {};
    MultiplyAdd<R, 2, Contiguous::kAlongDepth>(
        {scratch.key + key * scratch.key_size, scratch.key_size},
        {scratch.query_columns + tile * head_dim * kQueryTile, kQueryTile},
        head_dim, score);
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const int64_t column = tile * kQueryTile + v * kLanes;
      const Vec maximum = Load(scratch.maximum + column);
      const Vec inverse_sum = Load(scratch.inverse_sum + column);
      const VecInt query = Iota(static_cast<int32_t>(first_query) + v * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        Vec p = Exp2((score[r][v] - maximum) * factor) * inverse_sum;
        if (kHide) {
          const VecInt position = BroadcastInt(static_cast<int32_t>(
              KeyPosition(keys, scratch.positions, key + r)));
          p = Select(position <= query, p, Vec{});
        }
        Store(scratch.scores + (key + r) * kQueryBlock + column, p);
      }
    }
  }
};

// Replaces p by dS = scale * p * (dO V^T - D). kHide: where p is 0 the product
// might be 0 * NaN of a value that the query does not see.
template <bool kHide>
struct ScoreGradGroup {
  const BackwardScratch& scratch;
  int64_t first_key;
  int64_t tile;
  int64_t value_dim;
  float scale;

  template <int R>
  void Run(int64_t offset) const {
    const int64_t key = first_key + offset;
    Vec grad[R][2] = {};
    MultiplyAdd<R, 2, Contiguous::kAlongDepth>(
        {scratch.value + key * scratch.value_size, scratch.value_size},
        {scratch.grad_columns + tile * value_dim * kQueryTile, kQueryTile},
        value_dim, grad);
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const int64_t column = tile * kQueryTile + v * kLanes;
      const Vec dot = Load(scratch.output_dot_grad + column);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        float* at = scratch.scores + (key + r) * kQueryBlock + column;
        const Vec p = Load(at);
        const Vec ds = p * (grad[r][v] - dot) * scale;
        Store(at, kHide ? Select(p == Vec{}, p, ds) : ds);
      }
    }
  }
};

// Packs a block of queries and of output gradients, as columns and as rows.
// Rows beyond the end, and queries that see no key, become zeros with an
// inverse sum of 0, so that p is 0 and nothing comes of them.
inline void PackQueryBlock(const AttentionBackwardArgs& args,
                           const AttentionBackwardShared& shared, int64_t b,
                           const QueryBlock& block,
                           const BackwardScratch& scratch) {
  const AttentionShape& shape = args.shape;
  const int64_t first =
      (b * shape.num_heads + block.head) * shape.query_len + block.first;
  const float* query =
      Head(args.query, b, block.head) + block.first * args.query.strides.length;
  const float* grad = Head(args.grad_output, b, block.head) +
                      block.first * args.grad_output.strides.length;
  for (int64_t i = 0; i < kQueryBlock; i += kLanes) {
    const float* query_rows[kLanes];
    const float* grad_rows[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      const int64_t row = i + lane;
      const float* statistics = args.statistics + 2 * (first + row);
      const bool used = row < block.rows && !IsBlind(statistics);
      query_rows[lane] =
          used ? query + row * args.query.strides.length : nullptr;
      grad_rows[lane] =
          used ? grad + row * args.grad_output.strides.length : nullptr;
      scratch.maximum[row] = used ? statistics[0] : 0.0f;
      scratch.inverse_sum[row] = used ? 1.0f / statistics[1] : 0.0f;
      scratch.output_dot_grad[row] =
          used ? shared.output_dot_grad[first + row] : 0.0f;
    }
    const int64_t tile = i / kQueryTile, lane = i % kQueryTile;
    PackColumns(
        query_rows, shape.head_dim, Sign(args.options),
        scratch.query_columns + tile * shape.head_dim * kQueryTile + lane);
    PackColumns(
        grad_rows, shape.value_dim, /*sign=*/1.0f,
        scratch.grad_columns + tile * shape.value_dim * kQueryTile + lane);
    PackRows(query_rows, shape.head_dim, scratch.key_size,
             scratch.query_rows + i * scratch.key_size);
    PackRows(grad_rows, shape.value_dim, scratch.value_size,
             scratch.grad_rows + i * scratch.value_size);
  }
}

// Adds this chunk's part to grad_query when its turn comes.
inline void AddGradQuery(const AttentionBackwardArgs& args, int64_t b,
                         int64_t chunk, const QueryBlock& block,
                         const BackwardScratch& scratch, bool any_key,
                         int32_t* turn) {
  for (int spins = 0; __atomic_load_n(turn, __ATOMIC_ACQUIRE) != chunk;)
    if (++spins % 1024 == 0) sched_yield();
  const int64_t stride = args.grad_query.strides.length;
  float* out = Head(args.grad_query, b, block.head) + block.first * stride;
  for (int64_t i = 0; i < block.rows; ++i) {
    const float* part = scratch.grad_query + i * scratch.key_size;
    float* row = out + i * stride;
    const int64_t size = args.shape.head_dim;
    if (chunk == 0 && !any_key) {
      for (int64_t h = 0; h < size; ++h) row[h] = 0.0f;
    } else if (chunk == 0) {
      for (int64_t h = 0; h < size; ++h) row[h] = part[h];
    } else if (any_key) {
      for (int64_t h = 0; h < size; ++h) row[h] += part[h];
    }
  }
  __atomic_store_n(turn, static_cast<int32_t>(chunk + 1), __ATOMIC_RELEASE);
}

// One block of queries against the chunk: everything but the turn.
inline void BackwardBlock(const AttentionBackwardArgs& args,
                          const BackwardTask& task, const QueryBlock& block,
                          const BackwardScratch& scratch) {
  const AttentionShape& shape = args.shape;
  const VisibleKeys& keys = task.keys;
  const int64_t rows = RoundUp(block.rows, kQueryTile);
  for (int64_t tile = 0; tile * kQueryTile < rows; ++tile) {
    const int64_t first_query = block.first + tile * kQueryTile;
    int64_t full = keys.count, count = keys.count;
    if (args.options.is_causal) {
      full = CountUpTo(keys, scratch.positions, first_query);
      count = CountUpTo(keys, scratch.positions, first_query + kQueryTile - 1);
    }
    const float factor = Factor(args.options);
    ForRowGroups(full,
                 ProbabilityGroup<false>{scratch, keys, 0, tile, first_query,
                                         shape.head_dim, factor});
    ForRowGroups(count - full,
                 ProbabilityGroup<true>{scratch, keys, full, tile, first_query,
                                        shape.head_dim, factor});
    for (int64_t key = count; key < keys.count; ++key)
      for (int v = 0; v < 2; ++v)
        Store(
            scratch.scores + key * kQueryBlock + tile * kQueryTile + v * kLanes,
            Vec{});
  }
  Multiply<Contiguous::kAlongDepth>({{scratch.scores, kQueryBlock},
                                     {scratch.grad_rows, scratch.value_size},
                                     rows,
                                     scratch.grad_value,
                                     scratch.value_size,
                                     scratch.value_size,
                                     /*accumulate=*/true},
                                    keys.count);
  for (int64_t tile = 0; tile * kQueryTile < rows; ++tile) {
    const int64_t first_query = block.first + tile * kQueryTile;
    int64_t full = keys.count, count = keys.count;
    if (args.options.is_causal) {
      full = CountUpTo(keys, scratch.positions, first_query);
      count = CountUpTo(keys, scratch.positions, first_query + kQueryTile - 1);
    }
    const float scale = args.options.scale;
    ForRowGroups(
        full, ScoreGradGroup<false>{scratch, 0, tile, shape.value_dim, scale});
    ForRowGroups(count - full, ScoreGradGroup<true>{scratch, full, tile,
                                                    shape.value_dim, scale});
  }
  Multiply<Contiguous::kAlongDepth>({{scratch.scores, kQueryBlock},
                                     {scratch.query_rows, scratch.key_size},
                                     rows,
                                     scratch.grad_key,
                                     scratch.key_size,
                                     scratch.key_size,
                                     /*accumulate=*/true},
                                    keys.count);
  Multiply<Contiguous::kAlongRows>({{scratch.scores, kQueryBlock},
                                    {scratch.key, scratch.key_size},
                                    keys.count,
                                    scratch.grad_query,
                                    scratch.key_size,
                                    scratch.key_size,
                                    /*accumulate=*/false},
                                   block.rows);
}

}  // namespace
}  // namespace hw3tf
