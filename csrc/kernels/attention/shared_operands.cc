#include "kernels/attention/shared_operands.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "kernels/runtime/parallel.h"
#include "kernels/runtime/test_hooks.h"
#include "kernels/vector/element.h"

namespace hw3tf {
namespace {

int64_t BytesOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return 8;
    case DType::kFloat32:
      return 4;
    default:
      return 2;
  }
}

// The gradient of one operand: where the caller wants it, and its sizes.
struct Gradient {
  MutableArray array;
  int64_t length, heads, size;
};

class SharedGradient {
 public:
  SharedGradient(const AttentionBackwardArgs& args, const Gradient& wanted)
      : wanted_(wanted), dtype_(args.dtype), batch_(args.shape.batch) {
    shared_ = !args.options.query_splits && batch_ > 1 &&
              wanted.array.strides.batch == 0;
    if (!shared_) return;
    const int64_t row = wanted.heads * wanted.size;
    strides_ = {wanted.length * row, row, wanted.size};
    memory_.reset(new (std::nothrow) char[static_cast<size_t>(
        batch_ * wanted.length * row * BytesOf(dtype_))]);
  }

  bool Failed() const { return shared_ && !memory_; }

  // Where the backward pass writes.
  MutableArray Target() const {
    return shared_ ? MutableArray{memory_.get(), strides_} : wanted_.array;
  }

  void Sum(int threads) const {
    if (!shared_) return;
    switch (dtype_) {
      case DType::kFloat64:
        return SumOf<double>(threads);
      case DType::kFloat32:
        return SumOf<float>(threads);
      case DType::kBfloat16:
        return SumOf<Bfloat16>(threads);
      case DType::kFloat16:
        return SumOf<Float16>(threads);
    }
  }

 private:
  template <typename T>
  void SumOf(int threads) const {
    const auto* const parts = reinterpret_cast<const T*>(memory_.get());
    auto* const sums = static_cast<T*>(wanted_.array.data);
    constexpr uint32_t kPaths = kSharedOperandsPath;
    ParallelFor(wanted_.length, threads, kPaths, [&](int64_t i, int) {
      for (int64_t head = 0; head < wanted_.heads; ++head) {
        const T* const part =
            parts + i * strides_.length + head * strides_.head;
        T* const sum = sums + i * wanted_.array.strides.length +
                       head * wanted_.array.strides.head;
        constexpr int64_t kBlock = 64;
        for (int64_t begin = 0; begin < wanted_.size; begin += kBlock) {
          const int64_t count = std::min(kBlock, wanted_.size - begin);
          double totals[kBlock] = {};
          for (int64_t b = 0; b < batch_; ++b)
            for (int64_t h = 0; h < count; ++h)
              totals[h] += Load(part[b * strides_.batch + begin + h]);
          for (int64_t h = 0; h < count; ++h) Store(totals[h], sum + begin + h);
        }
      }
    });
  }

  const Gradient wanted_;
  const DType dtype_;
  const int64_t batch_;
  bool shared_;
  Strides strides_{0, 0, 0};
  std::unique_ptr<char[]> memory_;
};

Gradient QueryGradient(const AttentionBackwardArgs& args) {
  const AttentionShape& s = args.shape;
  return {args.grad_query, s.query_len, s.num_heads, s.head_dim};
}

Gradient KeyGradient(const AttentionBackwardArgs& args) {
  const AttentionShape& s = args.shape;
  return {args.grad_key, s.key_len, s.num_kv_heads, s.head_dim};
}

Gradient ValueGradient(const AttentionBackwardArgs& args) {
  const AttentionShape& s = args.shape;
  return {args.grad_value, s.key_len, s.num_kv_heads, s.value_dim};
}

void Zero(const AttentionBackwardArgs& args, const Gradient& gradient) {
  const int64_t* splits = args.options.key_splits;
  const Strides& strides = gradient.array.strides;
  const bool one = splits || strides.batch == 0;
  const int64_t batch = one ? 1 : args.shape.batch;
  const int64_t length = splits ? splits[args.shape.batch] : gradient.length;
  const int64_t bytes = BytesOf(args.dtype);
  auto* const data = static_cast<char*>(gradient.array.data);
  for (int64_t b = 0; length > 0 && b < batch; ++b)
    for (int64_t i = 0; i < length; ++i)
      for (int64_t head = 0; head < gradient.heads; ++head) {
        const int64_t at = (one ? 0 : b * strides.batch) + i * strides.length +
                           head * strides.head;
        std::memset(data + at * bytes, 0,
                    static_cast<size_t>(gradient.size * bytes));
      }
}

}  // namespace

bool BackwardWithSharedOperands(const AttentionBackwardArgs& args,
                                int num_threads,
                                bool (*backward)(const AttentionBackwardArgs&,
                                                 int)) {
  const SharedGradient query(args, QueryGradient(args));
  const SharedGradient key(args, KeyGradient(args));
  const SharedGradient value(args, ValueGradient(args));
  if (query.Failed() || key.Failed() || value.Failed()) return false;
  AttentionBackwardArgs inner = args;
  inner.grad_query = query.Target();
  inner.grad_key = key.Target();
  inner.grad_value = value.Target();
  if (!backward(inner, num_threads)) return false;
  const int threads = ResolveNumThreads(num_threads);
  for (const SharedGradient* gradient : {&query, &key, &value})
    gradient->Sum(threads);
  return true;
}

void ZeroGradients(const AttentionBackwardArgs& args) {
  Zero(args, KeyGradient(args));
  Zero(args, ValueGradient(args));
  if (!args.grad_bias) return;
  const AttentionShape& s = args.shape;
  const ScoreStrides& strides = args.options.bias_strides;
  const int64_t size =
      (strides.batch ? s.batch : 1) * (strides.head ? s.num_heads : 1) *
      (strides.query ? s.query_len : 1) * (strides.key ? s.key_len : 1);
  std::memset(args.grad_bias, 0,
              static_cast<size_t>(size * (args.dtype == DType::kFloat64
                                              ? BytesOf(DType::kFloat64)
                                              : BytesOf(DType::kFloat32))));
}

}  // namespace hw3tf
