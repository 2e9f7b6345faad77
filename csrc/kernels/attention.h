// Scaled dot-product attention on the CPU, fused and tiled, float32: the
// contract of the forward and the backward pass.
//
// This folder knows nothing of Python, NumPy or TensorFlow: pointers, sizes and
// strides in, pointers out. Callers validate (csrc/bindings, csrc/tensorflow);
// kernels only assert, in debug builds.

#pragma once

#include <cstdint>

namespace hw3tf {

// The sizes of one call. Letters as in keras.ops.dot_product_attention.
struct AttentionShape {
  int64_t batch;         // B
  int64_t query_len;     // T
  int64_t key_len;       // S, also the number of values; at least 1
  int64_t num_heads;     // N
  int64_t num_kv_heads;  // K, divides N: heads n*N/K .. (n+1)*N/K - 1 share
                         // key/value head n
  int64_t head_dim;      // H, of query and key
  int64_t value_dim;     // of value and output
};

// Elements (not bytes) from one index to the next; the last axis is contiguous.
struct Strides {
  int64_t batch;
  int64_t length;
  int64_t head;
};

// A (batch, length, heads, size) array, read through its strides, so that no
// caller transposes or copies.
struct ConstArray {
  const float* data;
  Strides strides;
};

struct MutableArray {
  float* data;
  Strides strides;
};

// What may be asked of a call beyond the product itself.
struct AttentionOptions {
  float scale = 1.0f;
  // Query t sees keys 0..t (top left, also for T != S):
  //   T = 2, S = 4: 1000   T = 4, S = 2: 10
  //                 1100                 11
  //                                      11
  //                                      11
  bool is_causal = false;
  // (B, T) and (B, S), C-contiguous, nonzero = takes part; nullptr = all do.
  const uint8_t* query_mask = nullptr;
  const uint8_t* key_mask = nullptr;
};

struct AttentionForwardArgs {
  AttentionShape shape;
  AttentionOptions options;
  ConstArray query;     // (B, T, N, H)
  ConstArray key;       // (B, S, K, H)
  ConstArray value;     // (B, S, K, value_dim)
  MutableArray output;  // (B, T, N, value_dim), overwritten
  float* statistics;    // (B, N, T, 2), overwritten; the backward pass needs it
};

struct AttentionBackwardArgs {
  AttentionShape shape;
  AttentionOptions options;  // those of the forward pass
  ConstArray query;
  ConstArray key;
  ConstArray value;
  ConstArray output;        // of the forward pass
  const float* statistics;  // of the forward pass
  ConstArray grad_output;   // (B, T, N, value_dim)
  MutableArray grad_query;
  MutableArray grad_key;
  MutableArray grad_value;
};

// output = softmax(scale * Q K^T) V for every batch entry and head, over the
// visible keys: a key is visible to a query if both masks and causality allow.
//
// The [T, S] scores are never stored. Keys are visited in tiles, and each query
// keeps a running maximum and a running sum (the online softmax of Milakov &
// Gimelshein 2018, arXiv:1805.02867; tiled as in Dao 2023, arXiv:2307.08691,
// Algorithm 1); it is divided by its sum once, at the end.
//
// The statistics of a query are a maximum m of sign(scale) * Q K^T and the sum
// of exp(|scale| * (sign(scale) * Q K^T - m)), so that logsumexp is |scale| * m
// + ln(sum). They are two numbers because one is not enough in float32: with
// scores around 3000, gradients from a rounded logsumexp were 15 times as wrong
// as those of Keras. m is raised lazily and may be a little low.
//
// A query with no visible key yields the mean of all S values, as in Keras,
// where the masked scores are equal and finite, and the statistics (+inf, 1),
// which mark it for the backward pass. What is not visible is not read into a
// result: NaN in a masked or causally hidden key or value reaches no query that
// does not see it. NaN in anything visible gives NaN.
//
// Outputs do not overlap inputs or each other. Every output row is computed by
// one task in one order: the result does not depend on `num_threads`, bit for
// bit. `num_threads` <= 0 means the pool's default (parallel.h).
//
// Cost: 2*B*N*T*S*(H + value_dim) flops, half if causal. Scratch: O(H * tile)
// per thread. Returns false, with nothing written, if that cannot be allocated.
bool AttentionForward(const AttentionForwardArgs& args, int num_threads);

// Gradients with respect to query, key and value, overwritten.
//
// Probabilities are recomputed from the statistics, tile by tile. Queries with
// no visible key give no gradient to query and key, and grad_output / S to
// every value. Keys that nothing sees get exact zeros. The order of every sum
// is fixed by the shape: the bits do not depend on `num_threads`.
//
// Cost: 2*B*N*T*S*(3*H + 2*value_dim) flops, half if causal. Scratch:
// O((H + tile) * tile) per thread and B*N*T floats. Returns false, with nothing
// written, if that cannot be allocated.
bool AttentionBackward(const AttentionBackwardArgs& args, int num_threads);

// Tile sizes of the instruction set in use, for tests of the lengths around
// them.
struct AttentionTiles {
  int query_tile;
  int query_block;
  int key_tile;
  int key_chunk;
};
AttentionTiles GetAttentionTiles();

}  // namespace hw3tf
