// Rows of any element type to float32 and back. The softmax and every sum are
// float32: bfloat16 and float16 exist only in the caller's arrays.

#pragma once

#include "kernels/attention/attention.h"
#include "kernels/vector/simd.h"

namespace hw3tf {
namespace {

inline float BitsToFloat(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t FloatToBits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float FromBfloat16(uint16_t half) {
  return BitsToFloat(static_cast<uint32_t>(half) << 16);
}

// To nearest, ties to even. A NaN keeps its upper bits and becomes quiet.
inline uint16_t ToBfloat16(float value) {
  const uint32_t bits = FloatToBits(value);
  const uint32_t rounded = bits + 0x7FFF + ((bits >> 16) & 1);
  return static_cast<uint16_t>((value == value ? rounded : bits | 0x400000) >>
                               16);
}

inline float FromFloat16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t rest = half & 0x7FFF;
  if (rest >= 0x7C00)  // infinity, NaN
    return BitsToFloat(sign | 0x7F800000 | (rest & 0x3FF) << 13);
  if (rest >= 0x0400)  // the exponent's bias is 127 instead of 15
    return BitsToFloat(sign | ((rest << 13) + (112u << 23)));
  // Denormal: rest * 2^-24, exact.
  const float size = static_cast<float>(rest) * 5.9604644775390625e-8f;
  return BitsToFloat(sign | FloatToBits(size));
}

// To nearest, ties to even.
inline uint16_t ToFloat16(float value) {
  const uint32_t bits = FloatToBits(value);
  const uint32_t sign = (bits >> 16) & 0x8000, size = bits & 0x7FFFFFFF;
  uint32_t half;
  if (size > 0x7F800000) {
    half = 0x7E00 | (size >> 13 & 0x3FF);  // quiet NaN
  } else if (size >= 0x477FF000) {
    half = 0x7C00;  // 65520 and more round to infinity
  } else if (size >= 0x38800000) {
    half = (size - (112u << 23) + 0xFFF + (size >> 13 & 1)) >> 13;
  } else {
    // Below 2^-14: adding 1/2 leaves the multiple of 2^-24 in the last bits,
    // rounded by the hardware.
    half = FloatToBits(BitsToFloat(size) + 0.5f) - 0x3F000000;
  }
  return static_cast<uint16_t>(sign | half);
}

#if defined(__F16C__)
constexpr bool kHasFloat16 = true;
#else
constexpr bool kHasFloat16 = false;
#endif

typedef uint16_t Halves __attribute__((vector_size(kLanes * 2)));

inline Vec WidenBfloat16(const uint16_t* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  return FromBits(__builtin_convertvector(halves, VecInt) << 16);
}

inline void NarrowBfloat16(Vec value, uint16_t* to) {
  const VecInt bits = Bits(value);
  const VecInt rounded = bits + 0x7FFF + ((bits >> 16) & 1);
  const VecInt kept = value == value ? rounded : bits | 0x400000;
  const Halves halves = __builtin_convertvector(kept >> 16, Halves);
  std::memcpy(to, &halves, sizeof halves);
}

#if defined(__F16C__)
inline Vec WidenFloat16(const uint16_t* from) {
#if defined(__AVX512F__)
  __m256i halves;
  std::memcpy(&halves, from, sizeof halves);
  return reinterpret_cast<Vec>(_mm512_maskz_cvtph_ps(0xFFFF, halves));
#else
  __m128i halves;
  std::memcpy(&halves, from, sizeof halves);
  return reinterpret_cast<Vec>(_mm256_cvtph_ps(halves));
#endif
}

inline void NarrowFloat16(Vec value, uint16_t* to) {
#if defined(__AVX512F__)
  const __m256i halves = _mm512_maskz_cvtps_ph(0xFFFF, value, 0);
#else
  const __m128i halves = _mm256_cvtps_ph(value, 0);
#endif
  std::memcpy(to, &halves, sizeof halves);
}
#else
inline Vec WidenFloat16(const uint16_t*) { return Vec{}; }
inline void NarrowFloat16(Vec, uint16_t*) {}
#endif

inline int64_t ElementBytes(DType dtype) {
  return dtype == DType::kFloat32 ? 4 : 2;
}

inline const void* Element(const void* data, int64_t index, DType dtype) {
  return static_cast<const char*>(data) + index * ElementBytes(dtype);
}

inline void* Element(void* data, int64_t index, DType dtype) {
  return static_cast<char*>(data) + index * ElementBytes(dtype);
}

// Copies `size` elements to float32; zeros follow up to `padded`.
inline void WidenRow(const void* from, DType dtype, int64_t size,
                     int64_t padded, float* to) {
  int64_t h = 0;
  const auto* halves = static_cast<const uint16_t*>(from);
  if (dtype == DType::kFloat32) {
    const auto* floats = static_cast<const float*>(from);
    for (; h + kLanes <= size; h += kLanes) Store(to + h, Load(floats + h));
    for (; h < size; ++h) to[h] = floats[h];
  } else if (dtype == DType::kBfloat16) {
    for (; h + kLanes <= size; h += kLanes)
      Store(to + h, WidenBfloat16(halves + h));
    for (; h < size; ++h) to[h] = FromBfloat16(halves[h]);
  } else {
    for (; kHasFloat16 && h + kLanes <= size; h += kLanes)
      Store(to + h, WidenFloat16(halves + h));
    for (; h < size; ++h) to[h] = FromFloat16(halves[h]);
  }
  for (; h < padded; ++h) to[h] = 0.0f;
}

// Writes `size` float32 as elements.
inline void NarrowRow(const float* from, DType dtype, int64_t size, void* to) {
  int64_t h = 0;
  auto* halves = static_cast<uint16_t*>(to);
  if (dtype == DType::kFloat32) {
    auto* floats = static_cast<float*>(to);
    for (; h + kLanes <= size; h += kLanes) Store(floats + h, Load(from + h));
    for (; h < size; ++h) floats[h] = from[h];
  } else if (dtype == DType::kBfloat16) {
    for (; h + kLanes <= size; h += kLanes)
      NarrowBfloat16(Load(from + h), halves + h);
    for (; h < size; ++h) halves[h] = ToBfloat16(from[h]);
  } else {
    for (; kHasFloat16 && h + kLanes <= size; h += kLanes)
      NarrowFloat16(Load(from + h), halves + h);
    for (; h < size; ++h) halves[h] = ToFloat16(from[h]);
  }
}

// Adds `size` elements to as many sums.
inline void AddRow(const void* from, DType dtype, int64_t size, double* sums) {
  if (dtype == DType::kFloat32) {
    const auto* floats = static_cast<const float*>(from);
    for (int64_t h = 0; h < size; ++h)
      sums[h] += static_cast<double>(floats[h]);
    return;
  }
  for (int64_t first = 0; first < size; first += kLanes) {
    const int64_t count = size - first < kLanes ? size - first : kLanes;
    float part[kLanes];
    WidenRow(Element(from, first, dtype), dtype, count, kLanes, part);
    for (int64_t h = 0; h < count; ++h)
      sums[first + h] += static_cast<double>(part[h]);
  }
}

}  // namespace
}  // namespace hw3tf
