#include "tests/attention/inputs.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

namespace hw3tf {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
}  // namespace

Inputs::Inputs(const Case& a_case, DType stored, Poison put)
    : c(a_case),
      dtype(stored),
      poison(put),
      shape(a_case.shape),
      guard(a_case.number % 2 ? Guard::kBegin : Guard::kEnd),
      random_(static_cast<uint64_t>(a_case.number) + 1),
      query_starts_(Starts(shape.query_len, false)),
      key_starts_(Starts(shape.key_len, true)),
      query(dtype,
            ShapeOf(query_starts_, shape.query_len, shape.num_heads,
                    shape.head_dim, c.one_query),
            LayoutOf(0), guard),
      key(dtype,
          ShapeOf(key_starts_, shape.key_len, shape.num_kv_heads,
                  shape.head_dim, c.one_key),
          LayoutOf(0), guard),
      value(dtype,
            ShapeOf(key_starts_, shape.key_len, shape.num_kv_heads,
                    shape.value_dim, c.one_value),
            LayoutOf(1), guard),
      grad_output(dtype,
                  ShapeOf(query_starts_, shape.query_len, shape.num_heads,
                          shape.value_dim),
                  LayoutOf(2), guard),
      bias(RealType(dtype), BiasArray().count, guard),
      grad_logsumexp(RealType(dtype), LogsumexpCount(), guard),
      mask_(MaskArray().count, guard),
      query_mask_(shape.batch * shape.query_len, guard),
      key_mask_(shape.batch * shape.key_len, guard),
      query_lengths_(shape.batch, guard),
      key_lengths_(shape.batch, guard),
      query_splits_(shape.batch + 1, guard),
      key_splits_(shape.batch + 1, guard) {
  SetOptions();
  FillMasks();
  if (c.pattern != Pattern::kRandom) FillPattern();
  FillBias();
  for (Rows* rows : {&query, &key, &value, &grad_output}) FillRows(rows);
  for (int64_t i = 0; i < grad_logsumexp.count(); ++i)
    grad_logsumexp.Set(i, Normal(RealType(c.dtype)));
  Put();
  Seal();
}

std::string Inputs::Name() const {
  return c.Name() + ", poison " + std::to_string(static_cast<int>(poison));
}

void Inputs::Seal() const {
  for (const Rows* rows : {&query, &key, &value, &grad_output})
    rows->memory().Seal();
  for (const Elements* reals : {&bias, &grad_logsumexp}) reals->memory().Seal();
  for (const auto* masks : {&mask_, &query_mask_, &key_mask_}) masks->Seal();
  for (const auto* lengths : {&query_lengths_, &key_lengths_}) lengths->Seal();
  for (const auto* splits : {&query_splits_, &key_splits_}) splits->Seal();
}

Layout Inputs::LayoutOf(int which) const {
  const int count = static_cast<int>(Layout::kCount);
  return static_cast<Layout>((static_cast<int>(c.layout) + which) % count);
}

double Inputs::Normal(DType rounded_to) {
  return Rounded(normal_(random_), rounded_to);
}

std::vector<int64_t> Inputs::Starts(int64_t longest, bool keys) {
  std::vector<int64_t> starts(1, 0);
  if (c.packed == Packed::kNo) return {};
  for (int64_t b = 0; b < shape.batch; ++b) {
    const auto draw = static_cast<int64_t>(random_() >> 1);
    int64_t length = 1 + draw % longest;
    // The first two sequences may lack queries and keys, the last is longest.
    if (c.packed == Packed::kSomeEmpty && b == keys) length = 0;
    if (b == shape.batch - 1) length = longest;
    starts.push_back(starts.back() + length);
  }
  return starts;
}

RowsShape Inputs::ShapeOf(const std::vector<int64_t>& starts, int64_t length,
                          int64_t heads, int64_t size, bool one_batch) const {
  if (starts.empty()) return {shape.batch, length, heads, size, one_batch};
  return {1, starts.back(), heads, size};
}

Inputs::ScoreArray Inputs::Broadcast(bool b, bool n, bool t, bool s) const {
  const int64_t keys = s ? shape.key_len : 1;
  const int64_t queries = t ? shape.query_len : 1;
  const int64_t heads = n ? shape.num_heads : 1;
  const int64_t batch = b ? shape.batch : 1;
  return {batch * heads * queries * keys,
          {b ? heads * queries * keys : 0, n ? queries * keys : 0, t ? keys : 0,
           s ? 1 : 0}};
}

