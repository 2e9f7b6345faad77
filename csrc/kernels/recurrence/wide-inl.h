// A step of one row with 32-bit states in sums of 64 bits: for where bounds
// allow a sum beyond 32 bits, but not beyond 63. Products of 32-bit numbers in
// 64-bit lanes are one instruction, so it costs about twice the step it
// replaces, and the exact step, number by number, thirty times.

#pragma once

#include "kernels/recurrence/kernel_table.h"
#include "kernels/recurrence/multiply-inl.h"

namespace hw3tf {
namespace {

// Numbers of 64 bits that fit 32.
struct WideNumbers {
  using State = int64_t;
  using Element = int64_t;
  static constexpr int kStep = 1;
  static RingVec<int64_t> Broadcast(const int64_t* a) {
    return BroadcastRing<int64_t>(static_cast<uint64_t>(*a));
  }
  static RingVec<int64_t> Add(RingVec<int64_t> sum, RingVec<int64_t> a,
                              RingVec<int64_t> b) {
#if defined(__AVX512F__)
    // The masked form: the plain one warns of an uninitialised variable in
    // GCC's own header.
    return sum + reinterpret_cast<RingVec<int64_t>>(
                     _mm512_maskz_mul_epi32(0xFF, reinterpret_cast<__m512i>(a),
                                            reinterpret_cast<__m512i>(b)));
#elif defined(__AVX2__)
    return sum +
           reinterpret_cast<RingVec<int64_t>>(_mm256_mul_epi32(
               reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#else
    return sum + a * b;
#endif
  }
};

inline int64_t WidePaddedUnits(const RowsPlan& plan) {
  constexpr int64_t kLaneCount = kRingLanes<int64_t>;
  return (plan.args->shape.units + kLaneCount - 1) / kLaneCount * kLaneCount;
}

// Numbers that a wide step keeps meanwhile.
inline int64_t WideScratch(const RowsPlan& plan) {
  const RecurrenceShape& shape = plan.args->shape;
  const int64_t depth =
      shape.features > shape.units ? shape.features : shape.units;
  return depth + WidePaddedUnits(plan);
}

// sums += numbers * packed
inline void AddWide(const int32_t* numbers, int64_t depth, const void* packed,
                    int64_t padded_units, int64_t* widened, int64_t* sums) {
  for (int64_t i = 0; i < depth; ++i) widened[i] = numbers[i];
  Multiply<WideNumbers>({widened, depth, depth, sums, padded_units}, 1,
                        padded_units, static_cast<const int64_t*>(packed));
}

// Brings wide sums to the fractional bits and into the range of the state.
// Returns whether one did not fit.
inline bool NarrowSums(const RecurrenceOptions& options, int64_t units,
                       const int64_t* wide, int32_t* sums) {
  const int bits = options.fractional_bits;
  const int64_t half = bits > 0 ? int64_t{1} << (bits - 1) : 0;
  const bool saturate = options.overflow == Overflow::kSaturate;
  int64_t outside = 0;
  for (int64_t j = 0; j < units; ++j) {
    int64_t x = (wide[j] + half) >> bits;
    outside |= x ^ static_cast<int32_t>(x);
    if (saturate) {
      x = x < INT32_MIN ? INT32_MIN : x;
      x = x > INT32_MAX ? INT32_MAX : x;
    }
    sums[j] = static_cast<int32_t>(x);
  }
  return outside != 0;
}

// Returns whether a sum did not fit; `sums` is before the activation.
// `scratch`: WideScratch numbers.
bool WideStep(const RowsPlan& plan, const int32_t* x, const int32_t* previous,
              int64_t* scratch, int32_t* sums) {
  const RecurrenceShape& shape = plan.args->shape;
  const int64_t padded = WidePaddedUnits(plan);
  int64_t* const wide = scratch;
  int64_t* const widened = scratch + padded;
  const auto* bias = static_cast<const int32_t*>(plan.bias);
  for (int64_t j = 0; j < padded; ++j) wide[j] = bias[j];
  AddWide(x, shape.features, plan.wide_kernel, padded, widened, wide);
  if (plan.diagonal) {
    const auto* diagonal = static_cast<const int32_t*>(plan.recurrent_kernel);
    for (int64_t j = 0; j < shape.units; ++j)
      wide[j] += static_cast<int64_t>(previous[j]) * diagonal[j];
  } else {
    AddWide(previous, shape.units, plan.wide_recurrent_kernel, padded, widened,
            wide);
  }
  return NarrowSums(plan.args->options, shape.units, wide, sums);
}

}  // namespace
}  // namespace hw3tf
