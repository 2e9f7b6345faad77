// The vector of float or double of the instruction set that is being compiled,
// and the activations: what the sources of the RNN kernels are written with.

#pragma once

#include "kernels/rnn/kernel_table.h"
#include "kernels/vector/simd.h"

namespace hw3tf {
namespace {

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

// e^-x for |x| <= 88 and NaN. ln(2) in two parts, so that r is right to the
// last bit.
inline ExpParts SplitExpOfMinus(Vec x) {
  constexpr float kLog2e = 1.44269502f;
  constexpr float kLn2High = 0.693145752f, kLn2Low = 1.42860677e-6f;
#if defined(__AVX512DQ__)
  const Vec n = ToNearest(x * -kLog2e);
  const Vec scale = Scale(Broadcast(1.0f), n);
#else
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: the sum has no fraction
  const Vec shifted = x * -kLog2e + kRound;
  const Vec n = shifted - kRound;
  const Vec scale = FromBits((Bits(shifted) + 127) << 23);
#endif
  Vec r = -x - n * kLn2High;
  r = r - n * kLn2Low;
  Vec q = r * 1.38144672e-3f + 8.36878084e-3f;
  q = q * r + 4.16683927e-2f;
  q = q * r + 1.66665196e-1f;
  q = q * r + 4.9999994e-1f;
  return {scale, q * (r * r) + r};
}

// 1 / (1 + e^-x): 1.6 units in the last place at most, 2.4 where x is below
// -16 and the result below 1e-7; 0.5 in the root of the mean square.
//
// The sum is rounded once: 1 + 2^n is exact up to there. With a reciprocal of
// 14 bits and a Newton step in place of the division, here and below, the gates
// of an LSTM took 16.4 ns for 16 units instead of 13.9 (Zen 5).
inline Vec Sigmoid(Vec x) {
  x = Min(Broadcast(88.0f), Max(Broadcast(-88.0f), x));  // keeps NaN
  const ExpParts e = SplitExpOfMinus(x);
  return 1.0f / (e.scale * e.expm1 + (1.0f + e.scale));
}

// (1 - e^-2|x|) / (1 + e^-2|x|) with the sign of x: 1.9 units in the last place
// at most, 0.55 in the root of the mean square.
//
// With e^2x in place of e^-2|x| it would be 2.8 units. The one of simd.h is off
// by 1.4 units, but has a second polynomial for small x: with it the gates of
// an LSTM took 16.4 ns for 16 units instead of 12.5 (Zen 5; AVX2 35.5 instead
// of 26.3).
inline Vec TanhOf(Vec x) {
  const VecInt sign = Bits(x) & BroadcastInt(INT32_MIN);
  // tanh is 1 to float32 from 9.01 on.
  const Vec size = Min(Broadcast(10.0f), FromBits(Bits(x) ^ sign));
  const ExpParts e = SplitExpOfMinus(size + size);
  const Vec above = (1.0f - e.scale) - e.scale * e.expm1;
  const Vec below = e.scale * e.expm1 + (1.0f + e.scale);
  return FromBits(Bits(above / below) | sign);
}

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