Inputs::ScoreArray Inputs::MaskArray() const {
  const int64_t B = shape.batch, N = shape.num_heads, T = shape.query_len;
  switch (c.mask) {
    case Mask::kFull:
      return Broadcast(true, true, true, true);
    case Mask::kOverHeads:
      return Broadcast(true, false, true, true);
    case Mask::kOverQueries:
      return Broadcast(true, true, false, true);
    case Mask::kTransposed:
      return {B * N * T * shape.key_len, {1, B, N * B, T * N * B}};
    case Mask::kLate:
      return Broadcast(false, false, false, true);
    case Mask::kRowsSeeNothing:
      return Broadcast(true, false, true, false);
    default:
      return {0, {0, 0, 0, 0}};
  }
}

Inputs::ScoreArray Inputs::BiasArray() const {
  const int64_t B = shape.batch, N = shape.num_heads, T = shape.query_len;
  switch (c.bias) {
    case Bias::kFull:
    case Bias::kInfinite:
      return Broadcast(true, true, true, true);
    case Bias::kTransposed:
      return {B * N * T * shape.key_len, {1, B, N * B, T * N * B}};
    case Bias::kOverRows:
      return Broadcast(false, true, true, true);
    case Bias::kOverHeads:
      return Broadcast(true, false, true, true);
    case Bias::kOverAll:
      return Broadcast(false, false, true, true);
    case Bias::kPerKey:
      return Broadcast(false, true, false, true);
    case Bias::kPerQuery:
      return Broadcast(true, false, true, false);
    case Bias::kScalar:
      return Broadcast(false, false, false, false);
    default:
      return {0, {0, 0, 0, 0}};
  }
}

void Inputs::SetOptions() {
  const double usual = 1.0 / std::sqrt(static_cast<double>(shape.head_dim));
  // A factor that float32 holds exactly, or the scale itself would differ.
  const double factors[] = {1.0, -0.75, 2.5, 0.0};
  options.scale = static_cast<double>(
      static_cast<float>(factors[static_cast<int>(c.scale)] * usual));
  options.soft_cap = c.soft_cap ? 1.5 : 0.0;
  options.is_causal = c.is_causal;
  const int64_t S = shape.key_len;
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  const int64_t windows[][2] = {{-1, -1},      {S / 6, S / 6}, {S / 4, -1},
                                {-1, S / 5},   {0, 0},         {0, -1},
                                {kMost, kMost}};
  options.window_before = windows[static_cast<int>(c.window)][0];
  options.window_after = windows[static_cast<int>(c.window)][1];
  options.dropout_rate = c.dropout ? 0.3 : 0.0;
  options.dropout_seed = 0x9E3779B97F4A7C15u * random_();
  if (c.bias != Bias::kNone) options.bias = bias.get();
  options.bias_strides = BiasArray().strides;
  if (c.mask != Mask::kNone) options.mask = mask_.get();
  options.mask_strides = MaskArray().strides;
  if (c.query_mask) {
    options.query_mask = query_mask_.get();
    options.query_mask_stride = c.one_mask ? 0 : shape.query_len;
  }
  if (c.key_mask != KeyMask::kNone) {
    options.key_mask = key_mask_.get();
    options.key_mask_stride = c.one_mask ? 0 : shape.key_len;
  }
  if (c.lengths == Lengths::kQueries || c.lengths == Lengths::kBoth)
    options.query_lengths = query_lengths_.get();
  if (c.lengths == Lengths::kKeys || c.lengths == Lengths::kBoth)
    options.key_lengths = key_lengths_.get();
  if (c.packed == Packed::kNo) return;
  std::copy(query_starts_.begin(), query_starts_.end(), query_splits_.get());
  std::copy(key_starts_.begin(), key_starts_.end(), key_splits_.get());
  options.query_splits = query_splits_.get();
  options.key_splits = key_splits_.get();
}

