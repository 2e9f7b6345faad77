// The vector of float or double of the instruction set that is being compiled,
// and the activations: what the sources of the RNN kernels are written with.

#pragma once

#include "kernels/rnn/kernel_table.h"
#include "kernels/vector/simd.h"

namespace hw3tf {
namespace {

typedef double VecDouble __attribute__((vector_size(kVecBytes)));
typedef double VecDoubleUnaligned
    __attribute__((vector_size(kVecBytes), aligned(2), may_alias));

template <typename Real>
struct VectorOf;
template <>
struct VectorOf<float> {
  using Type = Vec;
};
template <>
struct VectorOf<double> {
  using Type = VecDouble;
};
template <typename Real>
using VecOf = typename VectorOf<Real>::Type;

template <typename Real>
constexpr int kLanesOf = kVecBytes / static_cast<int>(sizeof(Real));

inline VecDouble Load(const double* from) {
  return *reinterpret_cast<const VecDoubleUnaligned*>(from);
}

inline void Store(double* to, VecDouble value) {
  *reinterpret_cast<VecDoubleUnaligned*>(to) = value;
}

inline VecDouble Broadcast(double value) { return value - VecDouble{}; }

// Only the first `count` lanes exist; the others are 0.
template <typename Real>
inline VecOf<Real> LoadSome(const Real* from, int64_t count) {
  if (count >= kLanesOf<Real>) return Load(from);
  VecOf<Real> value{};
  for (int64_t i = 0; i < count; ++i) value[i] = from[i];
  return value;
}

template <typename Real>
inline void StoreSome(Real* to, VecOf<Real> value, int64_t count) {
  if (count >= kLanesOf<Real>) return Store(to, value);
  for (int64_t i = 0; i < count; ++i) to[i] = value[i];
}

// Zero in the lanes that do not exist: there infinity times a weight of 0 would
// be NaN.
template <typename Real>
inline VecOf<Real> KeepSome(VecOf<Real> value, int64_t count) {
  for (int64_t i = count; i < kLanesOf<Real>; ++i) value[i] = 0;
  return value;
}

// e^x = 2^n e^r with |r| <= ln(2) / 2, and e^r - 1 = r + r^2 q(r).
struct ExpParts {
  Vec scale;  // 2^n
  Vec expm1;  // e^r - 1
};

// For |x| <= 88 and NaN. ln(2) in two parts, so that r is right to the last
// bit.
inline ExpParts SplitExp(Vec x) {
  constexpr float kLog2e = 1.44269502f;
  constexpr float kLn2High = 0.693145752f, kLn2Low = 1.42860677e-6f;
#if defined(__AVX512DQ__)
  const Vec n = ToNearest(x * kLog2e);
  const Vec scale = Scale(Broadcast(1.0f), n);
#else
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: the sum has no fraction
  const Vec shifted = x * kLog2e + kRound;
  const Vec n = shifted - kRound;
  const Vec scale = FromBits((Bits(shifted) + 127) << 23);
#endif
  Vec r = x - n * kLn2High;
  r = r - n * kLn2Low;
  Vec q = r * 1.38144672e-3f + 8.36878084e-3f;
  q = q * r + 4.16683927e-2f;
  q = q * r + 1.66665196e-1f;
  q = q * r + 4.9999994e-1f;
  return {scale, q * (r * r) + r};
}

// Into [-limit, limit]; NaN stays NaN.
inline Vec Clamp(Vec x, float limit) {
  x = Max(Broadcast(-limit), x);
  return Select(x > limit, Broadcast(limit), x);
}

// 1 / (1 + e^-x): 2.0 units in the last place at most, 0.55 in the root of the
// mean square. The reciprocal of 14 bits and a Newton step took as long as the
// division.
inline Vec Sigmoid(Vec x) {
  const ExpParts e = SplitExp(Clamp(-x, 88.0f));
  return 1.0f / (1.0f + (e.scale + e.scale * e.expm1));
}

// That of simd.h: 1.4 units in the last place at most. expm1(2x) over
// expm1(2x) + 2 took the same time and was off by up to 2.5.
inline Vec TanhOf(Vec x) { return Tanh(x); }

inline VecDouble Sigmoid(VecDouble x) {
  for (int i = 0; i < kLanesOf<double>; ++i)
    x[i] = 1.0 / (1.0 + __builtin_exp(-x[i]));
  return x;
}

inline VecDouble TanhOf(VecDouble x) {
  for (int i = 0; i < kLanesOf<double>; ++i) x[i] = __builtin_tanh(x[i]);
  return x;
}

// relu6(x + 3) / 6, as Keras computes it.
template <typename V>
inline V HardSigmoid(V x) {
  const V sum = x + 3;
  const V positive = sum < 0 ? V{} : sum;
  const V six = V{} + 6;
  return (positive > 6 ? six : positive) / 6;
}

template <typename V>
inline V Activate(RnnActivation activation, V x) {
  switch (activation) {
    case RnnActivation::kTanh:
      return TanhOf(x);
    case RnnActivation::kSigmoid:
      return Sigmoid(x);
    case RnnActivation::kRelu:
      return x < 0 ? V{} : x;
    case RnnActivation::kHardSigmoid:
      return HardSigmoid(x);
    default:
      return x;
  }
}

// The derivative, from the activated value.
template <typename V>
inline V Slope(RnnActivation activation, V y) {
  const V one = V{} + 1, zero = V{};
  switch (activation) {
    case RnnActivation::kTanh:
      return 1 - y * y;
    case RnnActivation::kSigmoid:
      return y * (1 - y);
    case RnnActivation::kRelu:
      return y > 0 ? one : zero;
    case RnnActivation::kHardSigmoid: {
      const V inner = y < 1 ? one / 6 : zero;
      return y > 0 ? inner : zero;
    }
    default:
      return one;
  }
}

// The activations of a layer: those that almost all layers have are known when
// this is compiled.
struct UsualActivations {
  template <typename V>
  static V A(V x) {
    return TanhOf(x);
  }
  template <typename V>
  static V S(V x) {
    return Sigmoid(x);
  }
  template <typename V>
  static V SlopeOfA(V y) {
    return 1 - y * y;
  }
  template <typename V>
  static V SlopeOfS(V y) {
    return y * (1 - y);
  }
};

struct AnyActivations {
  RnnActivation activation, recurrent_activation;

  template <typename V>
  V A(V x) const {
    return Activate(activation, x);
  }
  template <typename V>
  V S(V x) const {
    return Activate(recurrent_activation, x);
  }
  template <typename V>
  V SlopeOfA(V y) const {
    return Slope(activation, y);
  }
  template <typename V>
  V SlopeOfS(V y) const {
    return Slope(recurrent_activation, y);
  }
};

}  // namespace
}  // namespace hw3tf
