// The elements of the four types, one at a time, in whatever instructions the
// machine has: to double and, rounded once to the nearest even, back.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace hw3tf {

struct Bfloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

// The type of statistics, logsumexp and bias beside elements of T.
template <typename T>
using RealOf = typename std::conditional<std::is_same<T, double>::value, double,
                                         float>::type;

static inline float FloatOfBits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

static inline double Load(double x) { return x; }
static inline double Load(float x) { return static_cast<double>(x); }

static inline double Load(Bfloat16 x) {
  return static_cast<double>(FloatOfBits(static_cast<uint32_t>(x.bits) << 16));
}

static inline double Load(Float16 x) {
  const uint32_t sign = (x.bits & 0x8000u) << 16;
  const uint32_t rest = (x.bits & 0x7FFFu) << 13;
  // Exponents are 15 too high in float16 and 127 in float32. The product also
  // turns subnormal numbers, exponent 0, into what they are.
  const float scaled = FloatOfBits(rest) * 0x1p112f;
  const bool special = rest >= 0x1Fu << 23;  // infinity and NaN
  const float size = special ? FloatOfBits(rest | 0x7F800000u) : scaled;
  return static_cast<double>(sign ? -size : size);
}

// The bits of x in a type of 1 + exponent + `mantissa` bits, of which 2 to the
// power of `least` is the smallest normal number and `infinity` the infinity.
static inline uint16_t RoundToBits(double x, int mantissa, int least,
                                   int infinity) {
  const int sign = std::signbit(x) ? 0x8000 : 0;
  // A quiet NaN: the highest bit of the mantissa.
  if (std::isnan(x))
    return static_cast<uint16_t>(sign | infinity | 1 << (mantissa - 1));
  int bits = infinity;
  if (x == 0.0) {
    bits = 0;
  } else if (!std::isinf(x) && std::ilogb(x) <= 1 - least) {
    const int exponent = std::ilogb(x) > least ? std::ilogb(x) : least;
    // In units of the last place. A normal number has its leading 1 in there,
    // which adds one to the exponent; so does rounding up to the next power.
    const double units = std::ldexp(std::fabs(x), mantissa - exponent);
    bits = (exponent - least) * (1 << mantissa) +
           static_cast<int>(std::nearbyint(units));
    if (bits > infinity) bits = infinity;
  }
  return static_cast<uint16_t>(sign | bits);
}

static inline void Store(double x, double* element) { *element = x; }
static inline void Store(double x, float* element) {
  *element = static_cast<float>(x);
}
static inline void Store(double x, Bfloat16* element) {
  element->bits = RoundToBits(x, 7, -126, 0x7F80);
}
static inline void Store(double x, Float16* element) {
  element->bits = RoundToBits(x, 10, -14, 0x7C00);
}

}  // namespace hw3tf
