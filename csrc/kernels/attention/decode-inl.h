// Few queries against many keys, as when text is generated token by token:
// every key and value is read once, so the memory decides.
//
// A task takes a chunk of keys of one batch entry with all its heads, and reads
// them key by key, in the order of memory, which the processor foresees. On two
// cores of a Zen 4 4x1x4096x8x8x128 takes 2.9 ms, as fast as a plain sum over
// the same bytes. Reading 16 keys of one head before the next head, with
// prefetches, took 4.2 ms, 4 keys 5.3 ms; head by head, with the queries in the
// lanes (on a Xeon), 4 times as long.
//
// The lanes hold features, not queries: one query would leave all lanes but one
// empty. Each chunk yields a maximum, a sum and an output per
// query; a second pass merges them in the order of the chunks, so that the bits
// do not depend on the number of threads.

#pragma once

#include "kernels/attention/terms-inl.h"

namespace hw3tf {
namespace {

// Query rows per key/value head: more are faster with the queries in the lanes.
constexpr int kDecodeRows = 4;
constexpr int kDecodeChunk = 256;
// Decoding writes partial results, which only calls with several chunks merge.
static_assert(kDecodeKeys > kDecodeChunk, "one chunk would not be merged");
// With more rows than these, a key takes so much computation that the processor
// no longer reads ahead. The key after the next is then prefetched (4 rows: 1.2
// to 1.45 times as fast; 1 row: 5 % slower).
constexpr int kDecodeRowsForeseen = 2;
constexpr int kDecodeAhead = 2;

inline void PrefetchRow(const void* row, int64_t bytes) {
  constexpr int64_t kLine = 64;
  for (int64_t at = 0; at < bytes; at += kLine)
    __builtin_prefetch(static_cast<const char*>(row) + at, /*rw=*/0,
                       /*locality=*/2);
}
// Vector `h` .. of a row; zeros beyond `size`.
template <DType kType>
inline Vec LoadPart(const void* row, int64_t h, int64_t size) {
  if (h + kLanes <= size) {
    if (kType == DType::kFloat32)
      return Load(static_cast<const float*>(row) + h);
    if (kType == DType::kBfloat16)
      return WidenBfloat16(static_cast<const uint16_t*>(row) + h);
    if (kHasFloat16) return WidenFloat16(static_cast<const uint16_t*>(row) + h);
  }
  float part[kLanes];
  WidenRow(Element(row, h, kType), kType, Min(kLanes, size - h), kLanes, part);
  return Load(part);
}

struct DecodeScratch {
  float* query;       // [N][T][H padded]
  float* scores;      // [N][T][kDecodeChunk]
  float* output;      // [N][T][value_dim padded], not divided by the sum
  float* statistics;  // [N][T][2]
  float* end;

  DecodeScratch(const AttentionForwardArgs& args, float* base) {
    const int64_t rows = args.shape.num_heads * args.shape.query_len;
    query = base;
    scores = query + rows * PadToVector(args.shape.head_dim);
    output = scores + rows * kDecodeChunk;
    statistics = output + rows * PadToVector(args.shape.value_dim);
    end = statistics + rows * 2;
  }
};

int64_t DecodeScratchFloats(const AttentionForwardArgs& args) {
  float* const base = nullptr;
  return DecodeScratch(args, base).end - base;
}

// Sums over lanes, kLanes at a time: a transpose turns them into sums of
// vectors.
class LaneSums {
 public:
  // *to becomes the sum of the lanes of x, at the next Flush at the latest.
  inline void Add(Vec x, float* to) {
    Store(sums_ + size_ * kLanes, x);
    to_[size_] = to;
    if (++size_ == kLanes) Flush();
  }

  inline void Flush() {
    Vec block[kLanes];
    for (int i = 0; i < kLanes; ++i)
      block[i] = i < size_ ? Load(sums_ + i * kLanes) : Vec{};
    Transpose(block);
    for (int step = 1; step < kLanes; step *= 2)
      for (int i = 0; i + step < kLanes; i += 2 * step)
        block[i] += block[i + step];
    for (int i = 0; i < size_; ++i) *to_[i] = block[0][i];
    size_ = 0;
  }

