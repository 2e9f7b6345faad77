// What the products of a tile multiply: units of 32 bits, which are floats, or
// pairs of bfloat16 where the object is compiled for them
// (attention/bfloat16_isa.cc). A pair is two steps of the depth, so that a
// product of pairs has half as many steps; it is summed in float32.
//
// Units travel as floats, which nothing but the functions here computes with.

#pragma once

#include "kernels/vector/simd.h"

namespace hw3tf {
namespace {

#if defined(HW3TF_BFLOAT16_PRODUCTS)
constexpr bool kPairs = true;
#else
constexpr bool kPairs = false;
#endif

// Steps of the depth in a unit.
constexpr int kUnitDepth = kPairs ? 2 : 1;

inline int64_t Units(int64_t depth) {
  return (depth + kUnitDepth - 1) / kUnitDepth;
}

typedef uint32_t UnitBits __attribute__((aligned(2), may_alias));

inline uint32_t LoadUnit(const float* from) {
  return *reinterpret_cast<const UnitBits*>(from);
}

#if defined(HW3TF_BFLOAT16_PRODUCTS)
inline Vec BroadcastUnit(const float* from) {
  return FromBits(BroadcastInt(static_cast<int32_t>(LoadUnit(from))));
}

// sum + a * b in float32.
inline Vec MultiplyAddUnits(Vec a, Vec b, Vec sum) {
  return reinterpret_cast<Vec>(_mm512_dpbf16_ps(
      sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b)));
}
#else
inline Vec BroadcastUnit(const float* from) { return Broadcast(*from); }

inline Vec MultiplyAddUnits(Vec a, Vec b, Vec sum) { return sum + a * b; }
#endif

// Changes the signs of the numbers in a unit.
constexpr int32_t kUnitSigns =
    kPairs ? static_cast<int32_t>(0x80008000) : INT32_MIN;

// Whether a number in a unit is infinite or NaN.
inline VecInt AnyNotFinite(Vec units) {
  const auto has_all = [&](int32_t exponent) {
    return (Bits(units) & BroadcastInt(exponent)) == BroadcastInt(exponent);
  };
  VecInt any = has_all(0x7F800000);
  if (kPairs) any |= has_all(0x7F80);
  return any;
}

// The number of one step in a unit.
inline float NumberOf(const float* unit, int64_t step) {
  uint32_t bits = LoadUnit(unit);
  if (kPairs) bits = step % 2 ? bits & 0xFFFF0000 : bits << 16;
  float number;
  std::memcpy(&number, &bits, sizeof number);
  return number;
}

#if defined(HW3TF_BFLOAT16_PRODUCTS)
// Units of the numbers of a step and of the next, rounded.
inline Vec UnitOf(Vec first, Vec second) {
  // One instruction rounds both vectors and puts one behind the other.
  const __m512i halves =
      reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
  alignas(64) static constexpr uint16_t kInterleave[32] = {
      0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return reinterpret_cast<Vec>(_mm512_maskz_permutexvar_epi16(
      0xFFFFFFFF, _mm512_load_si512(kInterleave), halves));
}

inline Vec ScaleUnits(Vec units, Vec factor) {
  return UnitOf(FromBits(Bits(units) << 16) * factor,
                FromBits(Bits(units) & BroadcastInt(-0x10000)) * factor);
}

// 2^y of a weight that a unit will hold; NaN if y is infinite.
inline Vec Exp2OfWeight(Vec y) { return Exp2Bfloat16(y); }
#else
inline Vec UnitOf(Vec number, Vec) { return number; }
inline Vec ScaleUnits(Vec units, Vec factor) { return units * factor; }
inline Vec Exp2OfWeight(Vec y) { return Exp2Finite(y); }
#endif

}  // namespace
}  // namespace hw3tf
