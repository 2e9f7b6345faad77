// Which keys a query of a case sees, and where its rows lie: attention.h's text
// once more, on purpose without the code of the kernels.

#include "tests/attention/inputs.h"

namespace hw3tf {

bool Inputs::Sees(int64_t b, int64_t n, int64_t t, int64_t s) const {
  const AttentionOptions& o = options;
  const ScoreStrides& m = o.mask_strides;
  if (o.is_causal && s > t) return false;
  if (o.window_before >= 0 && t - s > o.window_before) return false;
  if (o.window_after >= 0 && s - t > o.window_after) return false;
  if (o.mask && !o.mask[b * m.batch + n * m.head + t * m.query + s * m.key])
    return false;
  if (o.query_mask && !o.query_mask[b * o.query_mask_stride + t]) return false;
  if (o.key_mask && !o.key_mask[b * o.key_mask_stride + s]) return false;
  if (o.query_lengths && t >= o.query_lengths[b]) return false;
  return !(o.key_lengths && s >= o.key_lengths[b]);
}

bool Inputs::SeesAny(int64_t b, int64_t n, int64_t t) const {
  for (int64_t s = 0; s < KeyLen(b); ++s)
    if (Sees(b, n, t, s)) return true;
  return false;
}

bool Inputs::IsSeen(int64_t b, int64_t kv_head, int64_t s) const {
  const int64_t group = shape.num_heads / shape.num_kv_heads;
  for (int64_t n = kv_head * group; n < (kv_head + 1) * group; ++n)
    for (int64_t t = 0; t < QueryLen(b); ++t)
      if (Sees(b, n, t, s)) return true;
  return false;
}

bool Inputs::HasBlind(int64_t b, int64_t kv_head) const {
  const int64_t group = shape.num_heads / shape.num_kv_heads;
  for (int64_t n = kv_head * group; n < (kv_head + 1) * group; ++n)
    for (int64_t t = 0; t < QueryLen(b); ++t)
      if (!SeesAny(b, n, t)) return true;
  return false;
}

int64_t Inputs::QueryLen(int64_t b) const {
  if (c.packed == Packed::kNo) return shape.query_len;
  const auto i = static_cast<size_t>(b);
  return query_starts_[i + 1] - query_starts_[i];
}

int64_t Inputs::KeyLen(int64_t b) const {
  if (c.packed == Packed::kNo) return shape.key_len;
  const auto i = static_cast<size_t>(b);
  return key_starts_[i + 1] - key_starts_[i];
}

int64_t Inputs::QueryRow(int64_t b, int64_t t) const {
  if (c.packed == Packed::kNo) return b * shape.query_len + t;
  return query_starts_[static_cast<size_t>(b)] + t;
}

int64_t Inputs::KeyRow(int64_t b, int64_t s) const {
  if (c.packed == Packed::kNo) return b * shape.key_len + s;
  return key_starts_[static_cast<size_t>(b)] + s;
}

int64_t Inputs::LogsumexpIndex(int64_t b, int64_t n, int64_t t) const {
  if (c.packed == Packed::kNo)
    return (b * shape.num_heads + n) * shape.query_len + t;
  return n * query_starts_.back() + QueryRow(b, t);
}

int64_t Inputs::LogsumexpCount() const {
  const int64_t rows = c.packed == Packed::kNo ? shape.batch * shape.query_len
                                               : query_starts_.back();
  return shape.num_heads * rows;
}

int64_t Inputs::BiasIndex(int64_t b, int64_t n, int64_t t, int64_t s) const {
  const ScoreStrides& x = options.bias_strides;
  return b * x.batch + n * x.head + t * x.query + s * x.key;
}

int64_t Inputs::GradBiasIndex(int64_t b, int64_t n, int64_t t,
                              int64_t s) const {
  if (c.bias != Bias::kTransposed) return BiasIndex(b, n, t, s);
  return ((b * shape.num_heads + n) * shape.query_len + t) * shape.key_len + s;
}

}  // namespace hw3tf
