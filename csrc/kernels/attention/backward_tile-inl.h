// The backward pass, first step: p and dS of a block of query rows against a
// chunk of keys.
//
// With p = 2^(factor * (product - maximum)) / sum recomputed, from the same
// products in the same order as in the forward pass:
//
//   dV += p^T dO,  dS = p * (dO V^T - D),  dK += scale * dS^T Q,
//   dQ += scale * dS K
//
// where D = sum(dO * O) per query (Dao 2023, arXiv:2307.08691, Algorithm 2).
// p and dS are kept [key][query], for one block at a time.

#pragma once

#include "kernels/attention/backward_rows-inl.h"

namespace hw3tf {
namespace {

// p and dS of R keys that every lane sees, with no terms but the scale.
template <int V>
struct PlainGradients {
  const BackwardScratch& scratch;
  int64_t tile;
  int64_t first_key;  // of the chunk
  int64_t head_dim;
  int64_t value_dim;
  float factor;
  Prefetcher* prefetcher;

  template <int R>
  void Run(int64_t offset) const {
    prefetcher->Step();
    const int64_t key = first_key + offset;
    const int64_t column = tile * kQueryTile;
    float* const weights = scratch.weights + key * kBackwardRows + column;
    float* const grads = scratch.score_grads + key * kBackwardRows + column;
    {
      Vec score[R][V] = {};
      MultiplyAdd<R, V, Contiguous::kAlongDepth>(
          {scratch.key + key * scratch.key_size, scratch.key_size},
          {scratch.query_columns + tile * head_dim * kQueryTile, kQueryTile},
          head_dim, score);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) {
        const Vec maximum = Load(scratch.maximum + column + v * kLanes);
        const Vec inverse_sum = Load(scratch.inverse_sum + column + v * kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
          Store(weights + r * kBackwardRows + v * kLanes,
                Exp2((score[r][v] - maximum) * factor) * inverse_sum);
      }
    }
    Vec grad[R][V] = {};
    MultiplyAdd<R, V, Contiguous::kAlongDepth>(
        {scratch.value + key * scratch.value_size, scratch.value_size},
        {scratch.grad_columns + tile * value_dim * kQueryTile, kQueryTile},
        value_dim, grad);
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      const Vec dot = Load(scratch.output_dot_grad + column + v * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const Vec p = Load(weights + r * kBackwardRows + v * kLanes);
        Store(grads + r * kBackwardRows + v * kLanes, p * (grad[r][v] - dot));
      }
    }
  }
};

// Zeros p and dS of keys [begin, end) of the chunk in one tile.
inline void HideKeys(const BackwardScratch& scratch, int64_t tile,
                     int64_t begin, int64_t end) {
  for (int64_t key = begin; key < end; ++key) {
    scratch.visible[tile * kKeyChunk + key] = 0;
    for (int v = 0; v < 2; ++v) {
      const int64_t at = key * kBackwardRows + tile * kQueryTile + v * kLanes;
      Store(scratch.weights + at, Vec{});
      Store(scratch.score_grads + at, Vec{});
    }
  }
}

// p of `count` keys from their products, in place in scratch.weights; the
// derivative of the soft cap goes to scratch.slope.
inline void RecomputeWeights(const BackwardContext& context,
                             const QueryLanes& lanes, int64_t tile,
                             int64_t first_key, int64_t count,
                             const Terms& terms) {
  const BackwardScratch& scratch = context.scratch;
  for (int v = 0; v < lanes.vectors; ++v) {
    const int64_t column = tile * kQueryTile + v * kLanes;
    const Vec maximum = Load(scratch.maximum + column);
    const Vec inverse_sum = Load(scratch.inverse_sum + column);
    for (int64_t k = 0; k < count; ++k) {
      float* at = scratch.weights + (first_key + k) * kBackwardRows + column;
      const int64_t term = k * kQueryTile + v * kLanes;
      Vec slope;
      const Vec score =
          Transform(context.constants, Load(at),
                    terms.bias ? terms.bias + term : nullptr, &slope);
      Vec p = Exp2((score - maximum) * context.constants.factor) * inverse_sum;
      // Lanes that see nothing at all: the score may be anything.
      p = Select(inverse_sum == Vec{}, Vec{}, p);
      if (terms.visible) {
        const VecInt sees = LanesOf(terms.visible[k], v * kLanes);
        p = Select(sees, p, Vec{});
        slope = Select(sees, slope, Vec{});
      }
      Store(at, p);
      if (context.constants.soft_cap > 0) Store(scratch.slope + term, slope);
    }
  }
}

// dS of `count` keys from dO V^T, in place in scratch.score_grads; with
// dropout, p becomes the weights that the values had.
inline void ApplyGradTerms(const BackwardContext& context,
                           const QueryLanes& lanes, int64_t tile,
                           int64_t first_key, int64_t count,
                           const Terms& terms) {
  const BackwardScratch& scratch = context.scratch;
  const float keep_scale = context.constants.keep_scale;
  for (int v = 0; v < lanes.vectors; ++v) {
    const int64_t column = tile * kQueryTile + v * kLanes;
    const Vec dot = Load(scratch.output_dot_grad + column);
    for (int64_t k = 0; k < count; ++k) {
      const int64_t at = (first_key + k) * kBackwardRows + column;
      const Vec p = Load(scratch.weights + at);
      Vec grad = Load(scratch.score_grads + at);
      if (terms.keep) {
        const VecInt kept = LanesOf(terms.keep[k], v * kLanes);
        grad = Select(kept, grad * keep_scale, Vec{});
        Store(scratch.weights + at, Select(kept, p * keep_scale, Vec{}));
      }
      grad = p * (grad - dot);
      // Where p is 0 the product might be 0 * NaN of a value that is not seen.
      if (terms.visible)
        grad = Select(LanesOf(terms.visible[k], v * kLanes), grad, Vec{});
      Store(scratch.score_grads + at, grad);
    }
  }
}

// Adds dS of one tile to grad_bias, which differs between queries, when the
// turn of this chunk has come.
inline void AddGradBias(const BackwardContext& context, const QueryLanes& lanes,
                        int64_t tile, int64_t first_key, int64_t count) {
  const ScoreStrides& strides = context.shared.grad_bias_strides;
  float* const bias = static_cast<float*>(context.args.grad_bias) +
                      context.sequence.b * strides.batch +
                      (context.task.first + first_key) * strides.key;
  const float* const grads = context.scratch.score_grads +
                             first_key * kBackwardRows + tile * kQueryTile;
  for (int v = 0; v < lanes.vectors; ++v) {
    const int first = v * kLanes;
    const int rows = static_cast<int>(Min(kLanes, lanes.rows - first));
    const auto row = [&](int i) {
      return bias + lanes.head[first + i] * strides.head +
             lanes.position[first + i] * strides.query;
    };
    int64_t k = 0;
    for (; k + kLanes <= count; k += kLanes) {
      Vec block[kLanes];
      for (int i = 0; i < kLanes; ++i)
        block[i] = Load(grads + (k + i) * kBackwardRows + first);
      Transpose(block);
      for (int i = 0; i < rows; ++i)
        Store(row(i) + k, Load(row(i) + k) + block[i]);
    }
    for (; k < count; ++k)
      for (int i = 0; i < rows; ++i)
        row(i)[k] += grads[k * kBackwardRows + first + i];
  }
}

// The same where all queries share a row of bias: summed in the task first.
inline void SumGradBias(const BackwardContext& context, const QueryLanes& lanes,
                        int64_t tile, int64_t first_key, int64_t count) {
  const int64_t first_head = context.task.kv_head * context.plan.group;
  const float* const grads = context.scratch.score_grads +
                             first_key * kBackwardRows + tile * kQueryTile;
  for (int64_t k = 0; k < count; ++k)
    for (int lane = 0; lane < lanes.rows; ++lane)
      context.scratch.grad_bias[(lanes.head[lane] - first_head) * kKeyChunk +
                                first_key + k] +=
          grads[k * kBackwardRows + lane];
}

// The lanes that see any key at all. The others are zeros, and must not be
// multiplied with a NaN that they do not see.
inline uint32_t SeeingLanes(const BackwardScratch& scratch,
                            const QueryLanes& lanes, int64_t tile) {
  uint32_t seeing = 0;
  for (int i = 0; i < lanes.rows; ++i)
    if (scratch.inverse_sum[tile * kQueryTile + i] != 0) seeing |= 1u << i;
  return seeing;
}

// Keys [begin, end) of the chunk, all of which every lane sees, in one tile.
template <int V>
inline void GradientsOfPlainKeys(const BackwardContext& context, int64_t tile,
                                 int64_t begin, int64_t end) {
  if (begin >= end) return;
  for (int64_t key = begin; key < end; ++key)
    context.scratch.visible[tile * kKeyChunk + key] = kAllLanes;
  ForRowGroups(end - begin,
               PlainGradients<V>{context.scratch, tile, begin,
                                 context.args.shape.head_dim,
                                 context.args.shape.value_dim,
                                 context.constants.factor, context.prefetcher});
}

// Keys [begin, end) of the chunk that have terms, in one tile. Returns whether
// every lane sees all of them.
template <int V>
inline bool GradientsWithTerms(const BackwardContext& context,
                               const QueryRows& block, int64_t tile,
                               int64_t begin, int64_t end) {
  if (begin >= end) return true;
  const AttentionShape& shape = context.args.shape;
  const AttentionOptions& options = context.args.options;
  const BackwardScratch& scratch = context.scratch;
  const QueryLanes& lanes = block.lanes[tile];
  const int64_t first_key = context.task.first;
  uint32_t* visible = scratch.visible + tile * kKeyChunk + begin;
  bool all;
  uint32_t any = FindVisible(options, context.plan, context.sequence, lanes,
                             first_key + begin, first_key + end, visible, &all);
  const uint32_t seeing = SeeingLanes(scratch, lanes, tile);
  any &= seeing;
  all = all && seeing == UsedLanes(lanes.rows);
  if (all && !context.constants.transformed && !context.constants.dropout) {
    GradientsOfPlainKeys<V>(context, tile, begin, end);
    return true;
  }
  for (int64_t key = 0; key < end - begin; ++key) visible[key] &= seeing;
  if (any == 0) {
    HideKeys(scratch, tile, begin, end);
    return false;
  }
  if (!all) {
    const int64_t all_begin = begin, all_end = end;
    visible = TrimKeys(seeing, visible, &begin, &end);
    HideKeys(scratch, tile, all_begin, begin);
    HideKeys(scratch, tile, end, all_end);
  }
  const int64_t first = first_key + begin, count = end - begin;
  Terms terms{all ? nullptr : visible, nullptr, nullptr};
  if (options.bias) {
    GatherBias(options, context.sequence, lanes, first, first + count,
               scratch.bias);
    terms.bias = scratch.bias;
  }
  if (context.constants.dropout) {
    FindKept(options, context.constants, context.sequence, lanes, first,
             first + count, scratch.keep);
    terms.keep = scratch.keep;
  }
  const int64_t at = begin * kBackwardRows + tile * kQueryTile;
  Multiply<Contiguous::kAlongDepth>(
      {{scratch.key + begin * scratch.key_size, scratch.key_size},
       {scratch.query_columns + tile * shape.head_dim * kQueryTile, kQueryTile},
       shape.head_dim,
       scratch.weights + at,
       kBackwardRows,
       V * kLanes,
       /*accumulate=*/false,
       context.prefetcher},
      count);
  RecomputeWeights(context, lanes, tile, begin, count, terms);
  Multiply<Contiguous::kAlongDepth>(
      {{scratch.value + begin * scratch.value_size, scratch.value_size},
       {scratch.grad_columns + tile * shape.value_dim * kQueryTile, kQueryTile},
       shape.value_dim,
       scratch.score_grads + at,
       kBackwardRows,
       V * kLanes,
       /*accumulate=*/false,
       context.prefetcher},
      count);
  ApplyGradTerms(context, lanes, tile, begin, count, terms);
  // A bias that does not differ between keys has no gradient here: a shift of
  // all scores changes no weight (attention.cc adds that of the logsumexp).
  if (context.args.grad_bias && options.bias_strides.key != 0) {
    if (options.bias_strides.query == 0)
      SumGradBias(context, lanes, tile, begin, count);
    else if (!context.adds_bias_late)
      AddGradBias(context, lanes, tile, begin, count);
  }
  if (context.constants.soft_cap > 0)
    for (int64_t k = 0; k < count; ++k)
      for (int v = 0; v < V; ++v) {
        float* grad = scratch.score_grads + at + k * kBackwardRows + v * kLanes;
        Store(grad,
              Load(grad) * Load(scratch.slope + k * kQueryTile + v * kLanes));
      }
  return all;
}

// p and dS of one tile against the chunk.
template <int V>
inline void TileGradients(const BackwardContext& context, int64_t tile,
                          QueryRows* block) {
  const AttentionOptions& options = context.args.options;
  const QueryLanes& lanes = block->lanes[tile];
  KeyRange range =
      FindKeyRange(context.plan, context.sequence, lanes.first, lanes.last);
  if (!lanes.taking_part) range.end = range.begin;
  const auto in_block = [&](int64_t key) {
    return Max(block->key_begin, Min(block->key_end, key - context.task.first));
  };
  const int64_t begin = in_block(range.begin), end = in_block(range.end);
  int64_t plain_begin = Max(begin, Min(end, in_block(range.full_begin)));
  int64_t plain_end = Max(plain_begin, Min(end, in_block(range.full_end)));
  if (context.constants.transformed || context.constants.dropout ||
      options.mask || context.sequence.key_mask ||
      SeeingLanes(context.scratch, lanes, tile) != UsedLanes(lanes.rows))
    plain_begin = plain_end = end;
  HideKeys(context.scratch, tile, block->key_begin, begin);
  HideKeys(context.scratch, tile, end, block->key_end);
  bool all = begin == block->key_begin && end == block->key_end;
  all &= GradientsWithTerms<V>(context, *block, tile, begin, plain_begin);
  all &= GradientsWithTerms<V>(context, *block, tile, plain_end, end);
  GradientsOfPlainKeys<V>(context, tile, plain_begin, plain_end);
  block->any_hidden |= !all;
}

// Second step: dV, dK and dQ of a block of query rows and a chunk of keys, from
// p and dS.

// to[0..size) += factor * from[0..size), for what is not finite of `from`;
// sizes are padded to vectors.
inline void AddNotFinite(float factor, const float* from, int64_t size,
                         float* to) {
  for (int64_t h = 0; h < size; h += kLanes) {
    const Vec x = Load(from + h), sum = Load(to + h);
    Store(to + h, Select(NotFinite(x), sum + factor * x, sum));
  }
}

// Whether a query sees a key of the chunk.
inline bool SeesKey(const BackwardScratch& scratch, int64_t row, int64_t key) {
  return scratch.visible[row / kQueryTile * kKeyChunk + key] >>
             row % kQueryTile &
         1;
}

// to[key][h] += a[key][query] * from[query][h], for what is not finite of
// `from` and the keys of [begin, end) that its query sees.
__attribute__((noinline, cold)) void AddToSeenKeys(
    const BackwardScratch& scratch, const QueryRows& block, int64_t begin,
    int64_t end, const float* a, const float* from, int64_t size, float* to) {
  for (int64_t row = 0; row < block.count; ++row) {
    const float* x = from + row * size;
    if (AllFinite(x, size, 1, size)) continue;
    for (int64_t key = begin; key < end; ++key)
      if (SeesKey(scratch, row, key))
        AddNotFinite(a[key * kBackwardRows + row], x, size, to + key * size);
  }
}

// The first run of keys that all queries of the block see.
inline void FindSeenByAll(const BackwardScratch& scratch,
                          const QueryRows& block, int64_t* begin,
                          int64_t* end) {
  const auto all_see = [&](int64_t key) {
    for (int64_t tile = 0; tile < block.tiles; ++tile) {
      const uint32_t used = UsedLanes(block.lanes[tile].rows);
      if ((scratch.visible[tile * kKeyChunk + key] & used) != used)
        return false;
    }
    return true;
  };
  *begin = block.key_begin;
  while (*begin < block.key_end && !all_see(*begin)) ++*begin;
  *end = *begin;
  while (*end < block.key_end && all_see(*end)) ++*end;
}

// grad_query[query][h] += dS[key][query] * key[key][h], likewise.
__attribute__((noinline, cold)) void AddSeenKeys(const BackwardScratch& scratch,
                                                 const QueryRows& block) {
  const int64_t size = scratch.key_size;
  for (int64_t key = block.key_begin; key < block.key_end; ++key) {
    const float* x = scratch.key + key * size;
    if (AllFinite(x, size, 1, size)) continue;
    for (int64_t row = 0; row < block.count; ++row)
      if (SeesKey(scratch, row, key))
        AddNotFinite(scratch.score_grads[key * kBackwardRows + row], x, size,
                     scratch.grad_query + row * size);
  }
}

// The three products of a block, from p and dS.
inline void MultiplyGradients(const BackwardContext& context,
                              const QueryRows& block) {
  const BackwardScratch& scratch = context.scratch;
  const int64_t first = block.key_begin, keys = block.key_end - first;
  const auto add_to_keys = [&](const float* a, const float* from, int64_t size,
                               float* to) {
    const auto multiply = [&](const float* rows, int64_t begin, int64_t end) {
      Multiply<Contiguous::kAlongDepth>(
          {{a + begin * kBackwardRows, kBackwardRows},
           {rows, size},
           block.count,
           to + begin * size,
           size,
           size,
           /*accumulate=*/true,
           context.prefetcher},
          end - begin);
    };
    if (!block.any_hidden || AllFinite(from, size, block.count, size)) {
      multiply(from, first, first + keys);
      return;
    }
    // Of a causal block most keys are seen by all its queries. By hand for all
    // keys, a gradient with upstream gradients of infinity, as a loss scale
    // that overflows gives them, took 8 to 21 times as long.
    int64_t begin, end;
    FindSeenByAll(scratch, block, &begin, &end);
    multiply(from, begin, end);
    CopyFinite(from, size, block.count, size, scratch.finite);
    const auto by_hand = [&](int64_t some, int64_t more) {
      multiply(scratch.finite, some, more);
      AddToSeenKeys(scratch, block, some, more, a, from, size, to);
    };
    by_hand(first, begin);
    by_hand(end, first + keys);
  };
  add_to_keys(scratch.weights, scratch.grad_rows, scratch.value_size,
              scratch.grad_value);
  add_to_keys(scratch.score_grads, scratch.query_rows, scratch.key_size,
              scratch.grad_key);
  const bool keys_by_hand = block.any_hidden && !context.keys_finite;
  const float* key = scratch.key;
  if (keys_by_hand) {
    CopyFinite(key, scratch.key_size, context.task.count, scratch.key_size,
               scratch.finite);
    key = scratch.finite;
  }
  Multiply<Contiguous::kAlongRows>(
      {{scratch.score_grads + first * kBackwardRows, kBackwardRows},
       {key + first * scratch.key_size, scratch.key_size},
       keys,
       scratch.grad_query,
       scratch.key_size,
       scratch.key_size,
       /*accumulate=*/false,
       context.prefetcher},
      block.count);
  if (keys_by_hand) AddSeenKeys(scratch, block);
}

}  // namespace
}  // namespace hw3tf
