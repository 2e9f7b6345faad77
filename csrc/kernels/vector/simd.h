// The vector of the instruction set that is being compiled.
//
// Every *-inl.h file of the kernels is written against these few names and is
// compiled once per instruction set (see CMakeLists.txt), so there is one
// source per algorithm, never one per machine. GCC's and Clang's vector types
// give arithmetic, comparison and selection; intrinsics are used only where
// the vector types generate worse code.
//
// Everything is in an anonymous namespace: a function that two objects share
// would let the AVX body leak into the base build
// (tests/release/test_layout.py).

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace hw3tf {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

// Rows of a register tile; it is kRows x 2 vectors of accumulators. With 16
// registers 6 x 2 leaves room for 2 loads and a broadcast (AVX2); without a
// fused multiply-add the product needs registers of its own, so 4 x 2 (SSE2);
// with 32 registers 8 x 2 suffices to hide the latency of the FMA.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRows = 8;
#elif defined(__AVX2__)
constexpr int kRows = 6;
#else
constexpr int kRows = 4;
#endif

constexpr int kVecBytes = kLanes * 4;
typedef float Vec __attribute__((vector_size(kVecBytes)));
typedef int32_t VecInt __attribute__((vector_size(kVecBytes)));
typedef uint32_t VecUint __attribute__((vector_size(kVecBytes)));
typedef uint8_t VecBytes __attribute__((vector_size(kVecBytes)));
typedef float VecUnaligned
    __attribute__((vector_size(kVecBytes), aligned(2), may_alias));

typedef double VecDouble __attribute__((vector_size(kVecBytes)));
typedef double VecDoubleUnaligned
    __attribute__((vector_size(kVecBytes), aligned(2), may_alias));

inline Vec Load(const float* from) {
  return *reinterpret_cast<const VecUnaligned*>(from);
}

inline void Store(float* to, Vec value) {
  *reinterpret_cast<VecUnaligned*>(to) = value;
}

inline Vec Broadcast(float value) { return value - Vec{}; }

inline VecDouble Load(const double* from) {
  return *reinterpret_cast<const VecDoubleUnaligned*>(from);
}

inline void Store(double* to, VecDouble value) {
  *reinterpret_cast<VecDoubleUnaligned*>(to) = value;
}

inline VecDouble Broadcast(double value) { return value - VecDouble{}; }

inline VecInt BroadcastInt(int32_t value) { return value - VecInt{}; }

inline Vec Select(VecInt condition, Vec yes, Vec no) {
  return condition ? yes : no;
}

// True in the lanes i with bit `first` + i of `bits`.
inline VecInt LanesOf(uint32_t bits, int first) {
  VecInt lane_bit;
  for (int i = 0; i < kLanes; ++i)
    lane_bit[i] = static_cast<int32_t>(1u << (first + i));
  return (BroadcastInt(static_cast<int32_t>(bits)) & lane_bit) != 0;
}

// The larger of each lane; `b` where either is NaN.
inline Vec Max(Vec a, Vec b) {
#if defined(__AVX512F__)
  // The masked form: the plain one warns of an uninitialised variable in GCC's
  // own header.
  return reinterpret_cast<Vec>(_mm512_maskz_max_ps(0xFFFF, a, b));
#elif defined(__AVX2__)
  return reinterpret_cast<Vec>(_mm256_max_ps(a, b));
#else
  return a > b ? a : b;
#endif
}

// The smaller of each lane; `b` where either is NaN.
inline Vec Min(Vec a, Vec b) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vec>(_mm512_maskz_min_ps(0xFFFF, a, b));
#elif defined(__AVX2__)
  return reinterpret_cast<Vec>(_mm256_min_ps(a, b));
#else
  return a < b ? a : b;
#endif
}

// Bit i is whether lane i of a comparison is true.
inline uint32_t BitsOf(VecInt condition) {
#if defined(__AVX512F__)
  const __m512i bits = reinterpret_cast<__m512i>(condition);
  return _mm512_test_epi32_mask(bits, bits);
#elif defined(__AVX2__)
  return static_cast<uint32_t>(
      _mm256_movemask_ps(reinterpret_cast<__m256>(condition)));
#elif defined(__SSE2__)
  return static_cast<uint32_t>(
      _mm_movemask_ps(reinterpret_cast<__m128>(condition)));
#else
  uint32_t bits = 0;
  for (int i = 0; i < kLanes; ++i)
    bits |= static_cast<uint32_t>(condition[i] & 1) << i;
  return bits;
#endif
}

