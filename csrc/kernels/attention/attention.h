// Scaled dot-product attention on the CPU, fused and tiled: the contract of the
// forward and the backward pass.
//
// This folder knows nothing of Python, NumPy or TensorFlow: pointers, sizes and
// strides in, pointers out. Callers validate (csrc/bindings, csrc/jax,
// csrc/tensorflow); kernels only assert, in debug builds.

#pragma once

#include <cstdint>

#include "kernels/runtime/export.h"

namespace hw3tf {

// The type of query, key, value, output and their gradients. bfloat16 and
// float16 are read and written as such; scores, softmax and every sum are
// float32. "Real" below is double if the type is float64, otherwise float.
enum class DType { kFloat32, kBfloat16, kFloat16, kFloat64 };

// The sizes of one call. Letters as in keras.ops.dot_product_attention.
struct AttentionShape {
  int64_t batch;         // B
  int64_t query_len;     // T
  int64_t key_len;       // S, also the number of values
  int64_t num_heads;     // N
  int64_t num_kv_heads;  // K, divides N: heads n*N/K .. (n+1)*N/K - 1 share
                         // key/value head n
  int64_t head_dim;      // H, of query and key
  int64_t value_dim;     // of value and output
};

// Elements (not bytes) from one index to the next; the last axis is contiguous.
// A batch stride of 0: one batch entry serves all.
struct Strides {
  int64_t batch;
  int64_t length;
  int64_t head;
};

// A (batch, length, heads, size) array, read through its strides, so that no
// caller transposes or copies.
struct ConstArray {
  const void* data;
  Strides strides;
};

struct MutableArray {
  void* data;
  Strides strides;
};

// An array over the scores, (B, N, T, S), in elements; 0 along an axis of size
// 1, which thereby serves every index: no caller expands a mask or a bias.
struct ScoreStrides {
  int64_t batch;
  int64_t head;
  int64_t query;
  int64_t key;
};

// The options of a call. They apply in this order, as in Keras: scale, soft
// cap, bias, masks, softmax, dropout.
struct AttentionOptions {
  double scale = 1.0;

  // c > 0: a score x becomes c * tanh(x / c). 0: none.
  double soft_cap = 0.0;

  // Real, added to the scores; nullptr = none.
  const void* bias = nullptr;
  ScoreStrides bias_strides = {0, 0, 0, 0};

  // Query t sees keys 0..t (top left, also for T != S):
  //   T = 2, S = 4: 1000   T = 4, S = 2: 10
  //                 1100                 11
  //                                      11
  //                                      11
  bool is_causal = false;
  // Query t sees keys t - window_before .. t + window_after; negative = no
  // limit. Keras's sliding_window w is w - 1 on both sides.
  int64_t window_before = -1;
  int64_t window_after = -1;

  // Nonzero = visible; nullptr = all.
  const uint8_t* mask = nullptr;
  ScoreStrides mask_strides = {0, 0, 0, 0};
  // (B, T) and (B, S), nonzero = takes part; nullptr = all do. The strides lead
  // from one batch entry to the next: T and S, or 0 if all share one row.
  const uint8_t* query_mask = nullptr;
  const uint8_t* key_mask = nullptr;
  int64_t query_mask_stride = 0;
  int64_t key_mask_stride = 0;
  // (B), 0..T and 0..S: the cheap form of masks that begin with ones and end
  // with zeros; nullptr = all take part. A key_mask of that form is as cheap.
  const int32_t* query_lengths = nullptr;
  const int32_t* key_lengths = nullptr;

  // 0 <= rate < 1: a weight of the softmax is dropped with this probability,
  // the others are divided by 1 - rate. Which ones: dropout.h.
  double dropout_rate = 0.0;
  uint64_t dropout_seed = 0;

