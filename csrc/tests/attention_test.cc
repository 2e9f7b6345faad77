// Forward and backward of every instruction set against double arithmetic, with
// guarded arrays: no Python, no TensorFlow, made for the sanitizers.

#include "kernels/attention.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/attention_kernels.h"
#include "kernels/dispatch.h"
#include "tests/check.h"

namespace hw3tf {

extern const AttentionKernels kAttentionWide;

namespace {

// Inputs are standard normal, so outputs are of size 1. 60 units in the last
// place of float32: the kernels were measured at 16.
constexpr double kTolerance = 60 * 6e-8;

enum class Masks { kNone, kPadded, kHoles, kLate, kNoKeys, kCount };

struct Case {
  AttentionShape shape;
  bool is_causal;
  Masks masks;
};

Strides Contiguous(int64_t length, int64_t heads, int64_t size) {
  return {length * heads * size, heads * size, size};
}

struct Arrays {
  explicit Arrays(const Case& c)
      : s(c.shape),
        query(s.batch * s.query_len * s.num_heads * s.head_dim),
        key(s.batch * s.key_len * s.num_kv_heads * s.head_dim),
        value(s.batch * s.key_len * s.num_kv_heads * s.value_dim),
        output(s.batch * s.query_len * s.num_heads * s.value_dim),
        grad_output(s.batch * s.query_len * s.num_heads * s.value_dim),
        statistics(2 * s.batch * s.num_heads * s.query_len),
        grad_query(s.batch * s.query_len * s.num_heads * s.head_dim),
        grad_key(s.batch * s.key_len * s.num_kv_heads * s.head_dim),
        grad_value(s.batch * s.key_len * s.num_kv_heads * s.value_dim),
        query_mask(s.batch * s.query_len),
        key_mask(s.batch * s.key_len) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    for (auto* a : {&query, &key, &value, &output, &grad_output})
      for (int64_t i = 0; i < Count(*a); ++i) (*a)[i] = normal(random);
    for (int64_t i = 0; i < s.batch * s.query_len; ++i)
      query_mask[i] = c.masks != Masks::kLate || random() % 3 != 0;
    for (int64_t b = 0; b < s.batch; ++b)
      for (int64_t k = 0; k < s.key_len; ++k)
        key_mask[b * s.key_len + k] = Visible(c.masks, b, k, random());
    options.scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
    options.is_causal = c.is_causal;
    options.query_mask = c.masks == Masks::kLate ? query_mask.get() : nullptr;
    options.key_mask = c.masks == Masks::kNone ? nullptr : key_mask.get();
  }

  bool Visible(Masks masks, int64_t b, int64_t k, uint64_t random) const {
    if (masks == Masks::kPadded) return k <= s.key_len / (b + 2);
    if (masks == Masks::kHoles) return random % 2 == 0;
    if (masks == Masks::kLate) return k >= s.key_len * 2 / 3;
    return masks != Masks::kNoKeys;
  }

  int64_t Count(const GuardedArray<float>& a) const {
    if (&a == &query) return s.batch * s.query_len * s.num_heads * s.head_dim;
    if (&a == &key) return s.batch * s.key_len * s.num_kv_heads * s.head_dim;
    if (&a == &value) return s.batch * s.key_len * s.num_kv_heads * s.value_dim;
    return s.batch * s.query_len * s.num_heads * s.value_dim;
  }

  AttentionForwardArgs Forward() const {
    return {s,
            options,
            {query.get(), Contiguous(s.query_len, s.num_heads, s.head_dim)},
            {key.get(), Contiguous(s.key_len, s.num_kv_heads, s.head_dim)},
            {value.get(), Contiguous(s.key_len, s.num_kv_heads, s.value_dim)},
            {output.get(), Contiguous(s.query_len, s.num_heads, s.value_dim)},
            statistics.get()};
  }

  AttentionBackwardArgs Backward() const {
    const AttentionForwardArgs f = Forward();
    return {s,
            options,
            f.query,
            f.key,
            f.value,
            {output.get(), f.output.strides},
            statistics.get(),
            {grad_output.get(), f.output.strides},
            {grad_query.get(), f.query.strides},
            {grad_key.get(), f.key.strides},
            {grad_value.get(), f.value.strides}};
  }