 private:
  float sums_[kLanes * kLanes];
  float* to_[kLanes];
  int size_ = 0;
};

// Products of a key with the query rows of its head.
template <DType kType>
inline void DecodeScores(const void* key, const float* query, int64_t rows,
                         int64_t size, float* scores, LaneSums* sums) {
  const int64_t padded = PadToVector(size);
  for (int64_t row = 0; row < rows; ++row, query += padded) {
    Vec even{}, odd{};
    int64_t h = 0;
    for (; h + 2 * kLanes <= size; h += 2 * kLanes) {
      even += LoadPart<kType>(key, h, size) * Load(query + h);
      odd += LoadPart<kType>(key, h + kLanes, size) * Load(query + h + kLanes);
    }
    for (; h < size; h += kLanes)
      even += LoadPart<kType>(key, h, size) * Load(query + h);
    sums->Add(even + odd, scores + row * kDecodeChunk);
  }
}

// output[row] += weight of the row * value.
template <DType kType>
inline void DecodeValues(const void* value, const float* weights, int64_t rows,
                         int64_t size, float* output) {
  const int64_t padded = PadToVector(size);
  for (int64_t row = 0; row < rows; ++row, output += padded) {
    const Vec weight = Broadcast(weights[row * kDecodeChunk]);
    for (int64_t h = 0; h < size; h += kLanes)
      Store(output + h,
            Load(output + h) + LoadPart<kType>(value, h, size) * weight);
  }
}

// The scores of one query row become weights; their maximum and sum are its
// statistics.
inline void DecodeSoftmax(float* scores, int64_t count, float factor,
                          float* statistics) {
  Vec top = Broadcast(-kInfinity);
  for (int64_t i = count; i < RoundUp(count, kLanes); ++i)
    scores[i] = -kInfinity;
  for (int64_t i = 0; i < count; i += kLanes)
    top = Max(top, Load(scores + i));  // a NaN comes back with its weight
  float maximum = top[0];
  for (int i = 1; i < kLanes; ++i)
    if (top[i] > maximum || maximum != maximum) maximum = top[i];
  if (!(maximum > -kInfinity)) maximum = 0.0f;
  Vec sum{};
  for (int64_t i = 0; i < count; i += kLanes) {
    Vec p = Exp2((Load(scores + i) - maximum) * factor);
    if (i + kLanes > count)  // scale 0: 0 * -infinity
      for (int64_t lane = count - i; lane < kLanes; ++lane) p[lane] = 0.0f;
    Store(scores + i, p);
    sum += p;
  }
  float total = 0.0f;
  for (int i = 0; i < kLanes; ++i) total += sum[i];
  statistics[0] = maximum;
  statistics[1] = total;
}

// The output of one row once more, from weights divided by their sum: no
// product exceeds the largest value.
template <DType kType>
__attribute__((noinline, cold)) void RecomputeRow(const void* values,
                                                  int64_t stride, int64_t count,
                                                  const float* weights,
                                                  float sum, int64_t size,
                                                  float* output) {
  for (int64_t h = 0; h < size; ++h) output[h] = 0.0f;
  for (int64_t at = 0; at < count; ++at) {
    const void* value = Element(values, at * stride, kType);
    const Vec share = Broadcast(weights[at] / sum);
    for (int64_t h = 0; h < size; h += kLanes) {
      float part[kLanes];
      Store(part, LoadPart<kType>(value, h, size) * share);
      for (int64_t i = 0; i < Min(kLanes, size - h); ++i)
        output[h + i] += part[i];
    }
  }
}

template <DType kType>
inline void DecodeChunk(const AttentionForwardArgs& args,
                        const AttentionPlan& plan, const AttentionTask& task,
                        float* base) {
  const AttentionShape& shape = args.shape;
  const Sequence& sequence = plan.sequences[task.b];
  const DecodeScratch scratch(args, base);
  const ScoreConstants constants = MakeScoreConstants(args.options, plan);
  const int64_t queries = shape.query_len, heads = shape.num_heads;
  const int64_t padded = PadToVector(shape.head_dim);
  const int64_t value_size = PadToVector(shape.value_dim);
  const int64_t rows = plan.group * queries;
  const VecInt sign_bits = BroadcastInt(args.options.scale < 0 ? INT32_MIN : 0);
  for (int64_t n = 0; n < heads; ++n)
    for (int64_t t = 0; t < queries; ++t) {
      float* row = scratch.query + (n * queries + t) * padded;
      const Strides& strides = args.query.strides;
      WidenRow(
          Element(args.query.data,
                  QueryOffset(strides, plan, sequence, n) + t * strides.length,
                  kType),
          kType, shape.head_dim, padded, row);
      for (int64_t h = 0; h < padded; h += kLanes)
        Store(row + h, FromBits(Bits(Load(row + h)) ^ sign_bits));
      float* to = scratch.output + (n * queries + t) * value_size;
      for (int64_t h = 0; h < value_size; h += kLanes) Store(to + h, Vec{});
    }
  const auto each_key = [&](const ConstArray& array, int64_t size,
                            const auto& visit) {
    const int64_t bytes = ElementBytes(kType);
    const int64_t to_next = array.strides.length * bytes;
    const char* key = static_cast<const char*>(
        Element(array.data,
                KeyOffset(array.strides, plan, sequence, /*head=*/0) +
                    task.first * array.strides.length,
                kType));
    for (int64_t at = 0; at < task.count; ++at, key += to_next) {
      const int64_t ahead = Min(kDecodeAhead, task.count - 1 - at) * to_next;
      const char* row = key;
      for (int64_t kv = 0; kv < shape.num_kv_heads; ++kv) {
        if (rows > kDecodeRowsForeseen) PrefetchRow(row + ahead, size * bytes);
        visit(kv, at, row);
        row += array.strides.head * bytes;
      }
    }
  };
  LaneSums sums;
  each_key(args.key, shape.head_dim,
           [&](int64_t kv, int64_t at, const void* key) {
             DecodeScores<kType>(
                 key, scratch.query + kv * rows * padded, rows, shape.head_dim,
                 scratch.scores + kv * rows * kDecodeChunk + at, &sums);
           });
  sums.Flush();
  for (int64_t row = 0; row < heads * queries; ++row)
    DecodeSoftmax(scratch.scores + row * kDecodeChunk, task.count,
                  constants.factor, scratch.statistics + 2 * row);
  each_key(args.value, shape.value_dim,
           [&](int64_t kv, int64_t at, const void* value) {
             DecodeValues<kType>(
                 value, scratch.scores + kv * rows * kDecodeChunk + at, rows,
                 shape.value_dim, scratch.output + kv * rows * value_size);
           });
  for (int64_t row = 0; row < heads * queries; ++row) {
    float* to =
        PartialResults(shape, plan, task.b, row / queries, row % queries);
    const float* statistics = scratch.statistics + 2 * row;
    const float* output = scratch.output + row * value_size;
    to[0] = statistics[0];
    to[1] = statistics[1];
    // A chunk without weight, all scores -infinity: 0, or NaN where a value is
    // not finite.
    const float divisor = statistics[1] == 0.0f ? 1.0f : statistics[1];
    bool finite = true;
    for (int64_t h = 0; h < shape.value_dim; ++h) {
      to[2 + h] = output[h] / divisor;
      finite = finite && __builtin_isfinite(to[2 + h]);
    }
    if (!finite && __builtin_isfinite(statistics[1]) && statistics[1] > 0) {
      const Strides& strides = args.value.strides;
      const int64_t first = KeyOffset(strides, plan, sequence, row / rows) +
                            task.first * strides.length;
      RecomputeRow<kType>(Element(args.value.data, first, kType),
                          strides.length, task.count,
                          scratch.scores + row * kDecodeChunk, statistics[1],
                          shape.value_dim, to + 2);
    }
    if (task.count == 0) MarkSeesNothing(to);
  }
}

void Decode(const AttentionForwardArgs& args, const AttentionPlan& plan,
            const AttentionTask& task, float* scratch) {
  if (args.dtype == DType::kFloat32)
    DecodeChunk<DType::kFloat32>(args, plan, task, scratch);
  else if (args.dtype == DType::kBfloat16)
    DecodeChunk<DType::kBfloat16>(args, plan, task, scratch);
  else
    DecodeChunk<DType::kFloat16>(args, plan, task, scratch);
}

}  // namespace
}  // namespace hw3tf
