// The options of attention.h for one query and one key: the lengths of a
// sequence, the place of its rows, and the keys that a query sees. No STL here:
// the objects of the instruction sets include this file.

#pragma once

#include <cstdint>

#include "kernels/attention/attention.h"

namespace hw3tf {

// Of sequence b: all are of the shape's length unless they are packed.
static inline int64_t QueryLength(const AttentionShape& shape,
                                  const AttentionOptions& options, int64_t b) {
  const int64_t* splits = options.query_splits;
  return splits ? splits[b + 1] - splits[b] : shape.query_len;
}

static inline int64_t KeyLength(const AttentionShape& shape,
                                const AttentionOptions& options, int64_t b) {
  const int64_t* splits = options.key_splits;
  return splits ? splits[b + 1] - splits[b] : shape.key_len;
}

// The place of (b, n, t) in statistics, in pairs, and in logsumexp.
static inline int64_t RowIndex(const AttentionShape& shape,
                               const AttentionOptions& options, int64_t b,
                               int64_t n, int64_t t) {
  const int64_t* splits = options.query_splits;
  return splits ? n * splits[shape.batch] + splits[b] + t
                : (b * shape.num_heads + n) * shape.query_len + t;
}

// The element before which row 0, head 0 of sequence b begins.
static inline int64_t SequenceOffset(const Strides& strides,
                                     const int64_t* splits, int64_t b) {
  return splits ? splits[b] * strides.length : b * strides.batch;
}

static inline int64_t ScoreOffset(const ScoreStrides& strides, int64_t b,
                                  int64_t n, int64_t t, int64_t s) {
  return b * strides.batch + n * strides.head + t * strides.query +
         s * strides.key;
}

struct Reach {
  int64_t begin;
  int64_t end;  // <= begin if there is no key
};

// Query t sees nothing outside of these keys; inside, masks may hide some.
static inline Reach ReachOf(const AttentionShape& shape,
                            const AttentionOptions& options, int64_t b,
                            int64_t t) {
  Reach keys{0, KeyLength(shape, options, b)};
  if (options.query_mask &&
      !options.query_mask[b * options.query_mask_stride + t])
    keys.end = 0;
  if (options.query_lengths && t >= options.query_lengths[b]) keys.end = 0;
  if (options.key_lengths && options.key_lengths[b] < keys.end)
    keys.end = options.key_lengths[b];
  if (options.is_causal && t + 1 < keys.end) keys.end = t + 1;
  if (options.window_before >= 0 && options.window_before < t)
    keys.begin = t - options.window_before;
  // Not t + window_after, which may overflow.
  if (options.window_after >= 0 && options.window_after < keys.end - 1 - t)
    keys.end = t + 1 + options.window_after;
  return keys;
}

// Whether a key in reach is visible.
static inline bool MasksAllow(const AttentionOptions& options, int64_t b,
                              int64_t n, int64_t t, int64_t s) {
  if (options.key_mask && !options.key_mask[b * options.key_mask_stride + s])
    return false;
  return !options.mask ||
         options.mask[ScoreOffset(options.mask_strides, b, n, t, s)];
}

static inline bool Sees(const AttentionShape& shape,
                        const AttentionOptions& options, int64_t b, int64_t n,
                        int64_t t, int64_t s) {
  const Reach keys = ReachOf(shape, options, b, t);
  return s >= keys.begin && s < keys.end && MasksAllow(options, b, n, t, s);
}

}  // namespace hw3tf