inline bool AnyTrue(VecInt condition) { return BitsOf(condition) != 0; }

// Whether a byte is not zero.
inline bool AnyByte(VecBytes bytes) {
  return AnyTrue(reinterpret_cast<VecInt>(bytes) != 0);
}

inline VecInt Bits(Vec value) {
  VecInt bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline Vec FromBits(VecInt bits) {
  Vec value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Whether a lane is infinite or NaN.
inline VecInt NotFinite(Vec value) {
  const VecInt exponent = BroadcastInt(0x7F800000);
  return (Bits(value) & exponent) == exponent;
}

// a - b modulo 2^32, where the difference of signed numbers may be none.
inline VecInt WrappingDifference(VecInt a, VecInt b) {
  return reinterpret_cast<VecInt>(reinterpret_cast<VecUint>(a) -
                                  reinterpret_cast<VecUint>(b));
}

// 2^r for |r| <= 1/2.
inline Vec Exp2OfFraction(Vec r) {
  Vec p = r * 1.5353362e-4f + 1.3398875e-3f;
  p = r * p + 9.6184369e-3f;
  p = r * p + 5.5503324e-2f;
  p = r * p + 2.4022648e-1f;
  p = r * p + 6.9314718e-1f;
  return r * p + 1.0f;
}

// 2^y: exactly 1 at 0, 0 far below the range, infinity from 128 on; NaN gives
// NaN.
//
// y = n + r with n an integer; 2^r is a polynomial of degree 6 fitted for the
// smallest relative error: 2e-9 in exact arithmetic, 1.0e-7 evaluated in
// float32, which is rounding alone. Degree 5 ends at 1.4e-7 to 2.1e-7, and
// would spend the error budget for half a cycle per vector.
//
// AVX-512 has the two steps around the polynomial as instructions, with 0 <= r
// < 1; elsewhere |r| <= 1/2 and 2^n is put together from its bits (8.1 cycles
// per 16 lanes against 6).
inline Vec Exp2(Vec y) {
#if defined(__AVX512DQ__)
  constexpr int kFloor = 1;
  const Vec r =
      reinterpret_cast<Vec>(_mm512_maskz_reduce_ps(0xFFFF, y, kFloor));
  Vec p = r * 2.16125095e-4f + 1.2467952e-3f;
  p = r * p + 9.67544155e-3f;
  p = r * p + 5.54852848e-2f;
  p = r * p + 2.40229305e-1f;
  p = r * p + 6.93147044e-1f;
  p = r * p + 1.0f;
  return reinterpret_cast<Vec>(_mm512_maskz_scalef_ps(0xFFFF, p, y));
#else
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: the sum has no fraction
  y = Max(Broadcast(-127.0f), y);        // this order keeps a NaN in y
  y = Select(y > 128.0f, Broadcast(128.0f), y);
  const Vec shifted = y + kRound;
  const Vec p = Exp2OfFraction(y - (shifted - kRound));
  // A product, not an addition to the exponent, so that NaN stays NaN.
  return p * FromBits((Bits(shifted) + 127) << 23);
#endif
}

#if defined(__AVX512DQ__)
inline Vec ToNearest(Vec y) {
  constexpr int kNearestQuietly = 8;
  return reinterpret_cast<Vec>(
      _mm512_maskz_roundscale_ps(0xFFFF, y, kNearestQuietly));
}

// p * 2^n of an integer n.
inline Vec Scale(Vec p, Vec n) {
  return reinterpret_cast<Vec>(_mm512_maskz_scalef_ps(0xFFFF, p, n));
}
#endif

// The same where y is finite; NaN if it is infinite. On AVX-512 a subtraction
// takes the place of one of two multiplications of 17 on the units that also
// multiply and add (Zen 4: 7.6 cycles per 16 lanes against 8.4; at H = 32 1 %
// of the whole kernel).
inline Vec Exp2Finite(Vec y) {
#if defined(__AVX512DQ__)
  const Vec n = ToNearest(y);
  return Scale(Exp2OfFraction(y - n), n);
#else
  return Exp2(y);
#endif
}

// The same with a relative error of 3e-6: degree 4, for weights that are
// rounded to bfloat16. Each of them is off by up to 4e-3, but not their sum,
// from which the logsumexp is computed. Degree 3 (1e-4) would save a cycle of
// 72 per 16 scores, and made the logsumexp 10 times as wrong as Keras's.
inline Vec Exp2Bfloat16(Vec y) {
#if defined(__AVX512DQ__)
  const Vec n = ToNearest(y), r = y - n;
  Vec p = r * 9.58285294e-3f + 5.59064262e-2f;
  p = r * p + 2.40240991e-1f;
  p = r * p + 6.93124175e-1f;
  p = r * p + 1.0f;
  return Scale(p, n);
#else
  return Exp2(y);
#endif
}

// ln(x) of a positive number that is not denormal; infinity and NaN give
// themselves. Lanes beyond the last query may hold any bits.
// x = m * 2^e with m in [sqrt(1/2), sqrt(2)); ln(m) = 2 artanh(s),
// s = (m - 1) / (m + 1), |s| < 0.1716, of which the first term left out is
// 2e-9 of the value.
inline Vec Log(Vec x) {
  constexpr int32_t kSqrtHalf = 0x3F3504F3;
  const VecInt e = WrappingDifference(Bits(x), BroadcastInt(kSqrtHalf)) >> 23;
  const Vec m = FromBits(WrappingDifference(Bits(x), e << 23));
  const Vec s = (m - 1.0f) / (m + 1.0f);
  const Vec z = s * s;
  Vec p = z * (1.0f / 9) + 1.0f / 7;
  p = z * p + 1.0f / 5;
  p = z * p + 1.0f / 3;
  // ln(2) in two parts, the first short enough for e times it to be exact.
  const Vec exponent = __builtin_convertvector(e, Vec);
  const Vec low = s * (z * p) * 2.0f + exponent * 1.42860677e-6f;
  const Vec log = exponent * 0.693145752f + (s * 2.0f + low);
  return Select(x < __builtin_inff(), log, x);
}

// tanh(y): a polynomial in y^2 below 0.6, where 1 - 2 / (e^2y + 1) would
// cancel; 2.6e-9 relative error in exact arithmetic, two units in the last
// place evaluated. NaN gives NaN.
inline Vec Tanh(Vec y) {
  const Vec z = y * y;
  Vec p = z * -5.90689126e-3f + 2.08063119e-2f;
  p = z * p - 5.37869762e-2f;
  p = z * p + 1.33319619e-1f;
  p = z * p - 3.33332994e-1f;
  const Vec small = y + y * z * p;
  // tanh is 1 to float32 from 9.01 on; e^2y must stay finite.
  const VecInt sign = Bits(y) & BroadcastInt(INT32_MIN);
  const Vec size = FromBits(Bits(y) ^ sign);
  const Vec capped = Select(size > 10.0f, Broadcast(10.0f), size);
  const Vec e = Exp2(capped * 2.88539008f);  // 2 * log2(e)
  const Vec large = FromBits(Bits(1.0f - 2.0f / (e + 1.0f)) | sign);
  return Select(z < 0.36f, small, large);
}

// Transposes kLanes x kLanes floats held in registers: log2(kLanes) rounds of
// interleaving row i with row i + kLanes / 2.
inline void Transpose(Vec (&rows)[kLanes]) {
  VecInt low, high;
  for (int i = 0; i < kLanes; ++i) {
    low[i] = i / 2 + (i % 2) * kLanes;
    high[i] = low[i] + kLanes / 2;
  }
  for (int round = 1; round < kLanes; round *= 2) {
    Vec next[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; ++i) {
      const Vec a = rows[i], b = rows[i + kLanes / 2];
#if defined(__clang__)
      for (int lane = 0; lane < kLanes; ++lane) {
        next[2 * i][lane] =
            low[lane] < kLanes ? a[low[lane]] : b[low[lane] - kLanes];
        next[2 * i + 1][lane] =
            high[lane] < kLanes ? a[high[lane]] : b[high[lane] - kLanes];
      }
#else
      next[2 * i] = __builtin_shuffle(a, b, low);
      next[2 * i + 1] = __builtin_shuffle(a, b, high);
#endif
    }
    for (int i = 0; i < kLanes; ++i) rows[i] = next[i];
  }
}

}  // namespace
}  // namespace hw3tf