  bool Sees(int64_t b, int64_t t, int64_t k) const {
    if (options.query_mask && !query_mask[b * s.query_len + t]) return false;
    if (options.key_mask && !key_mask[b * s.key_len + k]) return false;
    return !options.is_causal || k <= t;
  }

  AttentionShape s;
  AttentionOptions options;
  GuardedArray<float> query, key, value, output, grad_output, statistics;
  GuardedArray<float> grad_query, grad_key, grad_value;
  GuardedArray<uint8_t> query_mask, key_mask;
};

struct Reference {
  std::vector<double> output, grad_query, grad_key, grad_value;
};

// One query row at a time, as the formula reads.
Reference Compute(const Arrays& a) {
  const AttentionShape& s = a.s;
  Reference r;
  r.output.resize(static_cast<size_t>(a.Count(a.output)));
  r.grad_query.resize(static_cast<size_t>(a.Count(a.query)));
  r.grad_key.resize(static_cast<size_t>(a.Count(a.key)));
  r.grad_value.resize(static_cast<size_t>(a.Count(a.value)));
  std::vector<double> p(static_cast<size_t>(s.key_len)), dp(p.size());
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t n = 0; n < s.num_heads; ++n)
      for (int64_t t = 0; t < s.query_len; ++t) {
        const int64_t kv = n / (s.num_heads / s.num_kv_heads);
        const int64_t row = (b * s.query_len + t) * s.num_heads + n;
        const auto key = [&](int64_t k) {
          return (b * s.key_len + k) * s.num_kv_heads + kv;
        };
        double top = -1e300, sum = 0, dot = 0;
        bool blind = true;
        for (int64_t k = 0; k < s.key_len; ++k) {
          double score = 0;
          for (int64_t h = 0; h < s.head_dim; ++h)
            score += static_cast<double>(a.query[row * s.head_dim + h]) *
                     static_cast<double>(a.key[key(k) * s.head_dim + h]);
          const bool sees = a.Sees(b, t, k);
          blind = blind && !sees;
          p[static_cast<size_t>(k)] =
              sees ? score * static_cast<double>(a.options.scale) : -1e30;
          top = std::fmax(top, p[static_cast<size_t>(k)]);
        }
        for (double& x : p) sum += x = std::exp(x - top);
        for (int64_t k = 0; k < s.key_len; ++k) {
          const auto i = static_cast<size_t>(k);
          p[i] /= sum;
          dp[i] = 0;
          for (int64_t h = 0; h < s.value_dim; ++h) {
            const auto out = static_cast<size_t>(row * s.value_dim + h);
            const auto in = static_cast<size_t>(key(k) * s.value_dim + h);
            const auto grad = static_cast<double>(a.grad_output.get()[out]);
            const auto v = static_cast<double>(a.value.get()[in]);
            r.output[out] += p[i] * v;
            r.grad_value[in] += p[i] * grad;
            dp[i] += v * grad;
          }
          dot += p[i] * dp[i];
        }
        for (int64_t k = 0; k < s.key_len && !blind; ++k) {
          const double ds = p[static_cast<size_t>(k)] *
                            (dp[static_cast<size_t>(k)] - dot) *
                            static_cast<double>(a.options.scale);
          for (int64_t h = 0; h < s.head_dim; ++h) {
            const int64_t q = row * s.head_dim + h, i = key(k) * s.head_dim + h;
            r.grad_query[static_cast<size_t>(q)] +=
                ds * static_cast<double>(a.key[i]);
            r.grad_key[static_cast<size_t>(i)] +=
                ds * static_cast<double>(a.query[q]);
          }
        }
      }
  return r;
}

void Compare(const char* what, const char* isa, const GuardedArray<float>& got,
             const std::vector<double>& want, const Case& c) {
  double size = 1;
  for (double x : want) size = std::fmax(size, std::fabs(x));
  for (size_t i = 0; i < want.size(); ++i) {
    const double x = static_cast<double>(got[static_cast<int64_t>(i)]);
    CHECK(std::fabs(x - want[i]) <= kTolerance * size,
          "%s on %s: element %zu is %g, not %g (T %d, S %d, H %d, V %d, causal "
          "%d, masks %d)",
          what, isa, i, x, want[i], static_cast<int>(c.shape.query_len),
          static_cast<int>(c.shape.key_len), static_cast<int>(c.shape.head_dim),
          static_cast<int>(c.shape.value_dim), c.is_causal,
          static_cast<int>(c.masks));
  }
}