void Inputs::FillMasks() {
  const int64_t B = shape.batch, T = shape.query_len, S = shape.key_len;
  // Any nonzero byte is true.
  const auto yes = [&] { return static_cast<uint8_t>(1 + random_() % 255); };
  const int64_t tile = GetAttentionTiles().key_tile;
  const int64_t late = S > tile + 1 ? tile + 1 : S * 2 / 3;
  for (int64_t i = 0; i < MaskArray().count; ++i) {
    bool visible = random_() % 3 != 0;
    if (c.mask == Mask::kTransposed) visible = random_() % 8 == 0;
    if (c.mask == Mask::kLate) visible = i >= late;
    mask_[i] = visible ? yes() : 0;
  }
  for (int64_t i = 0; i < B * T; ++i)
    query_mask_[i] = random_() % 4 ? yes() : 0;
  for (int64_t b = 0; b < B; ++b) {
    // 0 and the whole length are among the prefixes.
    const auto draw = static_cast<int64_t>(random_() >> 1);
    const int64_t prefix = b == 1 ? 0 : b == 2 ? S : draw % (S + 1);
    for (int64_t s = 0; s < S; ++s) {
      const bool hole = c.key_mask == KeyMask::kHoles && random_() % 2;
      const bool past = c.key_mask == KeyMask::kPrefix && s >= prefix;
      key_mask_[b * S + s] = hole || past ? 0 : yes();
    }
    query_lengths_[b] =
        static_cast<int32_t>(b == 2          ? 0
                             : draw % 7 == 0 ? T
                                             : draw / 7 % (T + 1));
    key_lengths_[b] = static_cast<int32_t>(b == 1   ? S
                                           : b == 2 ? 0
                                                    : draw / 11 % (S + 1));
  }
}

void Inputs::FillPattern() {
  // A place in the scores that repeats another's byte has an index of 0 there.
  const ScoreArray array = MaskArray();
  const auto extent = [](int64_t size, int64_t stride) {
    return stride ? size : 1;
  };
  const int64_t S = shape.key_len;
  const auto size = static_cast<int64_t>(1 + random_() % 40);
  const auto at = static_cast<int64_t>(random_() % 100);
  const auto shows = [&](int64_t t, int64_t s) {
    switch (c.pattern) {
      case Pattern::kCausal:
        return s <= t + at % 3 - 1;
      case Pattern::kBand:
        return std::abs(t - s) < size;
      case Pattern::kHoles:
        return (t / size + s / size + at) % 3 != 0;
      case Pattern::kBlocks:
        return t / size == s / size;
      case Pattern::kOnes:
        return true;
      default:
        return false;
    }
  };
  const ScoreStrides& m = array.strides;
  for (int64_t b = 0; b < extent(shape.batch, m.batch) && array.count; ++b)
    for (int64_t n = 0; n < extent(shape.num_heads, m.head); ++n)
      for (int64_t t = 0; t < extent(shape.query_len, m.query); ++t)
        for (int64_t s = 0; s < extent(S, m.key); ++s)
          mask_[b * m.batch + n * m.head + t * m.query + s * m.key] =
              shows(t, s) ? 1 : 0;
}

void Inputs::FillBias() {
  for (int64_t i = 0; i < bias.count(); ++i) {
    const bool infinite = c.bias == Bias::kInfinite && random_() % 3 == 0;
    const double x = Normal(RealType(c.dtype));
    bias.Set(i, infinite ? -kInfinity : x);
  }
  if (c.bias == Bias::kInfinite) KeepOneFinite();
}

void Inputs::KeepOneFinite() {
  for (int64_t b = 0; b < shape.batch; ++b)
    for (int64_t n = 0; n < shape.num_heads; ++n)
      for (int64_t t = 0; t < QueryLen(b); ++t)
        for (int64_t s = KeyLen(b) - 1; s >= 0; --s) {
          if (!Sees(b, n, t, s)) continue;
          bias.Set(BiasIndex(b, n, t, s), 0.5);
          break;
        }
}

double Inputs::Number(double equal) {
  // Times this a number is denormal in its own type.
  constexpr double kDenormal[] = {1e-39, 1e-39, 1e-6, 1e-309};
  const double x = normal_(random_);
  switch (c.numbers) {
    case Numbers::kDenormals:
      return random_() % 2 ? x : x * kDenormal[static_cast<int>(c.dtype)];
    case Numbers::kSmall:
      return std::floor(x);
    case Numbers::kEqual:
      return equal;
    case Numbers::kWide:
      return random_() % 8 ? x : 16 * x;
    default:
      return x;
  }
}

void Inputs::FillRows(Rows* rows) {
  const double equal = c.numbers == Numbers::kEqual ? normal_(random_) : 0.0;
  const RowsShape& s = rows->shape();
  for (int64_t row = 0; row < s.batch * s.length; ++row)
    for (int64_t head = 0; head < s.heads; ++head)
      for (int64_t i = 0; i < s.size; ++i)
        rows->Set(row, head, i, Rounded(Number(equal), c.dtype));
}

}  // namespace hw3tf
