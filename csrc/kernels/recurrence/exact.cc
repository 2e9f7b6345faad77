#include "kernels/recurrence/exact.h"

#include <algorithm>
#include <limits>

namespace hw3tf {
namespace {

using Int128 = __int128;
using Uint128 = unsigned __int128;

// A sum of products of two states. Products of int32 have 63 bits, so 128 hold
// 2^65 of them.
template <typename State>
class WideSum {
 public:
  void Add(State a, State b) { sum_ += static_cast<int64_t>(a) * b; }
  // To floor(sum / 2^bits + 1/2).
  void Round(int bits) {
    if (bits > 0) sum_ = (sum_ + (Int128{1} << (bits - 1))) >> bits;
  }
  bool FitsState() const { return sum_ == static_cast<State>(sum_); }
  bool Negative() const { return sum_ < 0; }
  State Wrapped() const { return static_cast<State>(sum_); }

 private:
  Int128 sum_ = 0;
};

// Products of int64 have 127 bits: a third word counts the carries.
template <>
class WideSum<int64_t> {
 public:
  void Add(int64_t a, int64_t b) {
    const Int128 product = static_cast<Int128>(a) * b;
    low_ += static_cast<Uint128>(product);
    const bool carry = low_ < static_cast<Uint128>(product);
    high_ += static_cast<int>(carry) - static_cast<int>(product < 0);
  }
  void Round(int bits) {
    if (bits == 0) return;
    Add(int64_t{1} << (bits - 1), 1);
    low_ = low_ >> bits | static_cast<Uint128>(high_) << (128 - bits);
    high_ >>= bits;
  }
  bool FitsState() const {
    const Uint128 shifted = low_ + (Uint128{1} << 63);
    const bool in_range = (shifted >> 64) == 0;
    // The shift of a negative number carries out of 128 bits.
    return in_range && high_ == (shifted < low_ ? -1 : 0);
  }
  bool Negative() const { return high_ < 0; }
  int64_t Wrapped() const {
    return static_cast<int64_t>(static_cast<uint64_t>(low_));
  }

 private:
  Uint128 low_ = 0;
  int64_t high_ = 0;
};

template <typename State>
State Activated(State x, const RecurrenceOptions& options) {
  switch (options.activation) {
    case Activation::kRelu:
      return std::max<State>(x, 0);
    case Activation::kSign:
      return static_cast<State>((x > 0) - (x < 0));
    case Activation::kClip:
      return std::clamp(x, static_cast<State>(options.clip_low),
                        static_cast<State>(options.clip_high));
    default:
      return x;
  }
}

// Sums of so many neighbouring units are kept at once: weights are read along
// their rows.
constexpr int64_t kColumns = 16;

template <typename State, typename Weight>
void AddProducts(const State* numbers, int64_t depth, const Weight* weights,
                 int64_t units, int64_t columns, WideSum<State>* sums) {
  for (int64_t i = 0; i < depth; ++i)
    for (int64_t j = 0; j < columns; ++j)
      sums[j].Add(numbers[i], static_cast<State>(weights[i * units + j]));
}

template <typename State, typename Weight>
bool Step(const RecurrenceArgs& args, const State* x, const State* previous,
          State* next) {
  using Limits = std::numeric_limits<State>;
  const int64_t features = args.shape.features, units = args.shape.units;
  const auto* kernel = static_cast<const Weight*>(args.kernel);
  const auto* recurrent = static_cast<const Weight*>(args.recurrent_kernel);
  const auto* bias = static_cast<const State*>(args.bias);
  bool overflow = false;
  for (int64_t first = 0; first < units; first += kColumns) {
    const int64_t columns = std::min(kColumns, units - first);
    WideSum<State> sums[kColumns];
    AddProducts(x, features, kernel + first, units, columns, sums);
    AddProducts(previous, units, recurrent + first, units, columns, sums);
    for (int64_t j = 0; j < columns; ++j) {
      if (bias) sums[j].Add(bias[first + j], 1);
      sums[j].Round(args.options.fractional_bits);
      State value = sums[j].Wrapped();
      if (!sums[j].FitsState()) {
        overflow = true;
        if (args.options.overflow == Overflow::kSaturate)
          value = sums[j].Negative() ? Limits::min() : Limits::max();
      }
      next[first + j] = Activated(value, args.options);
    }
  }
  return overflow;
}

}  // namespace

int64_t WidenedInput(IntDType dtype, const void* x, int64_t i) {
  switch (dtype) {
    case IntDType::kBool:
      return static_cast<const uint8_t*>(x)[i] != 0;
    case IntDType::kInt8:
      return static_cast<const int8_t*>(x)[i];
    case IntDType::kUint8:
      return static_cast<const uint8_t*>(x)[i];
    case IntDType::kInt16:
      return static_cast<const int16_t*>(x)[i];
    case IntDType::kInt32:
      return static_cast<const int32_t*>(x)[i];
    case IntDType::kInt64:
      return static_cast<const int64_t*>(x)[i];
  }
  return 0;
}

bool ExactStep(const RecurrenceArgs& args, const void* x, const void* previous,
               void* next) {
  const auto step = [&](auto state, auto weight) {
    using State = decltype(state);
    return Step<State, decltype(weight)>(args, static_cast<const State*>(x),
                                         static_cast<const State*>(previous),
                                         static_cast<State*>(next));
  };
  if (args.state_dtype == IntDType::kInt64) return step(int64_t{0}, int64_t{0});
  if (args.weight_dtype == IntDType::kInt8) return step(int32_t{0}, int8_t{0});
  return step(int32_t{0}, int32_t{0});
}

}  // namespace hw3tf