  // Packed sequences: both (B + 1), ascending from 0, or both nullptr. Sequence
  // b is rows query_splits[b] .. query_splits[b + 1] - 1 of query, output and
  // their gradients, and rows key_splits[b] .. of key and value; strides.batch
  // is ignored. T and S are the largest lengths. Statistics and logsumexp are
  // (N, query_splits[B], ...). A sequence may have no keys: its output is 0.
  const int64_t* query_splits = nullptr;
  const int64_t* key_splits = nullptr;
};

struct AttentionForwardArgs {
  DType dtype;
  AttentionShape shape;
  AttentionOptions options;
  ConstArray query;     // (B, T, N, H)
  ConstArray key;       // (B, S, K, H)
  ConstArray value;     // (B, S, K, value_dim)
  MutableArray output;  // (B, T, N, value_dim), overwritten
  void* statistics;     // Real (B, N, T, 2), overwritten; for the backward pass
  void* logsumexp;      // Real (B, N, T), overwritten; nullptr = not wanted
  // Whether the logsumexp of a query that sees no key is the lowest finite Real
  // instead of -infinity. TensorFlow's enable_check_numerics lets no infinity
  // pass, wherever it is used.
  bool finite_logsumexp = false;
};

struct AttentionBackwardArgs {
  DType dtype;
  AttentionShape shape;
  AttentionOptions options;  // those of the forward pass
  ConstArray query;
  ConstArray key;
  ConstArray value;
  ConstArray output;           // of the forward pass
  const void* statistics;      // of the forward pass
  ConstArray grad_output;      // (B, T, N, value_dim)
  const void* grad_logsumexp;  // Real (B, N, T); nullptr = zero
  // With a batch stride of 0 a gradient is summed over the batch.
  MutableArray grad_query;
  MutableArray grad_key;
  MutableArray grad_value;
  // Real, C-contiguous, of the shape of the bias, which is the size of the
  // scores on the axes with a stride and 1 on the others; nullptr = not wanted.
  void* grad_bias;
};

// output = softmax(scale * Q K^T ...) V for every batch entry and head, over
// the visible keys: a key is visible to a query if masks, lengths, causality
// and window all allow it.
//
// The [T, S] scores are never stored. Keys are visited in tiles, and each query
// keeps a running maximum and a running sum (the online softmax of Milakov &
// Gimelshein 2018, arXiv:1805.02867; tiled as in Dao 2023, arXiv:2307.08691,
// Algorithm 1); it is divided by its sum once, at the end.
//
// The statistics of a query are a maximum m and the sum of exp(score - m), so
// that logsumexp = m + ln(sum). With neither soft cap nor bias m is kept before
// the scale: it is a maximum of sign(scale) * Q K^T, and logsumexp = |scale| *
// m + ln(sum). One number would not be enough in float32: with scores around
// 3000, gradients from a rounded logsumexp were 15 times as wrong as those of
// Keras. m is raised lazily and may be a little low.
//
// A query with no visible key yields the mean of all S values, as in Keras,
// where the masked scores are equal and finite, or 0 if S is 0; the logsumexp
// -inf; and the statistics (0, -1), which mark it for the backward pass: no sum
// is negative. Dropout does not apply to it. Keys and values do not influence
// queries that do not see them: NaN in a masked one does not reach a result.
// NaN in anything visible gives NaN.
//
// Outputs must not overlap inputs or each other, except that `output` may be
// `query` itself. One task computes each output row, in one order: the result
// does not depend on `num_threads`, bit for bit. `num_threads` <= 0 means the
// pool's default (parallel.h).
//
// Cost: 2*B*N*T*S*(H + value_dim) flops, less for pairs that are not visible.
// Scratch: O(H * tile) per thread, in float64 O(H * tile + S), and where few
// queries stand against many keys, O(value_dim) for each of at most 64 tiles of
// queries. Returns false, with nothing written, if that cannot be allocated.
HW3TF_EXPORT bool AttentionForward(const AttentionForwardArgs& args,
                                   int num_threads);

// Gradients with respect to query, key, value and bias, overwritten.
//
// Probabilities are recomputed from the statistics, tile by tile. Queries with
// no visible key give no gradient to query, key and bias, and grad_output / S
// to every value. Keys that nothing sees get exact zeros. The order of every
// sum is fixed by the shape: the bits do not depend on `num_threads`.
//
// Cost: 2*B*N*T*S*(3*H + 2*value_dim) flops, less for pairs that are not
// visible. Scratch:
// O((H + tile) * tile) per thread, B*N*T floats, for bfloat16 and float16
// grad_query in float32, and B*K*S*(H + value_dim) floats where long queries
// stand against few keys or are causal. float64 may copy keys, values and their
// gradients of one head, at most 64 MiB per thread. Returns false, with nothing
// written, if that cannot be allocated.
HW3TF_EXPORT bool AttentionBackward(const AttentionBackwardArgs& args,
                                    int num_threads);

// The weights that dropout keeps: keep, (B, N, T, S), C-contiguous, becomes 1
// or 0. For references and tests; the kernels never build it.
HW3TF_EXPORT void AttentionDropoutMask(const AttentionShape& shape, double rate,
                                       uint64_t seed, uint8_t* keep);

// Tile sizes of the instruction set in use, for tests of the lengths around
// them.
struct AttentionTiles {
  int query_tile;
  int query_block;
  int key_tile;
  int key_chunk;
};
HW3TF_EXPORT AttentionTiles GetAttentionTiles();

}  // namespace hw3tf