// Runs the tasks one after the other on guarded scratch that holds NaN: what a
// task reads without having written it shows.
void Run(const char* isa, const AttentionKernels& kernels, const Case& c) {
  const Arrays a(c);
  const AttentionShape& s = c.shape;
  const auto fill = [](float* data, int64_t count) {
    for (int64_t i = 0; i < count; ++i)
      data[i] = std::numeric_limits<float>::quiet_NaN();
  };
  const int64_t forward = (kernels.forward_scratch(s) + 15) / 16 * 16;
  const GuardedArray<float> forward_scratch(forward);
  for (int64_t task = 0; task < kernels.forward_tasks(s); ++task) {
    fill(forward_scratch.get(), forward);
    kernels.forward(a.Forward(), task, forward_scratch.get());
  }
  const int64_t rows = s.batch * s.num_heads * s.query_len;
  const GuardedArray<float> dots(rows);
  const GuardedArray<int32_t> turns(kernels.backward_turns(s));
  std::memset(turns.get(), 0,
              static_cast<size_t>(kernels.backward_turns(s)) * sizeof(int32_t));
  for (int64_t head = 0; head < s.batch * s.num_heads; ++head)
    kernels.output_dot_grad(a.Backward(), head, dots.get());
  const int64_t backward = (kernels.backward_scratch(s) + 15) / 16 * 16;
  const GuardedArray<float> backward_scratch(backward);
  for (int64_t task = 0; task < kernels.backward_tasks(s); ++task) {
    fill(backward_scratch.get(), backward);
    kernels.backward(a.Backward(), {dots.get(), turns.get()}, task,
                     backward_scratch.get());
  }
  const Reference want = Compute(a);
  Compare("output", isa, a.output, want.output, c);
  Compare("grad_query", isa, a.grad_query, want.grad_query, c);
  Compare("grad_key", isa, a.grad_key, want.grad_key, c);
  Compare("grad_value", isa, a.grad_value, want.grad_value, c);
}

// The public entry on several threads: the bits of one thread.
void RunThreads(const Case& c) {
  const Arrays one(c), many(c);
  CHECK(AttentionForward(one.Forward(), 1), "memory");
  CHECK(AttentionBackward(one.Backward(), 1), "memory");
  CHECK(AttentionForward(many.Forward(), 5), "memory");
  CHECK(AttentionBackward(many.Backward(), 5), "memory");
  const auto same = [&](const GuardedArray<float>& x,
                        const GuardedArray<float>& y, int64_t count) {
    CHECK(std::memcmp(x.get(), y.get(),
                      static_cast<size_t>(count) * sizeof(float)) == 0,
          "5 threads give other bits than 1");
  };
  same(one.output, many.output, one.Count(one.output));
  same(one.grad_query, many.grad_query, one.Count(one.query));
  same(one.grad_key, many.grad_key, one.Count(one.key));
  same(one.grad_value, many.grad_value, one.Count(one.value));
}

int Main() {
  std::vector<InstructionSet> sets;
  for (const InstructionSet& set : CompiledInstructionSets())
    if (set.supported) sets.push_back(set);
  sets.push_back({"wide", true, &kAttentionWide});
  const AttentionShape shapes[] = {
      // B, T, S, N, K, H, V
      {1, 1, 1, 1, 1, 1, 1},       {2, 3, 5, 2, 1, 4, 4},
      {1, 31, 127, 2, 2, 8, 16},   {1, 32, 128, 1, 1, 16, 8},
      {2, 33, 129, 4, 2, 20, 12},  {1, 129, 65, 2, 1, 17, 33},
      {1, 130, 300, 2, 2, 64, 64}, {1, 7, 260, 3, 1, 40, 72},
  };
  int cases = 0;
  for (const AttentionShape& shape : shapes)
    for (bool is_causal : {false, true})
      for (int m = 0; m < static_cast<int>(Masks::kCount); ++m) {
        const Case c{shape, is_causal, static_cast<Masks>(m)};
        for (const InstructionSet& set : sets) {
          Run(set.name, *set.attention, c);
          ++cases;
        }
      }
  for (bool is_causal : {false, true})
    RunThreads({{1, 300, 700, 2, 1, 32, 32}, is_causal, Masks::kHoles});
  std::printf("%d cases on %zu instruction sets\n", cases, sets.size());
  return 0;
}

}  // namespace
}  // namespace hw3tf

int main() { return hw3tf::Main(); }
